"""What a plan counts on tensors that hold nothing is what a computer does."""

from __future__ import annotations

import inspect
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from xai_course.data.batch import ArrayData, Splits
from xai_course.measure import localising, looking, minmax, outside, patches, protocol, robustness
from xai_course.methods.base import CrossEntropy
from xai_course.methods.erasing import Erasing
from xai_course.methods.hnc import HNC
from xai_course.methods.minmax import MinMax
from xai_course.methods.reff import ReFF
from xai_course.nets.convnets import small_cnn
from xai_course.nets.wildcat import LocaliserClassifier, minmax_head, small_trunk
from xai_course.preset import Preset
from xai_course.runs import plan
from xai_course.runs.catalogue import experiments
from xai_course.runs.hollow import Counts, hollow
from xai_course.runs.task import Task, gpus, looks_of

TASK = Task((3, 32, 32), 4, False, 100, 8, 8)


def net() -> nn.Module:
    return small_cnn(4, width=4)


def min_max(depth: int) -> MinMax:
    pair = LocaliserClassifier(small_trunk(4)[0], minmax_head(16, 4), minmax_head(16, 4))
    return MinMax(pair, erasing=Erasing(depth, rule="none"))


METHODS = {
    "ce": lambda: CrossEntropy(net()),
    "hnc": lambda: HNC(net()),
    "reff": lambda: ReFF(net(), layers=["body.3"]),
    "u2": lambda: min_max(2),
}


def hollow_step(method) -> Counts:
    with hollow(method) as (copied,):
        return plan._step(copied.train(), plan._splits(TASK, 8).train.__getitems__(range(8)), None, Preset(), None)


@pytest.mark.parametrize("name", METHODS)
def test_a_step_on_tensors_that_hold_nothing_counts_what_a_real_step_does(name):
    method = METHODS[name]()
    counted = hollow_step(method)
    real = plan._step(method.train(), plan._splits(TASK, 8).train.__getitems__(range(8)), None, Preset(), None)
    assert real.flops == counted.flops > 0 and real.memory == pytest.approx(counted.memory, rel=0.02)
    assert sum(b for _, b, _ in real.each) == pytest.approx(sum(b for _, b, _ in counted.each), rel=0.02)


def test_more_passes_cost_more():
    flops = {name: hollow_step(make()).flops for name, make in METHODS.items()}
    assert flops["reff"] > 1.2 * flops["ce"]
    assert 1.2 * flops["u2"] < hollow_step(min_max(4)).flops < 5 / 3 * flops["u2"]


#: Images a second that NVIDIA publishes for ResNet-50 at 224 pixels: github.com/NVIDIA/DeepLearningExamples,
#: PyTorch/Classification/ConvNets/resnet50v1.5, README. The A100 has 80 GB there, and its convolutions use TF32.
PUBLISHED = [
    ("t4", {}, 128, None, False, 426),
    ("t4", {}, 128, torch.float16, False, 1190),
    ("a100", {"bandwidth": 2039, "single": 156}, 256, None, True, 938),
    ("a100", {"bandwidth": 2039}, 256, torch.bfloat16, True, 2470),
]


@pytest.mark.parametrize("name, other, count, half, trains, published", PUBLISHED)
def test_published_throughputs_lie_within_a_factor_of_two(name, other, count, half, trains, published):
    from torchvision.models import resnet50

    card = SimpleNamespace(**vars(plan.card(name)) | other)
    with hollow(CrossEntropy(resnet50())) as (method,):
        splits = plan._splits(Task((3, 224, 224), 1000, False, 1, 1, 1), count)
        batch = splits.train.__getitems__(range(count))
        if trains:
            counts = plan._step(method.train(), batch, None, Preset(optimizer="sgd"), half)
        else:
            with Counts() as counts, torch.no_grad(), torch.autocast("cpu", half, enabled=half is not None):
                method.eval().logits(batch.images)
    assert 0.5 < count / counts.seconds(card) / published < 1.5


def data(count: int) -> ArrayData:
    masks = torch.zeros(count, 32, 32, dtype=torch.bool)
    masks[:, 8:20, 10:24] = True
    return ArrayData(torch.rand(count, 3, 32, 32), torch.arange(count) % 4, masks)


LAYERS = [f"body.{k}" for k in (1, 2, 3, 4)]
MEASURES = [
    looking.accuracy,
    looking.validation_accuracy,
    robustness.clean_accuracy,
    partial(robustness.fgsm_accuracy, epsilons=(0.1, 0.2)),
    partial(robustness.pgd_accuracy, epsilons=(0.1, 0.2), steps=3),
    localising.localisation,
    localising.map_area,
    partial(outside.shortcut, layers=LAYERS),
    partial(protocol.controls, starts=2),
    partial(protocol.perturbation, steps=4),
    protocol.randomisation,
    partial(protocol.cost, baseline=lambda _: CrossEntropy(net()), clock=plan.LATE, rounds=3),
]


@pytest.mark.parametrize("measure", MEASURES)
def test_a_measure_looks_as_often_as_declared(measure):
    method = CrossEntropy(net()).eval()
    splits = Splits("toy", data(8), data(12), data(8), tuple("abcd"), "")
    with Counts() as one, torch.no_grad():
        method.logits(splits.test.__getitems__(range(8)).images)
    with Counts() as all_of_it:
        measure(method, splits)
    row = SimpleNamespace(measures=[measure])
    assert looks_of(row, TASK._replace(validation=12)) == pytest.approx(8 * all_of_it.flops / one.flops, rel=0.35)


def test_m_and_c_look_as_often_as_declared():
    splits = Splits("toy", data(8), data(8), data(8), tuple("abcd"), "")
    method = min_max(1).eval()
    with Counts() as one, torch.no_grad():
        method.logits(splits.test.__getitems__(range(8)).images)
    with Counts() as mined:
        minmax.mining(method, splits)
    assert mined.flops / one.flops <= looks_of(SimpleNamespace(measures=[minmax.mining]), TASK) / 8


def test_every_measure_of_a_row_that_can_be_planned_is_declared():
    used = {getattr(m, "func", m) for row in experiments().values() for m in row.measures if "colab" in row.presets}
    for measure in used:
        told = gpus()["looks"][measure.__name__]
        assert {told.get("per"), told.get("also")} - {None} <= set(inspect.signature(measure).parameters), measure
    assert patches.patch_measures in used
