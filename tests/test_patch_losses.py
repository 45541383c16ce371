"""Losses and bounds of loss-based attention (Eqs. 1-3, 7-10 and the ramp); C9-C11, C16, C17 of the paper's audit."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from xai_course.methods.loss_attention import (
    attended_logits,
    binary_cross_entropy_bound,
    cross_entropy_bound,
    image_loss,
    loss_attention,
    patch_loss,
)
from xai_course.methods.patch_heads import PatchMethod
from xai_course.nets.patch_nets import patch_net
from xai_course.preset import Clock, gaussian_ramp_up

RELEASED_RAMP = {"ramp_steepness": 5.0, "zero_first": True}


def logits_of(*shape: int, seed: int = 0, scale: float = 1.0) -> torch.Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- Eqs. 1-3, 7, 8: losses and bounds -------------------------------------------------------------------------------


def test_image_losses_are_the_printed_sums():
    z = logits_of(3, 4)
    t = torch.tensor([0, 3, 1])
    soft = z.softmax(1)
    torch.testing.assert_close(image_loss(z, t), -torch.stack([soft[i, k].log() for i, k in enumerate(t)]).mean())
    y = torch.tensor([[1.0, 0, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1]])
    p = z.sigmoid()
    torch.testing.assert_close(image_loss(z, y), -(y * p.log() + (1 - y) * (1 - p).log()).sum(1).mean())
    assert image_loss(1e3 * z.float(), t).isfinite()


@pytest.mark.parametrize("labels", [torch.zeros(3), torch.zeros(3, 4, dtype=torch.int64), torch.zeros(2).long()])
def test_labels_of_the_wrong_kind_are_refused(labels):
    with pytest.raises(ValueError, match=r"labels must be \[3\] int64 .* or \[3, 4\] float"):
        image_loss(logits_of(3, 4), labels)
    with pytest.raises(ValueError, match="labels must be"):
        patch_loss(torch.ones(3, 5), logits_of(3, 5, 4), labels)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e2, 1e6])
def test_proposition_1(scale):  # C9
    p, t = logits_of(200, 6, 5, scale=scale), torch.arange(200) % 5
    alpha, _ = loss_attention(p, 0.1)
    z = attended_logits(alpha, p)
    loss, bound = F.cross_entropy(z, t, reduction="none"), cross_entropy_bound(alpha, p, t)
    assert (loss - bound).min() >= -1e-12
    own = z.softmax(1).gather(1, t.unsqueeze(1)).squeeze(1)
    torch.testing.assert_close(bound, 1 - own, atol=1e-12, rtol=0)
    if scale <= 1:  # the literal product of Eq. 7, where it can be formed
        q = p.softmax(-1)
        ratio = (q / q.gather(2, t.view(-1, 1, 1).expand(-1, 6, 1))) ** alpha.unsqueeze(-1)
        r = ratio.prod(1).sum(1) - 1
        torch.testing.assert_close(bound, r / (1 + r), atol=1e-12, rtol=0)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_proposition_2(scale):  # C10
    p = logits_of(200, 6, 5, scale=scale)
    y = (logits_of(200, 5, seed=1) > 0).double()
    alpha, _ = loss_attention(p, 0.1)
    z = attended_logits(alpha, p)
    loss = F.binary_cross_entropy_with_logits(z, y, reduction="none").sum(1)
    bound = binary_cross_entropy_bound(alpha, p, y)
    assert (loss - bound).min() >= -1e-12
    if scale <= 1:
        r = ((-p).exp() ** alpha.unsqueeze(-1)).prod(1)
        torch.testing.assert_close(bound, (y * r / (1 + r) + (1 - y) / (1 + r)).sum(1), atol=1e-12, rtol=0)


def test_the_proofs_line_by_line():  # C17: Eqs. 12 and 13 on one example
    p, t = logits_of(4, 3), 1
    alpha = loss_attention(p, 0.1)[0]
    q = p.softmax(-1)
    z = attended_logits(alpha, p)
    lines = [
        -(z.exp()[t] / z.exp().sum()).log(),
        -(torch.prod(p[:, t].exp() ** alpha) / (p.exp() ** alpha.unsqueeze(1)).prod(0).sum()).log(),
        -(torch.prod(q[:, t] ** alpha) / (q ** alpha.unsqueeze(1)).prod(0).sum()).log(),
    ]
    r = sum(torch.prod((q[:, k] / q[:, t]) ** alpha) for k in (0, 2))
    lines.append(-(1 - r / (1 + r)).log())
    for line in lines[1:]:
        assert abs(float(line - lines[0])) < 1e-12
    assert lines[-1] >= r / (1 + r)
    y = torch.tensor([1.0, 0, 1])
    ratio = ((-p).exp() ** alpha.unsqueeze(1)).prod(0)
    chain = -(y * (1 / (1 + ratio)).log() + (1 - y) * (ratio / (1 + ratio)).log()).sum()
    assert abs(float(chain - image_loss(z.unsqueeze(0), y.unsqueeze(0)))) < 1e-12


def counter_example(scale: float = 3.0) -> torch.Tensor:
    return scale * torch.tensor([[[10.0, 11, -100], [10, -100, 11]]], dtype=torch.float64)


def test_a_vanishing_loss_needs_no_patch_of_the_class():  # C16, D7
    p, t = counter_example(), torch.tensor([0])
    alpha, _ = loss_attention(p, 0.1)
    torch.testing.assert_close(alpha, torch.full((1, 2), 0.5, dtype=torch.float64))
    assert image_loss(attended_logits(alpha, p), t) < 1e-15
    assert p.argmax(-1).tolist() == [[1, 2]]
    assert float(patch_loss(alpha, p, t)) == pytest.approx(3.05, abs=0.01)  # what Eq. 9 adds
    loud = torch.tensor([[[20.0, 0], [0, 30]]], dtype=torch.float64)  # one patch sure of t does not suffice either
    assert image_loss(attended_logits(loss_attention(loud, 0.0)[0], loud), t) > 4


def test_two_classes_have_no_counter_example():
    p = logits_of(20_000, 5, 2)
    alpha, _ = loss_attention(p, 0.1)
    winner = attended_logits(alpha, p).argmax(-1)
    told = (p.argmax(-1) == winner.unsqueeze(1)) & (alpha > 0)
    assert told.any(1).all()


# --- Eqs. 9, 10 ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("xi", [0.0, 0.1, 0.9])
def test_patch_loss_bounds_the_image_loss(xi):  # C11, Jensen
    p, t = logits_of(300, 6, 5, scale=4), torch.arange(300) % 5
    alpha, _ = loss_attention(p, xi)
    image = F.cross_entropy(attended_logits(alpha, p), t, reduction="none")
    each = F.cross_entropy(p.transpose(1, 2), t.unsqueeze(1).expand(-1, 6), reduction="none")
    assert ((alpha * each).sum(1) - image).min() >= -1e-12


def test_single_label_loss_equals_the_loop():
    p, t = logits_of(3, 4, 5), torch.tensor([4, 0, 2])
    alpha, _ = loss_attention(p, 0.2)
    total = 0.0
    for i in range(3):
        for m in range(4):
            total -= alpha[i, m] * torch.log(p[i, m].exp()[t[i]] / p[i, m].exp().sum())
    torch.testing.assert_close(patch_loss(alpha, p, t), total / 3, atol=1e-12, rtol=0)


def test_multi_label_loss_equals_the_loop():
    p = logits_of(4, 3, 5)
    y = torch.tensor([[1.0, 0, 1, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 1, 0], [1, 1, 1, 1, 1]])
    alpha, _ = loss_attention(p, 0.2)
    total = 0.0
    for i in range(4):
        for m in range(3):
            present = [p[i, m, k].sigmoid().log() for k in range(5) if y[i, k] == 1]
            total -= alpha[i, m] * max(present) if present else 0.0
    torch.testing.assert_close(patch_loss(alpha, p, y), total / 4, atol=1e-12, rtol=0)


def test_images_without_labels_are_a_documented_zero():
    p = logits_of(2, 3, 5).requires_grad_()
    alpha, _ = loss_attention(p, 0.2)
    loss = patch_loss(alpha, p, torch.zeros(2, 5))
    assert loss.item() == 0
    loss.backward()
    assert p.grad.isfinite().all() and p.grad.abs().amax() == 0


def test_patch_loss_can_leave_the_weights_alone():
    p, t = logits_of(2, 3, 5).requires_grad_(), torch.tensor([0, 1])
    alpha = loss_attention(p, 0.2)[0].detach().requires_grad_()
    assert torch.autograd.grad(patch_loss(alpha, p, t, detach=True), alpha, allow_unused=True)[0] is None
    assert torch.autograd.grad(patch_loss(alpha, p, t), alpha)[0].abs().sum() > 0
    with pytest.raises(ValueError, match="expected weights"):
        patch_loss(alpha, p[:, :2], t)


def test_ramp_of_paper_and_code():
    ramp, code = partial(gaussian_ramp_up, steepness=1.0), gaussian_ramp_up
    assert ramp(0) == pytest.approx(math.exp(-1))
    assert ramp(80) == ramp(200) == 1 and ramp(0, 0) == 1
    assert 0.1 * ramp(1) == pytest.approx(0.0377, abs=1e-4) and 0.1 * code(1) == pytest.approx(0.0008, abs=1e-4)
    assert 0.1 * ramp(40) == pytest.approx(0.078, abs=1e-3) and 0.1 * code(40) == pytest.approx(0.029, abs=1e-3)
    paper, released = (PatchMethod(patch_net("small"), balance=0.1, **how) for how in ({}, RELEASED_RAMP))
    for epoch in (0, 1, 40, 80, 199):  # of 200 epochs, the paper's number
        clock = Clock(epoch, epoch, 200, 1)
        assert paper.gamma(clock) == pytest.approx(0.1 * ramp(epoch))
        assert released.gamma(clock) == pytest.approx(0.1 * code(epoch) * (epoch > 0))  # 0 in the first epoch only
    assert paper.gamma(Clock(4, 4, 10, 1)) == 0.1  # a short run ramps in proportion
    with pytest.raises(ValueError, match="must not be negative"):
        ramp(-1)
