"""Loss-Attention and the heads it is compared with, as methods on small networks."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from xai_course.data.batch import Batch
from xai_course.methods.loss_attention import attended_logits, capsule_attention, image_loss, loss_attention, patch_loss
from xai_course.methods.patch_heads import (
    OFFICIAL,
    AttentionPooling,
    DynamicRouting,
    LossAttention,
    MeanPooling,
    dynamic_routing,
    margin_loss,
    squash,
)
from xai_course.nets.capsules import capsule_net
from xai_course.nets.patch_nets import patch_net
from xai_course.preset import Clock


def logits_of(*shape: int, seed: int = 0, scale: float = 1.0) -> torch.Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- methods ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def batch() -> Batch:
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    return Batch(images, torch.tensor([0, 1, 2]), None, torch.arange(3))


def many(batch: Batch) -> Batch:
    return batch._replace(labels=F.one_hot(batch.labels, 4).float())


@pytest.mark.parametrize("build", [patch_net, capsule_net])
def test_a_training_step_is_the_equations(build, batch):
    """Eq. 9 and Eq. 10 written out for one step, gradients of all parameters compared."""
    net = build("small", 4, seed=0).double()
    clock = Clock(epoch=3, epochs=10)
    images = batch.images.double()
    for one in (batch, many(batch)):
        one = one._replace(images=images)
        method = LossAttention(net, balance=0.5, cutoff=0.3)
        (terms,) = method.losses(one, clock)
        found = torch.autograd.grad(terms["total"], list(net.parameters()))
        p = net.patch_logits(images)
        if p.ndim == 3:
            alpha, _ = loss_attention(p, 0.3)
            z = (alpha.unsqueeze(-1) * p).sum(1)
        else:
            w, alpha = capsule_attention(p, 0.3)
            z, p = torch.einsum("bcm,bcmk->bk", w, p), p.sum(1)
        gamma = 0.5 * math.exp(-((1 - 3 / 4) ** 2))
        expected = image_loss(z, one.labels) + gamma * patch_loss(alpha, p, one.labels)
        assert terms["total"].item() == pytest.approx(expected.item(), abs=1e-12)
        for a, b in zip(found, torch.autograd.grad(expected, list(net.parameters()))):
            torch.testing.assert_close(a, b, atol=1e-12, rtol=1e-9)


def test_attended_capsule_logits_restore_the_mean(batch):  # D11
    net = capsule_net("small", 4, seed=0)
    seen = LossAttention(net, patch_logits="attended", cutoff=0.5).attend(batch.images)
    w, _ = capsule_attention(net.patch_logits(batch.images), 0.5)
    torch.testing.assert_close(seen.image, attended_logits(w.sum(1), seen.patches), atol=1e-5, rtol=1e-5)


def test_without_gamma_there_is_no_patch_term(batch):
    (terms,) = LossAttention(patch_net("small", 4), balance=0.0).losses(batch, Clock())
    assert set(terms) == {"classification", "total"}


def test_defaults_are_the_papers(batch):
    method = LossAttention(patch_net("small", 4))
    at = [method.gamma(Clock(epoch=e, epochs=200)) for e in (0, 40, 80, 199)]
    assert at == pytest.approx([0.1 * math.exp(-1), 0.1 * math.exp(-0.25), 0.1, 0.1])
    assert method.criterion.options["cutoff"] == 0.1


def test_weights_may_be_kept_out_of_the_patch_term(batch):
    net = patch_net("small", 4, seed=0).double().eval()
    images, wanted = batch.images.double(), list(net.parameters())
    found = {}
    for detach in (True, False):
        method = LossAttention(net, balance=0.5, detach_alpha=detach)
        (terms,) = method.losses(batch._replace(images=images), Clock())
        found[detach] = torch.autograd.grad(terms["patches"], wanted)
        seen = method.attend(images)
        weights = seen.weights.detach() if detach else seen.weights
        each = F.cross_entropy(seen.patches.transpose(1, 2), batch.labels[:, None].expand(3, 36), reduction="none")
        for a, b in zip(found[detach], torch.autograd.grad((weights * each).sum() / 3, wanted)):
            torch.testing.assert_close(a, b, atol=1e-12, rtol=1e-9)
    assert any((a - b).abs().max() > 1e-6 for a, b in zip(found[True], found[False]))


def test_selected_is_more_than_its_share(batch):
    net, weights = patch_net("small", 4), torch.tensor([[0.0, 0.25, 0.26, 0.49]])
    assert LossAttention(net).selected(weights).tolist() == [[False, True, True, True]]
    assert MeanPooling(net, select_above=1.0).selected(weights).tolist() == [[False, False, True, True]]


def test_contributions_are_what_speaks_for_the_class(batch):
    net = patch_net("small", 4, seed=0).eval()
    method, classes = LossAttention(net), torch.tensor([3, 0, 1])
    seen = method.attend(batch.images)
    own = seen.patches[torch.arange(3), :, classes]
    assert own.min() < 0 < own.max()
    painted = net.paint(seen.weights * own.clamp_min(0), (32, 32))
    expected = painted / painted.amax((1, 2), keepdim=True).clamp_min(1e-30)
    torch.testing.assert_close(method.explain(batch.images, classes, values="contributions"), expected)


def test_official_arguments_cut_by_the_map(batch):
    net = patch_net("small", 4, seed=0).eval()
    method = LossAttention(net, **OFFICIAL)
    expected, _ = loss_attention(net.patch_logits(batch.images), 0.1, cells=1024)
    torch.testing.assert_close(method.attend(batch.images).weights, expected)
    assert method.gamma(Clock(epoch=0, epochs=200)) == 0
    with pytest.raises(ValueError, match="'cells'"):
        LossAttention(net, cut_by="cells")


def test_mean_pooling_is_cross_entropy_on_the_plain_forward(batch):
    net = patch_net("small", 4, seed=0).eval()
    seen = MeanPooling(net).attend(batch.images)
    torch.testing.assert_close(seen.image, net(batch.images))
    assert MeanPooling(net).selected(seen.weights).all()


@pytest.mark.parametrize("gated", [False, True])
def test_attention_heads_follow_their_formula(gated, batch):
    net = patch_net("small", 4, seed=0).eval()
    method = AttentionPooling(net, gated=gated, hidden=8)
    h = net.patch_features(batch.images)
    part = method.scores
    seen = torch.tanh(h @ part.view.weight.T + part.view.bias)
    if gated:
        seen = seen * torch.sigmoid(h @ part.gate.weight.T + part.gate.bias)
    alpha = (seen @ part.score.weight.T + part.score.bias).squeeze(-1).softmax(-1)
    found = method.attend(batch.images)
    torch.testing.assert_close(found.weights, alpha)
    torch.testing.assert_close(found.image, net.head((alpha.unsqueeze(-1) * h).sum(1)))
    assert torch.equal(method.selected(alpha), alpha > 0.1 / 36)
    (terms,) = method.losses(batch, Clock())
    assert set(terms) == {"classification", "total"}
    (terms,) = AttentionPooling(net, gated=gated, hidden=8, balance=0.1).losses(batch, Clock())
    assert "patches" in terms


def test_squash_keeps_the_direction_below_length_one():
    s = logits_of(20, 3, scale=5)
    n = s.norm(dim=1, keepdim=True)
    torch.testing.assert_close(squash(s), n**2 / (1 + n**2) * s / n)
    zero = torch.zeros(2, 3, requires_grad=True)
    squash(zero).sum().backward()
    assert zero.grad.isfinite().all()


def test_routing_equals_the_procedure():
    votes = logits_of(2, 4, 3, 5)
    found = dynamic_routing(votes, 3)
    for image, out in zip(votes, found):
        b = torch.zeros(4, 3, dtype=torch.float64)
        for _ in range(3):
            c = b.softmax(1)
            v = torch.stack([squash(sum(c[i, j] * image[i, j] for i in range(4))) for j in range(3)])
            b = b + torch.einsum("ijd,jd->ij", image, v)
        torch.testing.assert_close(out, v, atol=1e-12, rtol=0)
    torch.testing.assert_close(dynamic_routing(votes[:1], 3), found[:1], atol=1e-14, rtol=0)  # no coupling of examples
    with pytest.raises(ValueError, match="iterations >= 1"):
        dynamic_routing(votes, 0)


def test_routing_does_not_learn_through_its_earlier_iterations():
    votes = logits_of(2, 4, 3, 5).requires_grad_()
    agreement = torch.zeros(2, 4, 3, dtype=torch.float64)
    with torch.no_grad():
        for _ in range(2):
            outputs = squash(torch.einsum("bnk,bnkd->bkd", agreement.softmax(2), votes))
            agreement = agreement + torch.einsum("bkd,bnkd->bnk", outputs, votes)
    last = squash(torch.einsum("bnk,bnkd->bkd", agreement.softmax(2), votes))
    pull = logits_of(2, 3, 5, seed=1)
    found, expected = (torch.autograd.grad((o * pull).sum(), votes)[0] for o in (dynamic_routing(votes, 3), last))
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


def test_margin_loss_by_hand():
    lengths = torch.tensor([[0.5, 0.5, 0.0], [0.95, 0.05, 0.3]])
    by_hand = (0.4**2 + 0.5 * 0.4**2 + 0.5 * 0.2**2) / 2
    assert margin_loss(lengths, torch.tensor([0, 0])).item() == pytest.approx(by_hand)


def test_routing_trains_single_and_multi_label(batch):
    method = DynamicRouting(capsule_net("small", 4, routing=True, seed=0))
    lengths = method.logits(batch.images)
    assert lengths.shape == (3, 4) and lengths.min() >= 0 and lengths.max() < 1
    hot = F.one_hot(batch.labels, 4)
    torch.testing.assert_close(margin_loss(lengths, batch.labels), margin_loss(lengths, hot))
    for one in (batch, many(batch)):
        (terms,) = method.losses(one, Clock())
        terms["total"].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in method.parameters())


def test_maps_lie_on_the_patches(batch):
    net = patch_net("small", 4, seed=0).eval()
    method = LossAttention(net)
    seen = method.attend(batch.images)
    one_hot = F.one_hot(torch.tensor([7]), 36).float()
    painted = net.paint(one_hot, (32, 32))[0]
    assert (painted > 0).nonzero().amin(0).tolist() == [4, 4] and (painted > 0).sum() == 81
    assert (painted[29:] == 0).all() and (painted[:, 29:] == 0).all()  # the margin no patch covers
    for values in ("weights", "contributions"):
        drawn = method.explain(batch.images, batch.labels, values=values)
        assert drawn.shape == (3, 32, 32) and drawn.min() >= 0 and drawn.max() == 1
    torch.testing.assert_close(net.paint(torch.ones(1, 36), (32, 32))[0, :29, :29], torch.ones(29, 29))
    assert seen.weights.shape == (3, 36)
