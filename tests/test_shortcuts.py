"""Rivals of a penalty on class maps, each against a slow loop of its equation."""

from __future__ import annotations

import copy
import math
from functools import partial

import pytest
import torch
from torch import nn

from xai_course.data.batch import Batch
from xai_course.measure.sanity import lambda_zero_equals_baseline
from xai_course.methods import (
    ABN,
    CDEP,
    DFR,
    JTT,
    L1,
    PPCE,
    CrossEntropy,
    GroupDRO,
    MaskedInput,
    Pasted,
    PastedOften,
    ReFF,
    Reweighted,
    RightReasons,
    decomposed,
    masked_input,
    pasted,
    right_reasons,
)
from xai_course.nets.abn import abn_from
from xai_course.nets.convnets import small_cnn
from xai_course.preset import Clock

CLOCK = Clock(epoch=0, step=9, epochs=1, steps_per_epoch=10)


def batch(n: int = 6, size: int = 16, classes: int = 3) -> Batch:
    g = torch.Generator().manual_seed(0)
    masks = torch.zeros(n, size, size, dtype=torch.bool)
    for k in range(n):
        masks[k, 2 + k : 8 + k, 3:10] = True
    images = torch.rand(n, 3, size, size, generator=g)
    return Batch(images, torch.arange(n) % classes, masks, torch.arange(n), torch.arange(n) < 4)


def losses_of(net: nn.Module, b: Batch) -> list[torch.Tensor]:
    """Cross-entropy of each image, by hand, in the batch's own forward pass."""
    logits = net(b.images)
    return [logits[i].logsumexp(0) - logits[i, b.labels[i]] for i in range(len(logits))]


# --- with masks -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_pasting_pixel_by_pixel(share):
    b = batch(4)
    b.masks[2] = True  # nobody annotated the third image
    made, count = pasted(b.images, b.masks, share), round(4 * share)
    for i in range(4):
        other = (i + 1) % 4
        away = ~b.masks[other]
        plate = b.images[other].clone()
        if away.any():
            plate[:, ~away] = b.images[other][:, away].mean(1, keepdim=True)
        expected = torch.where(b.masks[i], b.images[i], plate) if i < count else b.images[i]
        assert torch.allclose(made[i], expected, atol=1e-6), i
    assert torch.equal(made[2], b.images[2])


def test_masked_input_pixel_by_pixel():
    b = batch(4)
    made, mean = masked_input(b.images, b.masks, 0.5), b.images.mean((0, 2, 3))
    for i in range(4):
        for y, x in ((0, 0), (4, 5), (8, 8), (15, 3)):
            kept = i >= 2 or b.masks[i, y, x]
            assert torch.allclose(made[i, :, y, x], b.images[i, :, y, x] if kept else mean)


def test_changed_images_are_what_is_learnt():
    b, net = batch(), small_cnn(3, width=2, seed=0)
    for method, images in (
        (Pasted(copy.deepcopy(net), 0.5), pasted(b.images, b.masks, 0.5)),
        (MaskedInput(copy.deepcopy(net), 0.5), masked_input(b.images, b.masks, 0.5)),
    ):
        expected = torch.stack(losses_of(copy.deepcopy(net), b._replace(images=images))).mean()
        assert torch.allclose(next(method.losses(b, CLOCK))["total"], expected)
        with pytest.raises(ValueError, match=r"share must lie in \[0, 1\], got 1.5"):
            type(method)(net, share=1.5)
        with pytest.raises(ValueError, match="masks must be .B, H, W., got None"):
            next(method.losses(b._replace(masks=None), CLOCK))


def test_pasted_often_learns_drawn_objects_on_drawn_backgrounds_and_the_rest_of_the_batch():
    few, many, net = batch(3), batch(6), small_cnn(3, width=2, seed=0)
    few = few._replace(images=few.images.flip(0))
    torch.manual_seed(5)
    drawn = torch.randint(3, (6,))
    made = [pasted(few.images[[o, b]], few.masks[[o, b]])[0] for o, b in drawn.view(3, 2).tolist()]
    seen = many._replace(images=torch.stack([*made, *many.images[3:]]))
    seen = seen._replace(labels=torch.cat([few.labels[drawn[::2]], many.labels[3:]]))
    expected = torch.stack(losses_of(copy.deepcopy(net), seen)).mean()
    torch.manual_seed(5)
    method = PastedOften(net, lambda: few, share=0.5)
    assert torch.allclose(next(method.losses(many._replace(masks=None), CLOCK))["total"], expected)
    with pytest.raises(ValueError, match=r"share must lie in \[0, 1\], got -0.5"):
        PastedOften(net, lambda: few, share=-0.5)
    with pytest.raises(ValueError, match="at least one image, got none"):
        PastedOften(net, lambda: batch(0))


