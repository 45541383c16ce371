"""AMC-Loss: pairs, ramps and the method of Algorithm 1."""

from itertools import permutations

import pytest
import torch
from torch import nn

from xai_course import preset as ramps
from xai_course.data.batch import Batch
from xai_course.maps import class_activation_map, grad_cam
from xai_course.methods import amc, pairs
from xai_course.methods.base import CrossEntropy
from xai_course.nets.convnets import GapClassifier, small_cnn
from xai_course.preset import Clock

TIGHT = 1e-12
PAIRINGS = ("halves", "all", 1, 3)


def gradient(loss, features):
    return torch.autograd.grad(loss, features)[0]


# --- pairs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", [amc.angular_margin_contrastive, amc.euclidean_contrastive])
def test_reductions(loss):
    """Check 10: the printed sum over |B| is exactly half the mean over pairs (discrepancy D2)."""
    x = torch.randn(10, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = torch.arange(10) % 3
    y[5:] = torch.tensor([0, 1, 0, 0, 1])
    each = loss(x, y, reduction="none")
    assert torch.equal(loss(x, y), each.sum() / 5) and each.sum() > 0
    assert torch.equal(loss(x, y, reduction="sum"), each.sum())
    assert loss(x, y) / loss(x, y, reduction="batch") == 2


@pytest.mark.parametrize("n", [7, 8])
@pytest.mark.parametrize("pairing", PAIRINGS)
def test_batch_reduction_divides_by_the_batch(n, pairing):
    x, y = torch.randn(n, 4, generator=torch.Generator().manual_seed(0)).double(), torch.arange(n) % 2
    each, mean, batch = (
        amc.angular_margin_contrastive(x, y, pairing=pairing, reduction=r) for r in ("none", "mean", "batch")
    )
    assert batch.item() == pytest.approx(each.sum().item() / n) and mean.item() == pytest.approx(each.mean().item())


CRITERIA = {
    amc.AmcLoss: (amc.AngularMarginContrastive, amc.angular_margin_contrastive, {"margin": 0.7, "form": "arccos"}),
    amc.EuclideanContrastive: (
        amc.EuclideanMarginContrastive,
        amc.euclidean_contrastive,
        {"margin": 0.7, "normalised": True},
    ),
}


@pytest.mark.parametrize("method", CRITERIA)
@pytest.mark.parametrize("pairing", PAIRINGS)
def test_criterion_function_and_method_give_the_same_bits(method, pairing):
    criterion, function, options = CRITERIA[method]
    options = options | {"pairing": pairing}
    batch = Batch(torch.rand(9, 3, 32, 32), torch.arange(9) % 4, None, torch.arange(9))
    trained = method(small_cnn(4, width=4, seed=0), pair_labels="true", **options).eval()
    (terms,) = trained.losses(batch, Clock())
    features = trained.net.embed(batch.images)
    for reduction in ("mean", "sum", "none", "batch"):
        made = criterion(**options, reduction=reduction)(features, batch.labels)
        assert torch.equal(made, function(features, batch.labels, **options, reduction=reduction))
    assert torch.equal(terms[method.name], criterion(**options)(features, batch.labels)) and terms[method.name] > 0


def test_half_batch_pairs_are_unbiased():
    """Check 11: the average over all 720 orders of six samples is the mean over all fifteen pairs."""
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(6, 3, generator=generator, dtype=torch.float64)
    y = torch.tensor([0, 1, 2, 0, 1, 0])
    loss = amc.AngularMarginContrastive(margin=1.5)
    mean = torch.stack([loss(x[list(o)], y[list(o)]) for o in permutations(range(6))]).mean()
    assert abs(mean - amc.angular_margin_contrastive(x, y, margin=1.5, pairing="all", clip=0)) < TIGHT


@pytest.mark.parametrize("n", [3, 5, 7])
def test_enough_rotations_are_all_pairs(n):
    x, y = torch.randn(n, 3, dtype=torch.float64), torch.arange(n) % 2
    rotated = amc.angular_margin_contrastive(x, y, pairing=(n - 1) // 2)
    assert abs(rotated - amc.angular_margin_contrastive(x, y, pairing="all", clip=0)) < TIGHT
    assert len(pairs.pair_up(x, 99)[0]) == n * (n - 1) // 2, "more rotations are cut, not repeated"


def test_pair_labels_carry_no_gradient():
    """Check 12."""
    logits = torch.randn(6, 3, requires_grad=True)
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    predicted = pairs.pair_classes(logits, labels)
    assert not predicted.requires_grad
    assert not amc.angular_margin_contrastive(torch.randn(6, 4), predicted).requires_grad
    right = nn.functional.one_hot(labels).float() * 9
    assert torch.equal(pairs.pair_classes(right, labels, "pred"), pairs.pair_classes(right, labels, "true"))
    assert torch.equal(pairs.pair_classes(logits, labels, "true"), labels)
    assert pairs.pair_classes(torch.tensor([[-5.0, 1.0]]), torch.tensor([0])).item() == 1  # the largest, with its sign


@pytest.mark.parametrize("loss", [amc.angular_margin_contrastive, amc.euclidean_contrastive])
@pytest.mark.parametrize("pairing", PAIRINGS)
def test_odd_and_tiny_batches(loss, pairing):
    """Check 17: seven rows give three half-batch pairs; one row, or none, gives 0 with a gradient of 0."""
    assert len(loss(torch.randn(7, 4), torch.zeros(7, dtype=torch.int64), reduction="none")) == 3
    for n in (0, 1):
        x = torch.randn(n, 4, requires_grad=True)
        value = loss(x, torch.zeros(n, dtype=torch.int64), pairing=pairing)
        assert value == 0 and (gradient(value, x) == 0).all()


def test_one_class_is_a_plain_pull():
    x = torch.randn(8, 4)
    z, _ = amc.unit_rows(x)
    y = torch.zeros(8, dtype=torch.int64)
    assert torch.allclose(amc.angular_margin_contrastive(x, y), amc.angle(z[:4], z[4:]).square().mean())


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: amc.angular_margin_contrastive(torch.randn(4), torch.zeros(4).long()), "features"),
        (lambda: amc.angular_margin_contrastive(torch.randn(4, 2), torch.zeros(5).long()), "classes"),
        (lambda: amc.angular_margin_contrastive(torch.randn(4, 2), torch.zeros(4)), "classes"),
        (lambda: amc.angular_margin_contrastive(torch.full((4, 2), torch.nan), torch.zeros(4).long()), "NaN"),
        (lambda: amc.angular_margin_contrastive(torch.tensor([[torch.inf, 1.0]] * 4), torch.arange(4)), "finite"),
        (lambda: amc.euclidean_contrastive(torch.full((4, 2), torch.nan), torch.arange(4)), "NaN"),
        (lambda: amc.angular_margin_contrastive(torch.randn(4, 2), torch.zeros(4).long(), margin=0), "margin"),
        (lambda: amc.angular_margin_contrastive(torch.randn(4, 2), torch.zeros(4).long(), margin=28.6), "radians"),
        (lambda: amc.angular_margin_contrastive(torch.randn(4, 2), torch.zeros(4).long(), pairing="hard"), "pairing"),
        (
            lambda: amc.angular_margin_contrastive(torch.randn(4, 2), torch.zeros(4).long(), reduction="pairs"),
            "reduction",
        ),
        (lambda: amc.angular_margin_contrastive(torch.randn(4, 2), torch.zeros(4).long(), form="cos"), "form"),
        (lambda: amc.euclidean_contrastive(torch.randn(4, 2), torch.zeros(4).long(), margin=-1), "margin"),
        (lambda: amc.amc_pair_loss(torch.randn(4, 2), torch.randn(3, 2), torch.ones(4).bool()), "u and v"),
        (
            lambda: pairs.contrastive(torch.rand(4), torch.ones(4, 1).bool(), 0.5),
            r"same must be \(4,\) bool, got \(4, 1\)",
        ),
        (lambda: pairs.contrastive(torch.rand(4), torch.ones(4), 0.5), "float32"),
        (lambda: amc.amc_pair_loss(*torch.randn(2, 4, 2), torch.ones(4, 1).bool()), "same must be"),
        (lambda: amc.euclidean_pair_loss(torch.randn(4, 2), torch.randn(1, 2), torch.ones(4).bool()), "xa and xb"),
        (lambda: amc.AmcLoss(small_cnn(), balance=float("nan")), "balance"),
        (lambda: pairs.pair_classes(torch.randn(4, 3), torch.tensor([0, 1, 2, 3])), r"\[0, 3\)"),
        (lambda: pairs.pair_classes(torch.randn(4, 3), torch.tensor([0, -1, 2, 2])), "-1"),
        (lambda: pairs.pair_classes(torch.randn(4, 3), torch.rand(4, 3)), "labels"),
        (lambda: pairs.pair_classes(torch.randn(4, 3), torch.zeros(4).long(), "guess"), "source"),
        (lambda: amc.AmcLoss(small_cnn(), pair_labels="guess"), "pair_labels"),
        (lambda: amc.AmcLoss(small_cnn(), w_max=-1), "w_max"),
        (lambda: amc.AmcLoss(small_cnn(), margin=30), "margin"),
        (lambda: amc.AmcLoss(small_cnn(), reduction="none"), "reduction"),
        (lambda: amc.AmcLoss(nn.Flatten()), r"embed.*adapters.gap_classifier\(net\)"),
        (lambda: amc.AngularMarginContrastive(margin=30), "radians"),
        (lambda: amc.AngularMarginContrastive(form="cos"), "form"),
        (lambda: amc.EuclideanMarginContrastive(pairing=0), "pairing"),
        (lambda: amc.EuclideanMarginContrastive(reduction="pairs"), "reduction must be one of mean, sum, none"),
        (lambda: amc.angular_margin_contrastive(torch.full((1, 2), torch.nan), torch.zeros(1).long()), "finite"),
        (lambda: ramps.gaussian_ramp_up(-1), "epoch"),
        (lambda: ramps.gaussian_ramp_down(11, 10, 2), "epochs"),
    ],
)
def test_bad_input_is_named(call, named):
    with pytest.raises(ValueError, match=named):
        call()


