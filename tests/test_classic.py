"""Comparison losses against their formulas, a loop, or the library they come from."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from xai_course.data.batch import Batch
from xai_course.maps import class_activation_map
from xai_course.methods import classic as C
from xai_course.methods.base import CrossEntropy
from xai_course.methods.hnc import HNC
from xai_course.nets.convnets import small_cnn
from xai_course.preset import Clock

D = torch.float64


def scores(seed: int = 0, batch: int = 6, n: int = 5):
    g = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(batch, n, dtype=D, generator=g), torch.randint(n, (batch,), generator=g)


def net(classes: int = 4):
    return small_cnn(classes, channels=1, width=2, seed=0)


def batch_of(n: int = 4, classes: int = 4, multi: bool = False) -> Batch:
    g = torch.Generator().manual_seed(0)
    labels = (torch.rand(n, classes, generator=g) > 0.5).float() if multi else torch.randint(classes, (n,), generator=g)
    return Batch(torch.rand(n, 1, 8, 8, generator=g), labels, None, torch.arange(n))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_is_its_formula(gamma):
    logits, labels = scores()
    p = logits.softmax(1)[torch.arange(6), labels]
    torch.testing.assert_close(C.focal_loss(logits, labels, gamma), ((1 - p) ** gamma * -p.log()).mean())


def test_focal_at_zero_is_cross_entropy_but_torchvisions_is_not():
    from torchvision.ops import sigmoid_focal_loss

    logits, labels = scores()
    ce = F.cross_entropy(logits, labels)
    torch.testing.assert_close(C.focal_loss(logits, labels, 0.0), ce)
    binary = sigmoid_focal_loss(logits, F.one_hot(labels, 5).to(D), alpha=-1, gamma=0).sum(1).mean()
    assert abs(binary - ce) > 0.1
    for gamma in (0.0, 0.5, 2.0):  # our sigmoid form is torchvision's
        theirs = sigmoid_focal_loss(logits, F.one_hot(labels, 5).to(D), alpha=-1, gamma=gamma).sum(1).mean()
        torch.testing.assert_close(C.sigmoid_focal_loss(logits, labels, gamma), theirs)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_gradient_is_finite_at_certainty(gamma):
    logits = torch.tensor([[100.0, -100.0], [-100.0, 100.0]], requires_grad=True)
    C.focal_loss(logits, torch.tensor([0, 0]), gamma).backward()
    assert torch.isfinite(logits.grad).all()


def test_class_balanced_weights():
    torch.testing.assert_close(C.class_balanced_weights(torch.full((100,), 500)), torch.ones(100))
    weight = C.class_balanced_weights(torch.tensor([10, 1000]), 0.99)
    assert weight.sum() == pytest.approx(2) and weight[0] / weight[1] == pytest.approx(
        (1 - 0.99**1000) / (1 - 0.99**10)
    )
    logits, labels = scores()
    ones = C.class_balanced_weights(torch.full((5,), 7)).to(D)
    torch.testing.assert_close(C.focal_loss(logits, labels, 2.0, ones), C.focal_loss(logits, labels, 2.0))


def test_anchor_loss_is_its_loop():
    logits, labels = scores(1)
    total = 0.0
    for row, y in zip(logits, labels.tolist()):
        q = [1 / (1 + math.exp(-s)) for s in row.tolist()]
        anchor = max(q[y] - 0.05, 0)
        total -= math.log(q[y])
        total -= sum((1 + q[o] - anchor) ** 0.5 * math.log(1 - q[o]) for o in range(5) if o != y)
    assert C.anchor_loss(logits, labels).item() == pytest.approx(total / 6)
    plain = F.binary_cross_entropy_with_logits(logits, F.one_hot(labels, 5).to(D), reduction="none").sum(1).mean()
    torch.testing.assert_close(C.anchor_loss(logits, labels, gamma=0.0), plain)


def test_the_anchor_carries_no_gradient():
    logits, labels = scores(1)
    logits.requires_grad_()
    (found,) = torch.autograd.grad(C.anchor_loss(logits, labels), logits)
    own = logits.detach().sigmoid().gather(1, labels[:, None])
    torch.testing.assert_close(found.gather(1, labels[:, None]), (own - 1) / 6)  # that of -log q_y alone


def test_anchor_loss_warms_up_with_cross_entropy():
    method, batch = C.LogitLoss(net(), C.anchor_loss, warm_up=5), batch_of()
    method.eval()
    early, late = (next(method.losses(batch, Clock(epoch=e)))["total"] for e in (4, 5))
    torch.testing.assert_close(early, F.cross_entropy(method.net(batch.images), batch.labels))
    torch.testing.assert_close(late, C.anchor_loss(method.net(batch.images), batch.labels))


def test_negative_entropy_is_between_its_bounds():
    logits, _ = scores()
    expected = -torch.distributions.Categorical(logits=logits).entropy().mean()
    torch.testing.assert_close(C.negative_entropy(logits), expected)
    assert C.negative_entropy(torch.zeros(2, 5)).item() == pytest.approx(-math.log(5))
    assert C.negative_entropy(torch.tensor([[1e4, 0.0]])) == 0


def test_centers_move_as_printed():
    centers, x, y = (
        torch.zeros(3, 2, dtype=D),
        torch.tensor([[2.0, 0], [4, 0], [0, 6]], dtype=D),
        torch.tensor([0, 0, 1]),
    )
    assert C.center_loss(x, y, centers).item() == pytest.approx((4 + 16 + 36) / 6)
    C.move_centers(centers, x, y, rate=0.5)
    assert centers.tolist() == [[0.5 * 6 / 3, 0], [0, 0.5 * 6 / 2], [0, 0]]


def test_gaussian_logits_are_squared_distances():
    g = torch.Generator().manual_seed(0)
    x, means = torch.randn(4, 3, dtype=D, generator=g), torch.randn(5, 3, dtype=D, generator=g)
    torch.testing.assert_close(C.gaussian_logits(x, means), -0.5 * torch.cdist(x, means).square())


def test_large_margin_gaussian_without_margin_is_cross_entropy_of_distances():
    batch = batch_of()
    plain, wide = (C.LargeMarginGaussian(net(), margin=m, balance=0.5).eval() for m in (0.0, 0.3))
    terms, margins = (next(m.losses(batch, Clock())) for m in (plain, wide))
    distances = -plain.logits(batch.images)
    torch.testing.assert_close(terms["classification"], F.cross_entropy(-distances, batch.labels))
    likelihood = distances[torch.arange(4), batch.labels].mean()
    torch.testing.assert_close(terms["total"], terms["classification"] + 0.5 * likelihood)
    assert margins["classification"] > terms["classification"]


@pytest.mark.parametrize("kind", C.ANGULAR)
def test_angular_margins_are_their_formulas(kind):
    pytest.importorskip("pytorch_metric_learning")
    method, batch = C.AngularMargin(net(), kind, **({} if kind == "a_softmax" else {"scale": 8})).eval(), batch_of()
    total = next(method.losses(batch, Clock()))["total"]
    x = method.net.embed(batch.images)
    cosine = F.normalize(x) @ F.normalize(method.margin_loss.W, dim=0)
    own, at = F.one_hot(batch.labels, 4).bool(), cosine.gather(1, batch.labels[:, None]).clamp(-1, 1).acos()
    if kind == "a_softmax":
        turns = (4 * at / math.pi).floor()
        changed, scale = (-1) ** turns * (4 * at).cos() - 2 * turns, x.norm(dim=1, keepdim=True)
    else:
        changed, scale = ((at + math.radians(28.6)).cos() if kind == "aam" else at.cos() - 0.35), 8
    expected = F.cross_entropy(scale * torch.where(own, changed, cosine), batch.labels)
    torch.testing.assert_close(total, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(method.logits(batch.images), scale * cosine, rtol=1e-4, atol=1e-5)
    maps = method.explain(batch.images, batch.labels)
    assert maps.shape == (4, 8, 8) and maps.min() >= 0 and maps.max() <= 1 + 1e-6


METHODS = {
    "focal": lambda n: C.LogitLoss(n, C.focal_loss),
    "cb_focal": lambda n: C.LogitLoss(n, partial(C.focal_loss, weight=C.class_balanced_weights(torch.full((4,), 9)))),
    "anchor": lambda n: C.LogitLoss(n, C.anchor_loss, warm_up=5),
    "confidence": C.ConfidencePenalty,
    "center": C.Center,
    "lgm": C.LargeMarginGaussian,
    "consistency": C.AttentionConsistency,
}


@pytest.mark.parametrize("name", METHODS)
def test_every_method_learns_a_batch(name):
    method, batch = METHODS[name](net()), batch_of(8)
    optimizer, curve = torch.optim.Adam([p for p in method.parameters() if p.requires_grad], 0.02), []
    for _ in range(15):
        optimizer.zero_grad()
        terms = next(method.losses(batch, Clock(epoch=9)))
        terms["total"].backward()
        optimizer.step()
        curve.append(terms["total"].item())
    assert curve[-1] < curve[0]
    assert method.eval().logits(batch.images).shape == (8, 4)
    assert method.explain(batch.images, batch.labels).shape == (8, 8, 8)


def test_consistency_alone_doubles_the_loss_of_a_symmetric_image():
    batch = batch_of(multi=True)
    batch = batch._replace(images=batch.images + batch.images.flip(-1))
    method = C.AttentionConsistency(net(), balance=0.0).eval()
    terms = next(method.losses(batch, Clock()))
    single = next(HNC(net(), balance=0.0).eval().losses(batch, Clock()))
    torch.testing.assert_close(terms["classification"], 2 * single["classification"])


def test_consistency_compares_with_the_mirrored_map():
    batch, method = batch_of(), C.AttentionConsistency(net(), balance=0.0).eval()
    head, features = method.net.head.weight.detach(), method.net.features
    plain, flipped = (class_activation_map(features(x), head) for x in (batch.images, batch.images.flip(-1)))
    expected = (flipped - plain.flip(-1)).square().mean()
    torch.testing.assert_close(next(method.losses(batch, Clock()))["consistency"], expected, rtol=1e-4, atol=0)
    assert (expected - (flipped - plain).square().mean()).abs() > 0.05 * expected


def test_center_pulls_the_features_to_where_the_centres_were():
    batch, method = batch_of(), C.Center(net(), balance=0.5).eval()
    method.centers.normal_(generator=torch.Generator().manual_seed(0))
    terms, before = next(method.losses(batch, Clock())), method.centers.clone()
    weight = method.net.body[0][0].weight
    (found,) = torch.autograd.grad(terms["center"], weight)
    method.centers.normal_(generator=torch.Generator().manual_seed(0))
    x = method.net.embed(batch.images)
    (expected,) = torch.autograd.grad(C.center_loss(x, batch.labels, method.centers), weight)
    torch.testing.assert_close(found, expected)
    assert found.abs().sum() > 0
    C.move_centers(method.centers, x.detach(), batch.labels)
    torch.testing.assert_close(before, method.centers)


def test_consistency_term_leaves_the_head_alone():
    method = C.AttentionConsistency(net(), balance=0.0).eval()
    next(method.losses(batch_of(), Clock()))["consistency"].backward()
    assert method.net.head.weight.grad is None
    assert method.net.body[0][0].weight.grad.abs().sum() > 0


def test_no_confidence_penalty_is_cross_entropy():
    batch = batch_of()
    a, b = (next(m.losses(batch, Clock()))["total"] for m in (C.ConfidencePenalty(net(), 0.0), CrossEntropy(net())))
    assert a == b


@pytest.mark.parametrize("call", [
    lambda: C.class_balanced_weights(torch.tensor([0, 3])),
    lambda: C.class_balanced_weights(torch.tensor([1, 3]), 1.0),
    lambda: C.ConfidencePenalty(net(), -1.0),
    lambda: C.AngularMargin(net(), "magface"),
    lambda: next(C.AttentionConsistency(net()).losses(batch_of(0), Clock())),
])  # fmt: skip
def test_bad_input(call):
    with pytest.raises(ValueError, match="must"):
        call()
