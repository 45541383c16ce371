"""Loss-based attention, equation by equation (Shi et al., IEEE TIP 30, 2021); C1-C17, C21 of the paper's audit."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from xai_course.data.batch import Batch
from xai_course.methods.loss_attention import (
    LossBasedAttention,
    attended_logits,
    capsule_attention,
    cut_off,
    image_loss,
    loss_attention,
    patch_lengths,
    patch_loss,
    patch_shares,
)
from xai_course.methods.patch_heads import LossAttention
from xai_course.nets.capsules import capsule_net
from xai_course.nets.patch_nets import patch_net
from xai_course.preset import Clock

CUTOFFS = (0.0, 0.1, 0.5, 0.9, 0.999)


def logits_of(*shape: int, seed: int = 0, scale: float = 1.0, dtype=torch.float64) -> torch.Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def by_hand(p: torch.Tensor, xi: float) -> list[float]:
    """Eqs. 5a and 5b for one image, read aloud: ``p [M, K]``."""
    lengths = [math.sqrt(sum(float(v) ** 2 for v in row)) for row in p]
    alpha = [length / sum(lengths) for length in lengths]
    cut = [max(a - xi / len(alpha), 0.0) for a in alpha]
    return [c / sum(cut) for c in cut]


# --- Eqs. 4, 5: weights ----------------------------------------------------------------------------------------------


def test_lengths_sum_to_the_l21_norm():
    p = logits_of(7, 5)
    assert float(patch_lengths(p).sum()) == pytest.approx(sum(math.hypot(*map(float, row)) for row in p), abs=1e-12)


@pytest.mark.parametrize("xi", CUTOFFS)
def test_weights_equal_the_loop(xi):
    p = logits_of(3, 6, 4)
    alpha, _ = loss_attention(p, xi)
    for one, expected in zip(alpha, (by_hand(image, xi) for image in p)):
        torch.testing.assert_close(one, torch.tensor(expected, dtype=torch.float64), atol=1e-14, rtol=0)


@pytest.mark.parametrize("patches", [1, 2, 36, 196])
@pytest.mark.parametrize("classes", [2, 10, 100])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_weights_are_a_distribution(patches, classes, scale):  # C1
    p = logits_of(8, patches, classes, scale=scale, seed=patches + classes)
    for xi in CUTOFFS:
        alpha, _ = loss_attention(p, xi)
        assert alpha.min() >= 0
        torch.testing.assert_close(alpha.sum(-1), torch.ones(8, dtype=torch.float64), atol=1e-12, rtol=0)


def test_no_cut_off_changes_nothing():  # C2
    alpha, before = loss_attention(logits_of(4, 9, 5), 0.0)
    torch.testing.assert_close(alpha, before, atol=1e-14, rtol=0)
    p = logits_of(4, 1, 9, 5)
    capsules, patches = capsule_attention(p, 0.0)
    torch.testing.assert_close(capsules[:, 0], loss_attention(p[:, 0], 0.0)[0], atol=1e-14, rtol=0)
    torch.testing.assert_close(patches, capsules[:, 0], atol=1e-14, rtol=0)


@pytest.mark.parametrize("bias", [False, True])
def test_weighted_features_give_weighted_logits(bias):  # C3: 5c and 5d literally
    theta = nn.Linear(6, 4, bias=bias).double()
    h = logits_of(3, 9, 6)
    p = theta(h)
    alpha, _ = loss_attention(p, 0.3)
    literal = theta((alpha.unsqueeze(-1) * h).sum(1))
    torch.testing.assert_close(attended_logits(alpha, p), literal, atol=1e-12, rtol=0)


@pytest.mark.parametrize("factor", [1e-8, 1e-3, 1e3, 1e8, -2.0])
def test_weights_ignore_scale_sign_and_rotation(factor):  # C4
    p = logits_of(4, 9, 5)
    turn = torch.linalg.qr(logits_of(5, 5, seed=1))[0]
    expected = loss_attention(p, 0.4)[0]
    torch.testing.assert_close(loss_attention(factor * p, 0.4)[0], expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(loss_attention(p @ turn, 0.4)[0], expected, atol=1e-12, rtol=0)


def test_weights_notice_a_shift_that_softmax_ignores():  # C5: a documented non-property, and its remedy
    p = logits_of(4, 9, 5)
    moved = (loss_attention(p + 3)[0] - loss_attention(p)[0]).abs().amax()
    assert moved > 0.01
    same = loss_attention(p + 3, norm="centred")[0] - loss_attention(p, norm="centred")[0]
    assert same.abs().amax() < 1e-14


def test_lengths_by_hand():
    p = torch.tensor([[3.0, -4.0], [1.0, 5.0]])
    for norm, expected in (
        ("l2", [5, 26**0.5]),
        ("relu", [3, 26**0.5]),
        ("centred", [24.5**0.5, 8**0.5]),  # each patch minus its own mean over the classes
        ("softplus", [math.hypot(*(math.log1p(math.exp(v)) for v in row)) for row in p.tolist()]),
    ):
        torch.testing.assert_close(patch_lengths(p, norm), torch.tensor(expected, dtype=torch.float32))


def test_patches_may_be_permuted():  # C6
    p, order = logits_of(4, 9, 5), torch.randperm(9, generator=torch.Generator().manual_seed(3))
    alpha, _ = loss_attention(p, 0.5)
    permuted, _ = loss_attention(p[:, order], 0.5)
    torch.testing.assert_close(permuted, alpha[:, order], atol=1e-14, rtol=0)
    torch.testing.assert_close(attended_logits(permuted, p[:, order]), attended_logits(alpha, p), atol=1e-14, rtol=0)


@pytest.mark.parametrize("patches", [1, 4, 36, 49, 196])
def test_somebody_survives(patches):  # C7, with its only exception
    equal = torch.ones(patches, 3, dtype=torch.float64)
    for xi in CUTOFFS:
        assert (loss_attention(equal, xi)[0] > 0).any()
    alpha, before = loss_attention(equal, 1.0)
    torch.testing.assert_close(alpha, before, atol=0, rtol=0)
    noisy = loss_attention(1 + 1e-7 * logits_of(50, patches, 3, dtype=torch.float32), 1.0)[0]
    assert noisy.isfinite().all() and (noisy.sum(-1) - 1).abs().amax() < 1e-5


@pytest.mark.parametrize("xi", CUTOFFS)
def test_the_denominator_of_the_cut_is_bounded(xi):  # C8
    before = patch_shares(patch_lengths(logits_of(50, 12, 4)))
    total = (before - xi / 12).clamp_min(0).sum(-1)
    assert total.min() >= 1 - xi - 1e-12 and total.max() <= 1 - xi / 12 + 1e-12
    after = cut_off(before, xi)
    assert (after.amax(-1) >= before.amax(-1) - 1e-12).all()
    entropy = lambda a: -torch.special.xlogy(a, a).sum(-1)  # noqa: E731
    assert (entropy(after) <= entropy(before) + 1e-12).all()
    order = before.argsort(-1)
    assert (after.gather(-1, order).diff(dim=-1) >= -1e-15).all()


def test_cut_off_takes_the_official_scale():
    before = patch_shares(patch_lengths(logits_of(5, 36, 4)))
    code = cut_off(before, 0.1, cells=1024)
    literal = F.relu(before - 0.1 / 1024)
    torch.testing.assert_close(code, literal / literal.sum(-1, keepdim=True), atol=1e-15, rtol=0)


@pytest.mark.parametrize("xi", [-0.1, 1.1, math.nan])
def test_cut_off_outside_its_range_is_refused(xi):
    with pytest.raises(ValueError, match=r"cutoff \(xi\) must lie in \[0, 1\], got"):
        loss_attention(logits_of(2, 3, 4), xi)
    with pytest.raises(ValueError, match="cutoff"):
        LossAttention(nn.Identity(), cutoff=xi)


def test_lengths_refuse_what_they_cannot_read():
    with pytest.raises(ValueError, match="expected logits"):
        patch_lengths(torch.ones(3))
    with pytest.raises(ValueError, match="'l1'"):
        patch_lengths(torch.ones(3, 2), "l1")


def test_signs_are_invisible_to_the_printed_norm():  # D8: a loud "no" weighs as much as a "yes"
    no, yes = torch.full((1, 9), -5.0), torch.zeros(1, 9)
    yes[0, 0] = 15.0
    p = torch.stack([no, yes], 1)
    torch.testing.assert_close(loss_attention(p, 0.0)[0], torch.tensor([[0.5, 0.5]]))
    assert loss_attention(p, 0.0, norm="relu")[0][0, 1] == 1
    assert loss_attention(p, 0.0, norm="softplus")[0][0, 1] > 0.85


# --- gradients through the weights -----------------------------------------------------------------------------------


@pytest.mark.parametrize("xi", [0.0, 0.1, 0.5, 0.9])
def test_gradient_is_the_advantage_formula(xi):  # C12
    p = logits_of(8, 5).requires_grad_()
    alpha, before = loss_attention(p, xi)
    z = attended_logits(alpha, p)
    g = logits_of(5, seed=4)
    (found,) = torch.autograd.grad(z @ g, p)
    with torch.no_grad():
        lengths = patch_lengths(p)
        total = (before - xi / 8).clamp_min(0).sum()
        advantage = (alpha > 0) * (p @ g - z @ g) / total
        pull = (advantage - (before * advantage).sum()) / (lengths * lengths.sum())
        expected = alpha.unsqueeze(1) * g + pull.unsqueeze(1) * p
        if xi == 0:
            assert (before * advantage).sum().abs() < 1e-12
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


def test_gradients_pass_gradcheck():
    p = logits_of(2, 4, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda p: loss_attention(p, 0.3)[0], p)
    capsules = logits_of(2, 2, 4, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda p: capsule_attention(p, 0.3), capsules)


def test_weights_are_homogeneous_of_degree_zero():  # C13
    p = logits_of(6, 9, 5).requires_grad_()
    alpha, _ = loss_attention(p, 0.3)
    (gradient,) = torch.autograd.grad((alpha * logits_of(6, 9, seed=2)).sum(), p, retain_graph=True)
    assert (gradient * p).sum((1, 2)).abs().amax() < 1e-12
    (total,) = torch.autograd.grad(alpha.sum(), p)
    assert total.abs().amax() < 1e-12  # dividing by the l2,1 norm is no penalty: it has no gradient of its own


def test_regulariser_lengthens_better_than_average_patches():  # C14
    p, labels = logits_of(1, 7, 5), torch.tensor([2])
    each = F.cross_entropy(p[0], labels.expand(7), reduction="none")
    lengths = patch_lengths(p).requires_grad_()
    loss = (patch_shares(lengths) * each).sum()
    (gradient,) = torch.autograd.grad(loss, lengths)
    torch.testing.assert_close(gradient[0], (each - loss) / lengths.sum(), atol=1e-12, rtol=0)


def test_a_patch_of_zero_logits_has_finite_gradients():  # C15
    p = logits_of(2, 4, 3)
    p[0, 1] = 0
    p[1] = 0
    p.requires_grad_()
    alpha, _ = loss_attention(p, 0.1)
    attended_logits(alpha, p).sum().backward()
    assert p.grad.isfinite().all()
    torch.testing.assert_close(alpha[1], torch.full((4,), 0.25, dtype=torch.float64))
    written_out = logits_of(3).zero_().requires_grad_()
    written_out.square().sum().sqrt().backward()
    assert written_out.grad.isnan().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened_first(dtype):  # C21
    p = logits_of(4, 36, 10, scale=300).to(dtype)
    alpha, _ = loss_attention(p, 0.1)
    assert alpha.dtype == torch.float32 and alpha.isfinite().all()
    assert (alpha.sum(-1) - 1).abs().amax() < 1e-6
    assert patch_loss(alpha, p, torch.zeros(4, dtype=torch.int64)).isfinite()


# --- Eq. 6: capsules -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("xi", CUTOFFS)
def test_capsule_weights_equal_the_loop(xi):
    p = logits_of(2, 3, 5, 4)
    each, alpha = capsule_attention(p, xi)
    for b in range(2):
        lengths = patch_lengths(p[b])
        share = lengths / lengths.sum()  # 6a
        patch = [max(float(share[:, m].sum()) - xi / 5, 0.0) for m in range(5)]
        soft = torch.tensor([v / sum(patch) for v in patch], dtype=torch.float64)  # 6b
        alive = share * (soft > 0)  # 6c
        torch.testing.assert_close(alpha[b], soft, atol=1e-14, rtol=0)
        torch.testing.assert_close(each[b], alive / alive.sum(), atol=1e-14, rtol=0)
    torch.testing.assert_close(each.sum((1, 2)), torch.ones(2, dtype=torch.float64), atol=1e-12, rtol=0)


def test_the_capsule_rule_is_not_the_convolutional_rule():  # hard against soft threshold
    p = logits_of(2, 1, 9, 4)
    each, alpha = capsule_attention(p, 0.8)
    assert torch.equal(each[:, 0] > 0, alpha > 0)
    assert (each[:, 0] - alpha).abs().amax() > 1e-3
    with pytest.raises(ValueError, match=r"\[B, C, M, K\]"):
        capsule_attention(p[0], 0.1)


def test_weighted_capsules_give_the_image_logits():  # 6d and 6e literally
    theta, h = nn.Linear(6, 4).double(), logits_of(2, 3, 5, 6)
    p = theta(h)
    each, _ = capsule_attention(p, 0.4)
    literal = theta((each.unsqueeze(-1) * h).sum((1, 2)))
    torch.testing.assert_close(attended_logits(each.flatten(1), p.flatten(1, 2)), literal, atol=1e-12, rtol=0)


# --- numbers at the edge, and the criterion ---------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1e17, 1e19, 1e25, 1e37])
@pytest.mark.parametrize("norm", ["l2", "relu", "softplus", "centred"])
def test_huge_logits_weigh_as_small_ones_do(scale, norm):
    p = logits_of(3, 2, 6, 4, dtype=torch.float32)
    expected = [loss_attention((scale * p).double(), 0.3, norm=norm)[0], *capsule_attention((scale * p).double(), 0.3)]
    huge = (scale * p).requires_grad_()
    found = [loss_attention(huge, 0.3, norm=norm)[0], *capsule_attention(huge, 0.3)]
    for a, b in zip(found, expected):
        torch.testing.assert_close(a, b.float())
    (gradient,) = torch.autograd.grad(sum(w.square().sum() for w in found), huge)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("patches", [1, 5])
def test_broken_logits_never_give_plausible_weights(bad, patches):
    """One broken logit: no weight and no loss of its image is a number, the other image is untouched."""
    p = logits_of(2, 3, patches, 4, dtype=torch.float32)
    whole = [loss_attention(p[:, 0], 0.1)[0], *capsule_attention(p, 0.1)]
    p[0, 0, -1, 2] = bad
    broken = [loss_attention(p[:, 0], 0.1)[0], *capsule_attention(p, 0.1)]
    for a, b in zip(broken, whole):
        assert a[0].isnan().all() and torch.equal(a[1], b[1])
    losses = LossBasedAttention(reduction="none")(p[:, 0], torch.tensor([1, 1]))
    assert losses[0].isnan() and losses[1].isfinite()


def test_no_logits_at_all_weigh_the_same():
    zero = torch.zeros(2, 4, 3)
    torch.testing.assert_close(loss_attention(zero)[0], torch.full((2, 4), 0.25))


@pytest.mark.parametrize("shape", [(5, 6, 4), (5, 2, 6, 4)])
@pytest.mark.parametrize("many", [False, True])
def test_the_criterion_is_equation_9_or_10(shape, many):
    """Image loss plus balance times patch loss, per image, summed or averaged; an empty batch is a 0 with a graph."""
    p, labels = logits_of(*shape).requires_grad_(), torch.arange(5) % 4
    labels = F.one_hot(labels, 4).double() if many else labels
    each = LossBasedAttention(cutoff=0.3, balance=0.7, reduction="none")
    z, alpha, q = each.attend(p)
    bce = -(labels * F.logsigmoid(z) + (1 - labels) * F.logsigmoid(-z)).sum(1) if many else None
    image = bce if many else -z.log_softmax(1)[torch.arange(5), labels]
    right = (
        F.logsigmoid(q)[torch.arange(5), :, torch.arange(5) % 4]
        if many
        else q.log_softmax(2)[torch.arange(5), :, labels]
    )
    torch.testing.assert_close(each(p, labels), image - 0.7 * (alpha * right).sum(1), atol=1e-12, rtol=0)
    for reduction, expected in (("mean", each(p, labels).mean()), ("sum", each(p, labels).sum())):
        found = LossBasedAttention(0.3, 0.7, reduction=reduction)
        torch.testing.assert_close(found(p, labels), expected, atol=1e-12, rtol=0)
        empty = found(p[:0], labels[:0])
        empty.backward()
        assert empty == 0
    assert each(p[:0], labels[:0]).shape == (0,)
    with pytest.raises(ValueError, match="reduction must be one of mean, sum, none, got 'batch'"):
        LossBasedAttention(reduction="batch")(p, labels)


def test_the_criterion_can_keep_weights_out_of_the_patch_term():
    p, labels = logits_of(3, 6, 4).requires_grad_(), torch.tensor([0, 1, 2])
    found, expected = [], []
    for detach in (False, True):
        loss = LossBasedAttention(detach=detach)(p, labels)
        found.append(torch.autograd.grad(loss, p)[0])
        alpha = loss_attention(p)[0]
        loss = image_loss(attended_logits(alpha, p), labels)
        loss = loss + 0.1 * patch_loss(alpha.detach() if detach else alpha, p, labels)
        expected.append(torch.autograd.grad(loss, p)[0])
    for a, b in zip(found, expected):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=0)
    assert not torch.allclose(found[0], found[1])


@pytest.mark.parametrize("build", [patch_net, capsule_net])
@pytest.mark.parametrize("many", [False, True])
def test_the_method_trains_with_the_criterion(build, many):
    """Without a ramp, bit for bit."""
    images, labels = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2])
    labels = F.one_hot(labels, 4).float() if many else labels
    method = LossAttention(build("small", 4, seed=0), cutoff=0.4, balance=0.3, norm="relu", ramp=0).eval()
    (terms,) = method.losses(Batch(images, labels, None, torch.arange(3)), Clock())
    criterion = LossBasedAttention(cutoff=0.4, balance=0.3, norm="relu")
    assert torch.equal(terms["total"], criterion(method.net.patch_logits(images), labels))
    assert torch.equal(method.logits(images), criterion.attend(method.net.patch_logits(images)).image)


@pytest.mark.parametrize("wrong", [{"cutoff": 1.1}, {"balance": -1}, {"norm": "l1"}, {"capsules": "max"}])
def test_wrong_options_are_refused(wrong):
    with pytest.raises(ValueError, match=str(*wrong.values())):
        LossBasedAttention(**wrong)
