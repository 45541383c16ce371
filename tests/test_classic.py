"""Comparison losses against their formulas, a loop, or the library they come from."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from xai_course.data.batch import Batch
from xai_course.maps import class_activation_map
from xai_course.methods import centers, consistency
from xai_course.methods import classic as C
from xai_course.methods.base import CrossEntropy, classification_loss
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
    at, x, y = (
        torch.zeros(3, 2, dtype=D),
        torch.tensor([[2.0, 0], [4, 0], [0, 6]], dtype=D),
        torch.tensor([0, 0, 1]),
    )
    assert centers.center_loss(x, y, at).item() == pytest.approx((4 + 16 + 36) / 6)
    centers.move_centers(at, x, y, rate=0.5)
    assert at.tolist() == [[0.5 * 6 / 3, 0], [0, 0.5 * 6 / 2], [0, 0]]


def test_centers_move_in_train_mode_after_the_loss_and_rest_in_eval_mode():
    criterion, x, y = centers.CenterLoss(3, 2), torch.tensor([[2.0, 0], [0, 6]]), torch.tensor([0, 1])
    assert criterion(x, y) == (4 + 36) / 4  # from where they were
    moved = criterion.centers.clone()
    assert moved.tolist() == [[0.5, 0], [0, 1.5], [0, 0]]
    assert criterion.eval()(x, y) == (1.5**2 + 4.5**2) / 4 and torch.equal(criterion.centers, moved)
    fresh = centers.CenterLoss(3, 2)
    fresh.load_state_dict(criterion.state_dict())
    assert torch.equal(fresh.centers, moved)


def test_gaussian_logits_are_squared_distances():
    g = torch.Generator().manual_seed(0)
    x, means = torch.randn(4, 3, dtype=D, generator=g), torch.randn(5, 3, dtype=D, generator=g)
    torch.testing.assert_close(centers.gaussian_logits(x, means), -0.5 * torch.cdist(x, means).square())
    assert torch.autograd.gradgradcheck(centers.gaussian_logits, (x.requires_grad_(), means.requires_grad_()))


@pytest.mark.parametrize("half", [False, True])
def test_gaussian_logits_are_distances_under_autocast_and_far_from_the_origin(half):
    """The expanded product gives positive logits under bf16 autocast, and -8 for -0.003 at a length of 1000."""
    g = torch.Generator().manual_seed(0)
    means = 1000 + torch.randn(100, 8, generator=g)
    x = means[:64] + 0.03 * torch.randn(64, 8, generator=g)
    exact = -0.5 * (x.to(D)[:, None] - means.to(D)).square().sum(2)
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        logits = centers.gaussian_logits(x, means)
    assert logits.dtype == torch.float32 and (logits <= 0).all()
    torch.testing.assert_close(logits.to(D), exact, rtol=1e-5, atol=0)
    assert exact.max() > -0.01


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


# --- criteria ---------------------------------------------------------------------------------------------------------

FUNCTIONS = {  # criterion: (function, options)
    C.FocalLoss: (C.focal_loss, {"gamma": 0.5, "weight": torch.tensor([1.0, 2, 3, 0.5, 1])}),
    C.SigmoidFocalLoss: (C.sigmoid_focal_loss, {"gamma": 1.5, "weight": torch.tensor([1.0, 2, 3, 0.5, 1])}),
    C.AnchorLoss: (C.anchor_loss, {"gamma": 0.7, "slack": 0.1}),
    C.NegativeEntropy: (lambda logits, labels, reduction="mean": C.negative_entropy(logits, reduction), {}),
    centers.CenterLoss: (
        lambda x, labels, reduction="mean", **_: centers.center_loss(x, labels, torch.zeros(5, 5), reduction),
        {"classes": 5, "size": 5},
    ),
}


def called(criterion, scores, labels):
    return criterion(scores) if isinstance(criterion, C.NegativeEntropy) else criterion(scores, labels)


@pytest.mark.parametrize("kind", FUNCTIONS)
def test_a_criterion_is_its_function_and_reduces_over_images(kind):
    function, options = FUNCTIONS[kind]
    z, y = scores()
    z = z.float()
    each = torch.stack([function(z[i : i + 1], y[i : i + 1], **options) for i in range(6)])
    for reduction, expected in (("none", each), ("sum", each.sum()), ("mean", each.mean())):
        criterion = kind(**options, reduction=reduction).eval()
        assert torch.equal(called(criterion, z, y), function(z, y, **options, reduction=reduction))
        torch.testing.assert_close(called(criterion, z, y), expected)
    assert torch.equal(called(kind(**options).eval(), z, y), function(z, y, **options))
    with pytest.raises(ValueError, match="reduction must be one of mean, sum, none, got 'max'"):
        called(kind(**options, reduction="max"), z, y)


@pytest.mark.parametrize("kind", FUNCTIONS)
def test_criteria_are_finite_for_half_precision_and_for_no_images(kind):
    options = FUNCTIONS[kind][1]
    z, y = scores()
    half = called(kind(**options).eval(), 100 * z.half(), y)  # 300 squared overflows float16
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, called(kind(**options).eval(), (100 * z.half()).float(), y))
    empty = z[:0].float().requires_grad_()
    nothing = called(kind(**options), empty, y[:0])
    nothing.backward()
    assert nothing == 0 and empty.grad.shape == (0, 5)


@pytest.mark.parametrize("kind", [k for k in FUNCTIONS if k is not C.NegativeEntropy])
@pytest.mark.parametrize("label", [-1, 5])
def test_labels_out_of_range_are_refused(kind, label):
    with pytest.raises(ValueError, match=rf"labels must lie in \[0, 5\), got {min(label, 0)} to {max(label, 0)}"):
        kind(**FUNCTIONS[kind][1])(torch.zeros(2, 5), torch.tensor([0, label]))


def test_class_weights_follow_the_method_to_its_device():
    """A weight inside a partial stays on the CPU, where ``weight[labels]`` of an accelerator's labels crashes."""
    weight = C.class_balanced_weights(torch.tensor([10, 20, 30, 40]))
    method = C.LogitLoss(net(), C.FocalLoss(weight=weight)).to("meta")
    assert {tensor.device.type for tensor in (*method.parameters(), *method.buffers())} == {"meta"}
    assert method.loss.weight.is_meta and "loss.weight" not in method.state_dict()