# --- ramps, networks, methods ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("t", "w"), [(0, 0.006738), (20, 0.060055), (40, 0.286505), (60, 0.731616), (80, 1), (299, 1)])
def test_ramp_up_table(t, w):
    """Check 13."""
    assert ramps.gaussian_ramp_up(t) == pytest.approx(w, abs=1e-6)


@pytest.mark.parametrize(("t", "r"), [(0, 1), (249, 1), (250, 1), (260, 0.606531), (275, 0.043937), (299, 6.114e-6)])
def test_ramp_down_table(t, r):
    """Check 13, with the official code's way of writing it."""
    from math import exp

    got = ramps.gaussian_ramp_down(t, 300, 50)
    assert got == pytest.approx(r, abs=1e-6)
    assert got == pytest.approx(exp(-(((max(t, 250) - 250) / 2) ** 2) / 50), abs=TIGHT)


def test_mean_learning_rate_and_beta_1():
    product = [ramps.gaussian_ramp_up(t) * ramps.gaussian_ramp_down(t) for t in range(300)]
    assert sum(product) / 300 == pytest.approx(0.714, abs=5e-4)
    assert ramps.adam_beta1(100) == 0.9
    assert ramps.adam_beta1(299) == pytest.approx(0.5, abs=1e-5)
    assert ramps.gaussian_ramp_up(0, 0) == ramps.gaussian_ramp_down(10, 10, 0) == 1


