"""What the quizzes of the chapters call right, computed: with the library where it has the quantity."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from xai_course.maps import class_activation_map, grad_cam
from xai_course.methods.amc import amc_pair_loss, unit_rows
from xai_course.methods.erasing import sample_trust
from xai_course.methods.guidance import Energy, RelevantFocus
from xai_course.nets.convnets import small_cnn


def gradient(value: Tensor, of: Tensor) -> Tensor:
    return torch.autograd.grad(value, of, allow_unused=True, retain_graph=True)[0]


def double(seed: int = 0, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_looking_what_leaves_the_probabilities_and_changes_the_map():
    features, weight, bias = double(1, 2, 5, 4, 4), double(2, 3, 5), double(3, 3)
    classes = torch.tensor([[0], [2]])

    def seen(f: Tensor, w: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        return (f.mean((2, 3)) @ w.T + b).softmax(1), class_activation_map(f, w, classes=classes)

    probabilities, maps = seen(features, weight, bias)
    changes = {
        "same vector": (features, weight + double(4, 5), bias),
        "doubled": (features, 2 * weight, 2 * bias),
        "shifted": (features.roll(1, 3), weight, bias),
        "same number": (features, weight, bias + 1.7),
    }
    kept = {
        name: [torch.allclose(a, b) for a, b in zip(seen(*c), (probabilities, maps))] for name, c in changes.items()
    }
    assert kept == {
        "same vector": [True, False], "doubled": [False, False], "shifted": [True, False], "same number": [True, True],
    }  # fmt: skip


def test_looking_a_map_in_training_mode_depends_on_the_whole_batch():
    torch.manual_seed(0)
    pool = [nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), *pool, nn.Linear(4, 5)).double()
    images, classes = double(5, 4, 3, 6, 6), torch.tensor([0, 1, 2, 3])
    others = images.clone()
    others[0] *= 2  # an image of another class than image 3

    def third(batch: Tensor) -> Tensor:
        return grad_cam(net, batch, classes, ["0"], relu=False).maps[0][3]

    assert not torch.allclose(third(images), third(others))


def test_amc_duplicates_with_different_labels_are_a_dead_point():
    features = double(6, 1, 8).repeat(2, 1).requires_grad_()
    z, _ = unit_rows(features)
    loss = amc_pair_loss(z[:1], z[1:], torch.tensor([False]), 0.5).sum()
    assert loss.item() == pytest.approx(0.25) and gradient(loss, features).abs().max() == 0


def test_hnc_which_terms_move_the_logit_and_where_the_floor_is():
    maps = double(7, 7, 7).requires_grad_()
    logit = maps.mean()
    total = {
        "ce": gradient(torch.stack([logit, logit * 0]).softmax(0)[1].log(), maps).sum().abs(),
        "mse": gradient(maps.square().mean(), maps).sum().abs(),
        "kd": gradient(maps.logsumexp((0, 1)) - logit, maps).sum().abs(),
        "variance": gradient(maps.var(unbiased=False), maps).sum().abs(),
    }
    assert [name for name, change in total.items() if change > 1e-9] == ["ce", "mse"]
    floor = 100 * math.log(49)
    assert [round(v, 1) for v in (floor, 400 - floor, 391 - floor)] == [389.2, 10.8, 1.8]


def test_loss_attention_evidence_cut_patch_and_guarantee():
    p = torch.tensor([[6.0, 8], [-3, 4]])
    share = p.norm(dim=1) / p.norm(dim=1).sum()
    assert (share * (p[:, 1] - p[:, 0])).tolist() == pytest.approx([4 / 3, 7 / 3])
    three = torch.tensor([[3.0, 4], [0, 4], [1, 0]], requires_grad=True)  # the worked example, xi = 0.6
    before = three.norm(dim=1) / three.norm(dim=1).sum()
    left = (before - 0.2).clamp(min=0)
    loss = -((left / left.sum()) @ three).log_softmax(0)[1]
    first, second, cut = gradient(loss, three).norm(dim=1)
    assert left[2] == 0 and 0 < cut < 0.1 * min(first, second)
    assert round(0.07 / math.log(2), 2) == 0.10


def test_minmax_floor_and_refused_step():
    assert round(math.log(5), 2) == 1.61
    erased, yes = torch.tensor([[0.80, 0.20]]).log(), torch.ones(1, dtype=torch.bool)
    label, whole_image = torch.zeros(1, dtype=torch.int64), torch.tensor([0.90])
    gamma, alive = sample_trust(erased, label, whole_image, yes)
    assert gamma.item() == 0 and not alive.item()  # less sure than on the whole image, though still right


def test_reff_scale_and_the_detached_gradient():
    net = small_cnn(seed=0).double().eval()
    images, labels = double(8, 4, 3, 32, 32), torch.tensor([0, 1, 2, 3])
    masks = (double(9, 4, 32, 32) > 0).double()
    layer = ["body.4"]

    def penalty(create_graph: bool) -> Tensor:
        maps = grad_cam(net, images, labels, layer, create_graph=True).maps[0]
        if not create_graph:  # what retain_graph=True leaves: the channel weights as constants
            with torch.no_grad():
                alpha = net.head.weight[labels]
            maps = (net.features(images) * alpha[:, :, None, None]).sum(1).relu()
        return RelevantFocus()(maps, masks)

    whole, constant = penalty(True), penalty(False)
    assert whole.item() == pytest.approx(constant.item())  # the value does not give the mistake away
    assert gradient(whole, net.head.weight).abs().max() > 0 and gradient(constant, net.head.weight) is None
    with torch.no_grad():
        net.head.weight *= 10
    assert penalty(True).item() == pytest.approx(whole.item())  # ten times the logits, the same penalty


@pytest.mark.parametrize(("cells", "factor"), [(40, 25), (2, 1.25)])
def test_reff_linear_against_squared_pull(cells, factor):
    moved = torch.zeros((), dtype=torch.float64, requires_grad=True)  # share of the outside part that goes inside
    inside = (0.2 + 0.8 * moved).expand(1, 1, 1)
    maps = torch.cat([inside, (0.8 / cells * (1 - moved)).expand(1, 1, cells)], dim=2)
    relevant = (torch.arange(cells + 1) == 0).double()[None, None]
    linear, squared = (gradient(f(maps, relevant), moved) for f in (Energy(), RelevantFocus()))
    assert (linear / squared).item() == pytest.approx(factor)


def test_bench_tables_of_nothing_and_paired_errors():
    assert round(1 - 0.95**20, 2) == 0.64
    errors = (2 * 0.1**2 * (1 - 0.96) / 5, 0.1**2 / 5, 2 * 0.1**2 / 5)
    assert [round(math.sqrt(v), 3) for v in errors] == [0.013, 0.045, 0.063]