@pytest.mark.parametrize(
    "method",
    [
        partial(Pasted, share=0.0),
        partial(PastedOften, annotated=partial(batch, 2), share=0.0),
        partial(MaskedInput, share=0.0),
        partial(RightReasons, balance=0.0),
        partial(CDEP, balance=0.0),
    ],
)
def test_at_zero_they_are_cross_entropy(method):
    assert lambda_zero_equals_baseline(method, CrossEntropy, small_cnn(3, width=2, seed=0), batch(), CLOCK)


def test_right_reasons_image_by_image():
    b, net = batch(), small_cnn(3, width=2, seed=0).eval()
    terms = next(RightReasons(net, balance=0.7).losses(b, CLOCK))
    each = []
    for i in range(len(b.labels)):
        image = b.images[i : i + 1].clone().requires_grad_()
        each.append(right_reasons(net(image), image, b.masks[i : i + 1]))
    expected = torch.stack(losses_of(net, b)).mean() + 0.7 * torch.cat(each).mean()
    assert torch.allclose(terms["total"], expected, atol=1e-6) and terms["reasons"] > 0
    assert not b.images.requires_grad


def test_decomposition_by_a_slow_network():
    """Layer by layer with plain numbers of one pixel's history; together the parts are the logits."""
    b, net = batch(), small_cnn(3, width=2, seed=0).double()
    images = b.images.double()
    net(images)  # statistics that are no longer those of the start
    net.eval()
    beta, gamma = images * b.masks[:, None], images * ~b.masks[:, None]
    for stage in net.body:
        convolution, norm, _ = stage
        beta, gamma = convolution(beta), convolution(gamma)
        zeros = torch.zeros_like(beta)
        bias = norm(zeros)
        beta, gamma = norm(beta) - bias, norm(gamma) - bias
        share = torch.where(beta.abs() + gamma.abs() > 0, beta.abs() / (beta.abs() + gamma.abs()), zeros)
        beta, gamma = beta + share * bias, gamma + (1 - share) * bias
        beta, gamma = beta.clamp_min(0), (beta + gamma).clamp_min(0) - beta.clamp_min(0)
    beta, gamma = (each.mean((2, 3)) @ net.head.weight.t() for each in (beta, gamma))
    share = beta.abs() / (beta.abs() + gamma.abs())
    got = decomposed(net, images, b.masks)
    assert torch.allclose(got[0], beta + share * net.head.bias, atol=1e-10)
    assert torch.allclose(got[0] + got[1], net(images), atol=1e-10)
    train = copy.deepcopy(net).train()
    assert torch.allclose(sum(decomposed(train, images, b.masks)), copy.deepcopy(train)(images), atol=1e-10)
    assert all(torch.equal(x, y) for x, y in zip(net.buffers(), train.buffers()))  # no statistics moved
    terms = next(CDEP(net, balance=2.0).losses(b._replace(images=images), CLOCK))
    outside, inside = decomposed(net, images, ~b.masks)
    share = outside.exp() / (outside.exp() + inside.exp())
    plain = torch.stack(losses_of(net, b._replace(images=images))).mean()
    assert torch.allclose(terms["total"], plain + 2 * share.mean())
    with pytest.raises(ValueError, match="net must be of Conv2d without bias, BatchNorm2d and ReLU, got Linear"):
        decomposed(nn.ModuleDict({"body": nn.Sequential(nn.Linear(2, 2))}), images, b.masks)  # type: ignore[arg-type]


def test_an_image_that_nobody_annotated_costs_nothing():
    """The convention of `data.cues.few_masks`: its mask covers all of it."""
    b = batch()
    known = b._replace(masks=b.masks.clone())
    known.masks[3:] = True
    maps = torch.rand(6, 4, 4)
    for criterion in (L1(reduction="none"), PPCE(reduction="none")):
        cost = criterion(maps, known.masks)
        assert (cost[:3] > 0).all() and (cost[3:] == 0).all()
        assert torch.equal(cost[:3], criterion(maps, b.masks)[:3])
    none = b._replace(masks=torch.ones_like(b.masks))
    net = small_cnn(3, width=2, seed=0)
    for method, name in (
        (ReFF(net, ["body.4"], penalty="energy"), "focusing"),
        (RightReasons(net), "reasons"),
        (CDEP(net), "decomposition"),
        (ABN(abn_from(net)), "map"),
    ):
        assert next(method.losses(none, CLOCK))[name] == 0


# --- with groups ------------------------------------------------------------------------------------------------------