def test_grad_cam_is_cam_on_a_gap_network():
    """Check 18: 36 gradients of W / 36 each, so 36 times Grad-CAM is the class activation map, cut at 0."""
    torch.manual_seed(0)
    net = GapClassifier(nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.LeakyReLU(0.1)), nn.Linear(8, 10)).eval()
    images, classes = torch.rand(4, 3, 8, 8), torch.tensor([0, 3, 5, 9])
    maps, _ = grad_cam(net, images, classes, ["body.1"])
    cam = class_activation_map(net.features(images), net.head.weight, classes=classes.unsqueeze(1))[:, 0]
    assert torch.allclose(36 * maps[0], cam.relu(), atol=1e-6)


def test_method_follows_algorithm_1():
    """Lines 6 and 7: total = CE + w(t) lambda w_max mean, with the ramp in proportion to the run."""
    torch.manual_seed(0)
    net = small_cnn(width=4, seed=0)
    batch = Batch(torch.rand(9, 3, 32, 32), torch.arange(9) % 4, None, torch.arange(9))
    for build in (amc.AmcLoss, amc.EuclideanContrastive):
        method = build(net, w_max=100, pair_labels="true")
        (terms,) = method.losses(batch, Clock(epoch=4, epochs=30))
        assert method.weight(Clock(epoch=4, epochs=30)) == pytest.approx(10 * ramps.gaussian_ramp_up(40, 80))
        expected = terms["classification"] + method.weight(Clock(4, 0, 30)) * terms[method.name]
        assert torch.allclose(terms["total"], expected)
        assert terms["zero_features"] == 0
        terms["total"].backward()
    assert amc.AmcLoss(net).weight(Clock(80, 0, 300)) == pytest.approx(0.1), "the paper's weight is nearly inert"
    late = amc.AmcLoss(net, start_epoch=1)
    assert late.weight(Clock(0, 0, 300)) == 0, "the official code's epoch 0"
    assert late.weight(Clock(1, 0, 300)) == amc.AmcLoss(net).weight(Clock(1, 0, 300)) > 0
    assert [m(net).pair_loss.options["margin"] for m in (amc.AmcLoss, amc.EuclideanContrastive)] == [0.5, 1.0]


class Given(nn.Module):
    """Features are the images themselves."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 2)

    def embed(self, images):
        return images.flatten(1)


def test_features_without_direction_are_counted_by_row():
    images = torch.zeros(4, 3, 1, 1)
    images[1:, 0] = 1.0  # one dead row, two dead columns
    batch = Batch(images, torch.tensor([0, 1, 0, 1]), None, torch.arange(4))
    (terms,) = amc.AmcLoss(Given()).losses(batch, Clock())
    assert terms["zero_features"] == 1


def test_balance_zero_is_cross_entropy():
    """The control of the chapter: same gradients as the baseline, to the last bit."""
    batch = Batch(torch.rand(8, 3, 32, 32), torch.arange(8) % 4, None, torch.arange(8))
    grads = []
    for build in (CrossEntropy, lambda net: amc.AmcLoss(net, balance=0)):
        net = small_cnn(width=4, seed=1)
        (terms,) = build(net).losses(batch, Clock())
        terms["total"].backward()
        grads.append([p.grad.clone() for p in net.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*grads))


def test_method_refuses_an_empty_batch():
    empty = Batch(torch.rand(0, 3, 32, 32), torch.zeros(0).long(), None, torch.zeros(0).long())
    with pytest.raises(ValueError, match="at least one image"):
        next(amc.AmcLoss(small_cnn(width=4)).losses(empty, Clock()))