def test_torchvisions_sigmoid_focal_loss_loses_its_gradient_where_ours_keeps_it():
    from torchvision.ops import sigmoid_focal_loss

    logits = torch.tensor([[20.0, -20.0], [0.0, 0.0]], requires_grad=True)
    theirs = sigmoid_focal_loss(logits, torch.tensor([[1.0, 0.0]] * 2), alpha=-1, gamma=0.5).sum(1).mean()
    ours = C.SigmoidFocalLoss(0.5)(logits, torch.tensor([0, 0]))
    torch.testing.assert_close(ours, theirs)
    assert torch.autograd.grad(theirs, logits)[0].isnan().any()
    assert torch.autograd.grad(ours, logits)[0].isfinite().all()


def test_large_margin_gaussian_criterion_is_what_its_method_trains_with():
    batch, method = batch_of(), C.LargeMarginGaussian(net(), margin=0.3, balance=0.5).eval()
    terms = next(method.losses(batch, Clock()))
    x, means = method.net.embed(batch.images), method.net.head.weight
    assert torch.equal(centers.LargeMarginGaussianLoss(0.3, 0.5)(x, means, batch.labels), terms["total"])
    each = centers.LargeMarginGaussianLoss(0.3, 0.5, reduction="none")(x, means, batch.labels)
    torch.testing.assert_close(each.mean(), terms["total"])
    d = 0.5 * torch.cdist(x, means).square()
    own = d.gather(1, batch.labels[:, None])[:, 0]
    others = torch.where(torch.nn.functional.one_hot(batch.labels, 4) > 0, torch.inf, d)
    expected = torch.cat([-others, -1.3 * own[:, None]], 1).logsumexp(1) + 1.3 * own + 0.5 * own
    torch.testing.assert_close(each, expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=r"labels must lie in \[0, 4\)"):
        centers.LargeMarginGaussianLoss()(x, means, batch.labels - 4)