def test_group_dro_by_a_slow_loop():
    b, net = batch(), small_cnn(3, width=2, seed=0)
    method, q = GroupDRO(net, step=0.5), [1 / 6] * 6
    for _ in range(2):
        each, sums = losses_of(copy.deepcopy(net), b), {}
        for i, loss in enumerate(each):
            sums.setdefault(int(2 * b.labels[i] + b.cued[i]), []).append(loss)
        means = {g: sum(losses) / len(losses) for g, losses in sums.items()}
        q = [q[g] * math.exp(0.5 * float(torch.as_tensor(means.get(g, 0.0)).detach())) for g in range(6)]
        q = [weight / sum(q) for weight in q]
        total = next(method.losses(b, CLOCK))["total"]
        assert torch.allclose(total, sum(q[g] * loss for g, loss in means.items()), rtol=1e-5)
        assert torch.allclose(method.q, torch.tensor(q), rtol=1e-5)
    other = GroupDRO(small_cnn(3, width=2), step=0.5)
    other.load_state_dict(method.state_dict())  # an interrupted run goes on with its weights
    assert torch.equal(other.q, method.q)
    with pytest.raises(ValueError, match="batch.cued must say where the shortcut holds"):
        next(method.losses(b._replace(cued=None), CLOCK))


@pytest.mark.parametrize("power", [0.0, 1.0, 2.0])
def test_reweighting_by_a_slow_loop(power):
    b, net = batch(), small_cnn(3, width=2, seed=0)
    method = Reweighted(net, power=power)
    each = losses_of(copy.deepcopy(net), b)
    groups = [int(2 * y + c) for y, c in zip(b.labels, b.cued)]
    weights = [(groups.count(g) / 6) ** -power for g in groups]
    expected = sum(w * loss for w, loss in zip(weights, each)) / sum(weights)
    assert torch.allclose(next(method.losses(b, CLOCK))["total"], expected)
    if power == 1:  # every group weighs the same
        means = [sum(x for x, g in zip(each, groups) if g == k) / groups.count(k) for k in set(groups)]
        assert torch.allclose(expected, sum(means) / len(means))


def test_jtt_trains_one_network_then_the_other_with_its_errors():
    b, net = batch(), small_cnn(3, width=2, seed=0)
    method = JTT(net, up=10.0, share=0.25)
    assert all(torch.equal(x, y) for x, y in zip(method.first.parameters(), net.parameters()))
    for step, trained in ((0, method.first), (2, method.first), (3, method.net), (9, method.net)):
        method.zero_grad()
        next(method.losses(b, Clock(0, step, 1, 10)))["total"].backward()
        assert {p.grad is not None for p in trained.parameters()} == {True}
        assert {p.grad is not None for p in (method.net if trained is method.first else method.first).parameters()} == {
            False
        }
    with torch.no_grad():
        wrong = copy.deepcopy(method.first).eval()(b.images).argmax(1) != b.labels
    assert 0 < wrong.sum() < 6
    weights = [10.0 if w else 1.0 for w in wrong]
    each = losses_of(copy.deepcopy(net), b)
    expected = sum(w * loss for w, loss in zip(weights, each)) / sum(weights)
    assert torch.allclose(next(method.losses(b, CLOCK))["total"], expected)


def test_dfr_refits_the_last_layer_on_balanced_images():
    """Features in which the cue is louder than the object: a plain fit follows the cue, the balanced one does not."""
    g = torch.Generator().manual_seed(0)
    n = 400
    labels = torch.randint(2, (n,), generator=g)
    cued = torch.rand(n, generator=g) < 0.9
    cue = torch.where(cued, labels, 1 - labels)
    features = torch.stack([2.0 * labels - 1, 3.0 * (2.0 * cue - 1)], 1) + 0.8 * torch.randn(n, 2, generator=g)

    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(2, 2)

        def features(self, images):
            return images

        def embed(self, images):
            return images.mean((2, 3))

        def forward(self, images):
            return self.head(self.embed(images))

    held = Batch(features[:, :, None, None], labels, None, torch.arange(n), cued)
    method = DFR(Flat(), lambda: held, c=100.0)  # type: ignore[arg-type]
    before = method.last.weight.clone()
    assert torch.equal(method.logits(held.images), method.net(held.images))  # while it trains, the network's own
    assert torch.equal(before, method.train().last.weight)
    method.eval()
    right = method.logits(held.images).argmax(1) == labels
    scores = [right[(labels == y) & (cued == c)].double().mean().item() for y in (0, 1) for c in (False, True)]
    assert min(scores) > 0.8 and max(scores) - min(scores) < 0.1
    assert method.explain(held.images, labels).shape == (n, 1, 1)
    assert not {id(p) for p in method.last.parameters()} & {id(p) for p in method.parameter_groups()[0]["params"]}
    # the gradient of sum w loss + |W|^2 / 2C vanishes at the fitted weights
    standard = (features - features.mean(0)) / features.std(0)
    group = 2 * labels + cued
    weights = (1.0 / group.bincount()[group]).double()
    weights *= n / weights.sum()
    w = ((method.last.weight[1] - method.last.weight[0]).double() * features.std(0)).requires_grad_()
    b0 = (method.logits(features.mean(0).view(1, 2, 1, 1)) @ torch.tensor([-1.0, 1.0])).double()
    z = standard.double() @ w + b0
    loss = (weights * nn.functional.softplus(-(2 * labels - 1) * z)).sum() + w.square().sum() / 200
    (slope,) = torch.autograd.grad(loss, w)
    assert slope.abs().max() < 0.05, slope
