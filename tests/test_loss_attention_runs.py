"""The declared rows of Loss-Attention, their parts, and the chapter's figures."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from xai_course.data.augment import crop_and_flip
from xai_course.data.batch import ArrayData, Batch, Splits
from xai_course.data.textured_digits import textured_digits
from xai_course.methods.patch_heads import AttentionPooling, LossAttention, MeanPooling, Separate
from xai_course.nets.convnets import small_cnn
from xai_course.nets.patch_nets import patch_net
from xai_course.preset import Clock
from xai_course.runs.declared import experiments
from xai_course.runs.parts.loss_attention import enlarged, few
from xai_course.show import loss_attention as show
from xai_course.train import fit

EXPERIMENTS = experiments("loss_attention")
BY_NAME = {e.name: e for e in EXPERIMENTS}


def toy(preset: str = "smoke", *, seed: int = 0, limit=(16, 8, 8)) -> Splits:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (limit[0], 3, 32, 32), generator=generator, dtype=torch.uint8)
    data = ArrayData(images, torch.arange(limit[0]) % 10)
    return Splits("toy", data, data, data, tuple("0123456789"), "0")


def test_every_row_of_every_table_is_declared():
    items = [e.item for e in EXPERIMENTS]
    released = 3  # Table II has one more row per data set: the cut and ramp of the released code
    expected = {"table1": 8, "table2": 48 + released, "table3": 8, "table4": 12, "table5": 14, "table6": 6, "table7": 8}
    assert {item: items.count(item) for item in expected} == expected
    assert items.count("fig7") == 22 and len(BY_NAME) == len(EXPERIMENTS)
    for e in EXPERIMENTS:
        assert {"smoke", "colab", "paper"} == set(e.presets) - {"cpu"}
        for preset in e.presets:
            e.settings(preset)
        assert e.item in ("digits", "two_digits") or "GPU" in e.needs


@pytest.mark.parametrize(
    ("name", "reported"),
    [
        ("table1/coco/mean_adam", {"mAP": "51.43"}),
        ("table2/svhn/resnet18_capsule", {"accuracy": "97.24"}),
        ("table2/cifar10/resnet18_loss_attention_code", {}),
        ("table3/cifar100/googlenet_loss_attention", {"accuracy": "78.68"}),
        ("table4/vgg11_mean", {"accuracy": "57.83", "precision": "81.85", "recall": "13.53", "f": "23.22"}),
        ("table5/resnet18_routing", {"mAP": "48.19", "precision": "22.92", "recall": "99.99", "f": "37.31"}),
        ("table6/resnet18_gamma0.1_xi0", {"ap": "52.26"}),
        ("table7/strides3_step2", {"accuracy": "95.36"}),
    ],
)
def test_printed_numbers(name, reported):
    found = BY_NAME[f"loss_attention/{name}"].reported
    assert reported.items() <= found.items() and (reported or not found)


def test_every_network_of_the_tables_is_built():
    built = set()
    for e in EXPERIMENTS:
        key = repr(e.settings("paper")["net"])
        if key in built:
            continue
        built.add(key)
        with torch.device("meta"):
            net = e.net(toy())
            size = 64 if ("'image_size': 64" in key) else 32
            call = net.votes if hasattr(net, "votes") else net
            assert call(torch.empty(1, 3, size, size, device="meta")).shape[0] == 1
    assert len(built) > 20


@pytest.mark.parametrize("item", ["digits", "two_digits"])
def test_our_rows_train_and_are_measured(item):
    chosen = [e for e in EXPERIMENTS if e.item == item]
    knobs = {"digit_size": (14, 16), "objects": 1 if item == "digits" else 2}
    splits = textured_digits(seed=0, train=32, validation=16, test=16, **knobs)
    for e in chosen:
        method = e.method(e.net(splits))
        fit(method, splits.train, replace(e.preset("smoke"), epochs=1, batch_size=16))
        found = {}
        for measure in e.measures:
            found |= measure(method, splits)
        whole = e.name.endswith(("plain", "routing"))
        assert set(found) >= set(e.shown[:1] if whole else e.shown), e.name
        assert all(value == value for value in found.values()), e.name


def test_smoke_keeps_a_handful_of_images():
    assert len(few(toy, preset="smoke", seed=0).train) == 16
    large = enlarged(toy, preset="smoke", seed=0)
    assert large.train.images.shape == (16, 3, 64, 64) and large.train.images.dtype == torch.uint8
    assert large.fingerprint != "0"


@pytest.mark.parametrize("flip", [True, False])
def test_crops_move_images_and_masks_together(flip):
    images = torch.rand(64, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    masks = images[:, 0] > 0.5
    batch = Batch(images, torch.zeros(64).long(), masks, torch.arange(64))
    moved = crop_and_flip(batch, torch.Generator().manual_seed(1), flip=flip)
    assert moved.images.shape == images.shape
    assert torch.equal(moved.masks, moved.images[:, 0] > 0.5)
    assert torch.equal(crop_and_flip(batch, torch.Generator().manual_seed(1), flip=flip).images, moved.images)
    seen = set()
    for before, after in zip(images, moved.images):  # every image is a shifted (or mirrored) copy
        padded = torch.nn.functional.pad(before, (4,) * 4)
        places = [(y, x, f) for y in range(9) for x in range(9) for f in (False, True)]
        crops = {p: padded[:, p[0] : p[0] + 12, p[1] : p[1] + 12] for p in places}
        found = [p for p, crop in crops.items() if torch.equal(crop.flip(-1) if p[2] else crop, after)]
        assert found
        seen.add(found[0][2])
    assert seen == ({True, False} if flip else {False})


def test_a_reflected_border_is_pytorchs_own():
    """AMC-Loss's released code: two pixels of reflected border, then a random crop, no flip."""
    images = torch.rand(40, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    batch = Batch(images, torch.zeros(40).long(), images[:, 0] > 0.5, torch.arange(40))
    moved = crop_and_flip(batch, torch.Generator().manual_seed(1), pad=2, flip=False, reflect=True)
    padded, places = torch.nn.functional.pad(images, (2,) * 4, mode="reflect"), set()
    for before, after in zip(padded, moved.images):
        crops = {(y, x): before[:, y : y + 6, x : x + 6] for y in range(5) for x in range(5)}
        places.add(next(place for place, crop in crops.items() if torch.equal(crop, after)))
    assert len(places) > 15 and torch.equal(moved.masks, moved.images[:, 0] > 0.5)


def test_the_plain_network_sums_its_decisions():
    method = Separate(small_cnn(3, seed=0))
    batch = Batch(torch.rand(2, 3, 32, 32), torch.tensor([[1.0, 0, 1], [0, 0, 1]]), None, torch.arange(2))
    (terms,) = method.losses(batch, Clock())
    mean = torch.nn.functional.binary_cross_entropy_with_logits(method.net(batch.images), batch.labels)
    torch.testing.assert_close(terms["total"], 3 * mean)


# --- figures ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def methods() -> dict:
    net = patch_net("small", 10, seed=0)
    return {"mean": MeanPooling(net), "gated": AttentionPooling(net, gated=True), "norm": LossAttention(net)}


def test_gradient_paths_add_up_to_the_gradient(methods):
    images, labels = torch.rand(2, 3, 32, 32), torch.tensor([1, 4])
    for name, method in methods.items():
        weights, logits, through = show.gradient_paths(method, images, labels)
        assert weights.shape == logits.shape == through.shape == (2, 36)
        assert (through.max() == 0) == (name == "mean")  # equal weights cannot move
        assert method.net is methods["mean"].net  # left as it was
    weights, logits, _ = show.gradient_paths(methods["mean"], images, labels)
    assert (logits.amax(1) - logits.amin(1)).max() < 1e-6  # mean-pooling: everybody gets the same gradient


def test_figures_are_drawn(methods):
    import matplotlib.pyplot as plt

    images, objects = torch.rand(2, 3, 32, 32), torch.tensor([[[4, 4, 20, 20]], [[10, 8, 30, 24]]])
    nets = {"small": methods["mean"].net, "VGG11": patch_net_on_meta()}
    figures = [
        show.cut_figure(torch.randn(9, 3, generator=torch.Generator().manual_seed(0)), 0.5),
        show.court_figure(3.0),
        show.bound_figure(),
        show.gradient_figure(methods, images[0], 3),
        show.selection_figure(methods, images, objects),
        show.selection_figure(methods, images, objects, level=1.0),
        show.contribution_figure(methods["norm"], images[0], "0123456789"),
        show.field_figure(nets, images[0]),
    ]
    assert all(isinstance(f, plt.Figure) for f in figures) and not plt.get_fignums()
    titles = [axis.get_title() for axis in figures[6].axes]
    logits = methods["norm"].logits(images[:1])[0].topk(2).values
    difference = float(titles[4].removeprefix("difference: "))
    assert difference == pytest.approx(float((logits[0] - logits[1]).detach()), abs=0.006)  # exact, up to two digits


def patch_net_on_meta():
    with torch.device("meta"):
        return patch_net("vgg11", 10)


def test_sweeps_are_drawn_from_records():
    from xai_course.runs.records import Metric

    class Made:
        def __init__(self, value):
            self.metrics = {"f": Metric((value, value + 0.1)), "f_all": Metric((0.3,))}

    figure = show.sweep_figure({0.0: Made(0.1), 0.1: Made(0.2)}, {"f": "patch F"}, "γ", ["f_all"])
    assert figure.axes[0].get_title() == "patch F"