@pytest.mark.parametrize("shape", [(3, 4, 2, 5), (3, 2, 5)])
def test_attention_consistency_of_each_image(shape):
    g = torch.Generator().manual_seed(0)
    plain, flipped = torch.randn(shape, generator=g), torch.randn(shape, generator=g)
    each = torch.stack([F.mse_loss(b, a.flip(-1)) for a, b in zip(plain, flipped)])
    for reduction, expected in (("none", each), ("sum", each.sum()), ("mean", each.mean())):
        torch.testing.assert_close(consistency.AttentionConsistencyLoss(reduction)(plain, flipped), expected)
    assert consistency.attention_consistency(plain, plain.flip(-1)) == 0
    for wrong in ((plain[:0], plain[:0]), (plain[:, :1], plain), (plain[..., 0, 0], plain[..., 0, 0])):
        with pytest.raises(ValueError, match="maps and flipped_maps must both be"):
            consistency.attention_consistency(*wrong)


def test_classification_loss_refuses_what_has_no_mean_or_no_smoothing():
    with pytest.raises(ValueError, match=r"at least one image, got \(0, 4\)"):
        classification_loss(torch.zeros(0, 4), torch.zeros(0).long())
    with pytest.raises(ValueError, match="label_smoothing must be 0 for labels"):
        classification_loss(torch.zeros(2, 4), torch.zeros(2, 4), 0.1)


# --- methods ----------------------------------------------------------------------------------------------------------

METHODS = {
    "focal": lambda n: C.LogitLoss(n, C.focal_loss),
    "cb_focal": lambda n: C.LogitLoss(n, C.FocalLoss(weight=C.class_balanced_weights(torch.full((4,), 9)))),
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
    terms = next(C.AttentionConsistency(net(), balance=0.5, consistency=2.0).losses(batch, Clock()))
    expected = terms["classification"] + 0.5 * terms["hnc"] + 2 * terms["consistency"]
    torch.testing.assert_close(terms["total"], expected)


def test_center_pulls_the_features_to_where_the_centres_were():
    batch, method = batch_of(), C.Center(net(), balance=0.5)
    at = method.spread.centers.normal_(generator=torch.Generator().manual_seed(0)).clone()
    terms, after = next(method.losses(batch, Clock())), method.spread.centers.clone()
    torch.testing.assert_close(terms["total"], terms["classification"] + 0.5 * terms["center"])
    weight = method.net.body[0][0].weight
    (found,) = torch.autograd.grad(terms["center"], weight)
    x = method.net.embed(batch.images)
    (expected,) = torch.autograd.grad(centers.center_loss(x, batch.labels, at), weight)
    torch.testing.assert_close(found, expected)
    assert found.abs().sum() > 0
    centers.move_centers(at, x.detach(), batch.labels)
    torch.testing.assert_close(after, at)


def test_consistency_term_leaves_the_head_alone():
    method = C.AttentionConsistency(net(), balance=0.0).eval()
    next(method.losses(batch_of(), Clock()))["consistency"].backward()
    assert method.net.head.weight.grad is None
    assert method.net.body[0][0].weight.grad.abs().sum() > 0


def test_no_confidence_penalty_is_cross_entropy():
    batch = batch_of()
    a, b = (next(m.losses(batch, Clock()))["total"] for m in (C.ConfidencePenalty(net(), 0.0), CrossEntropy(net())))
    assert a == b
    terms = next(C.ConfidencePenalty(net(), 0.5).losses(batch, Clock()))
    torch.testing.assert_close(terms["total"], terms["classification"] + 0.5 * terms["negative_entropy"])


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
