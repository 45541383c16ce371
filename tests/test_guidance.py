"""The family of explanation losses: each against a slow loop, its gradient in closed form, dead and signed maps."""

from __future__ import annotations

import copy
import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from reff_cases import LAYERS, gradients, problem, random_maps, random_mask
from torch import Tensor

from xai_course.maps import class_activation_map, grad_cam
from xai_course.methods import guidance as G
from xai_course.methods.explanation_loss import Focus, normalised_shares, peak_maps
from xai_course.methods.reff import ReFF, focusing_loss
from xai_course.preset import Clock

seeds = st.integers(0, 10_000)
ALL = {**G.FAMILY, "attention": G.AttentionDistance}


# --- values: the printed sums, pixel by pixel -------------------------------------------------------------------------


def loop(name: str, image: Tensor, s: Tensor) -> float:
    """One map ``[H, W]`` at the size of its annotation, straight from the sums."""
    a, s = image.flatten().tolist(), s.flatten().tolist()
    total, peak, pairs = sum(a), max(abs(x) for x in a), list(zip(a, s))
    if peak == 0 and name != "attention":
        return 0.0
    return {
        "outside": lambda: sum((x / total * (1 - i)) ** 2 for x, i in pairs),
        "energy": lambda: 1 - sum(x * i for x, i in pairs) / total,  # Rao et al. write -EPG and program 1 - EPG
        "l1": lambda: sum(abs(x / total - i) for x, i in pairs),
        "l2": lambda: sum((x / total - i) ** 2 for x, i in pairs),
        "gradia": lambda: sum(abs(i - x / peak) for x, i in pairs) / len(a),
        "ppce": lambda: -sum(i * (math.log(x / peak) if x > 0 else -100) for x, i in pairs) / sum(s),
        "rrr": lambda: sum((1 - i) ** 2 * x**2 for x, i in pairs),
        "rrr*": lambda: sum((1 - i) ** 2 * (x / peak) ** 2 for x, i in pairs),
        "attention": lambda: sum((x - i) ** 2 for x, i in pairs) / len(a),
    }[name]()


@pytest.mark.parametrize("name", ALL)
@given(seeds)
@settings(max_examples=8, deadline=None, derandomize=True)
def test_every_loss_equals_its_printed_sum(name, seed):
    torch.manual_seed(seed)
    maps, masks = torch.rand(3, 5, 4, dtype=torch.float64), torch.rand(3, 5, 4, dtype=torch.float64)
    masks[0] = (masks[0] < 0.5).double()
    maps[1, 2], maps[2] = 0, 0  # some cells of zero, one dead map
    found = ALL[name](weights=[1.0], reduction="none")(maps, masks)
    expected = [loop(name, m, s) for m, s in zip(maps, masks)]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_energy_is_one_minus_the_pointing_game():
    maps, masks = random_maps()[0], random_mask(3, 8)
    inside = (maps * masks).sum((1, 2)) / maps.sum((1, 2))
    torch.testing.assert_close(G.Energy(reduction="none")(maps, masks), 1 - inside)


def test_ppce_is_pytorchs_cross_entropy_inside_the_mask():
    """What Rao et al.'s code calls; only cells with less than 1e-12 of the peak differ."""
    maps, masks = random_maps()[0], random_mask(3, 8).bool()
    maps[0, :2] = 0
    for each, mask in zip(maps, masks):
        inside = (each / each.max())[mask]
        expected = F.binary_cross_entropy(inside, torch.ones_like(inside))
        torch.testing.assert_close(G.PPCE()(each[None], mask[None]), expected)
    assert G.PPCE()(maps, torch.zeros_like(masks)) == 0  # nothing annotated, nothing to light


def test_rrr_on_input_gradients_by_hand():
    """Two pixels, two classes: the gradient of log p_1 + log p_2 with respect to x_d is 1 - 2 p_d."""
    images = torch.tensor([[[[1.0, 2.0]]], [[[0.5, -1.0]]]], dtype=torch.float64, requires_grad=True)
    logits = images.flatten(1) @ torch.eye(2, dtype=torch.float64)
    masks = torch.tensor([[[1.0, 0.0]], [[0.0, 0.5]]])
    p = logits.softmax(1).detach()
    expected = torch.stack([(1 - 2 * p[0, 1]) ** 2, (1 - 2 * p[1, 0]) ** 2 + (0.5 * (1 - 2 * p[1, 1])) ** 2])
    torch.testing.assert_close(G.right_reasons(logits, images, masks), expected)


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_rrr_on_input_gradients_against_differences_of_the_network(mode):
    net, batch = problem()
    getattr(net, mode)()
    images = batch.images.clone().requires_grad_()
    found = G.right_reasons(net(images), images, batch.masks)
    with torch.no_grad():
        slopes, h = torch.zeros_like(images), 1e-6
        for index in torch.randperm(images[0].numel())[:20].tolist():  # some pixels of the first image
            step = torch.zeros_like(images[0]).flatten()
            step[index] = h
            step = step.view_as(images[0])
            moved = [net(batch.images + sign * step * (torch.arange(4) == 0).view(-1, 1, 1, 1)) for sign in (1, -1)]
            up, down = (logits.log_softmax(1).sum() for logits in moved)
            slopes[0].view(-1)[index] = (up - down) / (2 * h)
    (exact,) = torch.autograd.grad(net(images).log_softmax(1).sum(), images)
    seen = slopes[0] != 0
    torch.testing.assert_close(exact[0][seen], slopes[0][seen], rtol=1e-4, atol=1e-6)
    expected = (exact * ~batch.masks[:, None]).square().sum((1, 2, 3))
    torch.testing.assert_close(found.detach(), expected)
    assert all(g is not None for name, g in gradients(net, found.sum()).items() if name != "head.bias")


# --- ReFF's four penalties are what they were, bit for bit ------------------------------------------------------------

BEFORE = {
    "outside": lambda shares, s: (shares * (1 - s)).square().sum(dim=(1, 2)),
    "energy": lambda shares, s: (shares * (1 - s)).sum(dim=(1, 2)),
    "l1": lambda shares, s: (shares - s).abs().sum(dim=(1, 2)),
    "l2": lambda shares, s: (shares - s).square().sum(dim=(1, 2)),
}


@pytest.mark.parametrize("name", BEFORE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_reffs_numbers_are_bit_equal(name, dtype):
    torch.manual_seed(0)
    maps, masks, weights = [m.to(dtype) for m in random_maps()], torch.rand(3, 16, 16), (2.0, 0.5, 7.0)
    maps[0][1] = 0
    leaves = [[m.clone().requires_grad_() for m in maps] for _ in range(2)]
    loss, expected = focusing_loss(leaves[0], masks, weights, name).loss, 0
    for m, weight in zip(leaves[1], weights):
        share, dead = normalised_shares(m, (16, 16))
        cost = BEFORE[name](share, masks.to(share.dtype))
        expected = expected + weight * torch.where(dead, torch.zeros_like(cost), cost).mean()
    assert torch.equal(loss, expected)
    assert all(map(torch.equal, torch.autograd.grad(loss, leaves[0]), torch.autograd.grad(expected, leaves[1])))


# --- gradients --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("size", [(8, 8), (16, 16)])
def test_gradients_against_finite_differences(name, size):
    torch.manual_seed(1)
    maps = (0.2 + torch.rand(2, 8, 8, dtype=torch.float64)).requires_grad_()
    masks = torch.rand(2, *size, dtype=torch.float64)
    criterion = ALL[name](reduction="none")
    assert torch.autograd.gradcheck(lambda m: criterion(m, masks), maps)


def test_closed_forms():
    """d/dA with S the sum and P the peak of a map at the size of its annotation."""
    torch.manual_seed(0)
    raw, s = torch.rand(1, 6, 6, dtype=torch.float64, requires_grad=True), random_mask(1, 6)
    a = raw.detach()
    total, peak, top = a.sum(), a.max(), (a == a.max()).double()
    share, unit = a / total, a / peak
    m, q = (share * (1 - s)).sum(), (share * (1 - s)).square().sum()
    sign = torch.sign(unit - s)
    closed = {
        "outside": 2 / total * (share * (1 - s) ** 2 - q),
        "energy": (1 - s - m) / total,
        "l1": 2 * (1 - s - m) / total,
        "l2": 2 * (1 - s - m) / total + 2 / total * (share - share.square().sum()),
        "gradia": (sign - top * (sign * unit).sum()) / peak / 36,
        "ppce": -s / a / s.sum() + top / peak,
        "rrr": 2 * a * (1 - s) ** 2,
        "rrr*": 2 / peak * (unit * (1 - s) ** 2 - top * (unit * (1 - s)).square().sum()),
        "attention": 2 / 36 * (a - s),
    }
    for name, expected in closed.items():
        (found,) = torch.autograd.grad(ALL[name](weights=[1.0])(raw, s), raw)
        torch.testing.assert_close(found, expected, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("name", G.FAMILY)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dead_maps_are_finite_free_and_counted(name, dtype):
    maps = [m.to(dtype) for m in random_maps()]
    maps[0][1:], maps[2][:] = 0, 0
    maps = [m.requires_grad_() for m in maps]
    focus = G.FAMILY[name]().look(maps, random_mask())
    found = torch.autograd.grad(focus.loss, maps)
    assert all(g.isfinite().all() for g in found) and found[0][1:].abs().max() == 0 and found[2].abs().max() == 0
    torch.testing.assert_close(focus.dead, torch.tensor([2 / 3, 0, 1.0]))
    assert focus.layers[2] == 0 and focus.layers[1] > 0


@pytest.mark.parametrize("name", ["outside", "energy", "l1", "l2", "gradia", "ppce", "rrr*"])
def test_the_scale_of_a_map_does_not_matter(name):
    maps, masks = random_maps()[0], random_mask(3, 8)
    found = [G.FAMILY[name]()(factor * maps, masks).item() for factor in (1, 1e-6, 1e6)]
    assert found[1:] == pytest.approx(found[:1] * 2, rel=1e-9)
    assert G.RRR()(10 * maps, masks).item() == pytest.approx(100 * G.RRR()(maps, masks).item())


# --- signs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_signed_maps_are_refused_cut_or_meant(name):
    maps, masks = random_maps()[0] - 0.3, random_mask(3, 8)
    kind = ALL[name]
    if name.startswith("rrr"):
        torch.testing.assert_close(kind()(maps, masks), kind()(-maps, masks))
    else:
        with pytest.raises(ValueError, match=r"maps must be >= 0 for .*, got values down to -0.3.*relu=True cuts"):
            kind()(maps, masks)
    torch.testing.assert_close(kind(relu=True)(maps, masks), kind()(maps.relu(), masks))


def test_reff_refuses_signed_maps_too():
    with pytest.raises(ValueError, match="relu=True"):
        focusing_loss(-random_maps()[0], random_mask(3, 8))


# --- one line: any map under any penalty ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", G.FAMILY)
def test_any_map_under_any_penalty(name):
    net, batch = problem()
    head, features = net.head, net.features(batch.images)
    cam = class_activation_map(features, head.weight, classes=batch.labels)
    several = grad_cam(net, batch.images, batch.labels, LAYERS, create_graph=True).maps
    penalty = partial(G.FAMILY[name], relu=True)
    for loss in (penalty()(cam, batch.masks), penalty()(several, batch.masks)):
        assert loss.ndim == 0 and gradients(net, loss)["head.weight"].abs().max() > 0
    each = penalty(reduction="none")(several, batch.masks)
    assert each.shape == (4,)
    torch.testing.assert_close(penalty(reduction="sum")(several, batch.masks), each.sum())
    torch.testing.assert_close(penalty()(several, batch.masks), each.mean())


@pytest.mark.parametrize("penalty", [*G.FAMILY, G.RRR(peak=True), G.L1(weights=(1.0, 2.0, 3.0, 4.0))])
def test_reff_takes_every_member_of_the_family(penalty):
    net, batch = problem()
    method = ReFF(net, LAYERS, penalty=penalty, balance=2.0)
    (terms,) = method.losses(batch, Clock())
    torch.testing.assert_close(terms["total"].detach(), terms["classification"] + 2 * terms["focusing"])
    torch.testing.assert_close(
        terms["focusing"], focusing_loss(method.cams(batch, "keep").maps, batch.masks, None, penalty).loss.detach()
    )
    assert not [name for name in method.state_dict() if "criterion" in name]  # a checkpoint holds what it held


def test_layers_have_weights():
    maps, masks = random_maps(), random_mask()
    one = [G.Energy()(m, masks) for m in maps]
    torch.testing.assert_close(G.Energy()(maps, masks), sum(one))
    torch.testing.assert_close(G.Energy(weights=(1, 0, 3))(maps, masks), one[0] + 3 * one[2])
    torch.testing.assert_close(G.RelevantFocus()(maps[1], masks), 16 * G.RelevantFocus(weights=[1])(maps[1], masks))
    assert isinstance(G.Energy().look(maps, masks), Focus)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: G.Energy(reduction="max"), "reduction must be one of mean, sum, none, got 'max'"),
        (lambda: G.Energy()(torch.zeros(2, 4), torch.zeros(2, 4, 4)), r"maps must be one or more \[B, h, w\]"),
        (lambda: G.Energy()(torch.zeros(2, 4, 4), torch.zeros(4, 4)), r"masks must be \[2, H, W\], got \(4, 4\)"),
        (lambda: G.Energy()(torch.zeros(1, 4, 4), torch.full((1, 4, 4), 2.0)), r"masks must lie in \[0, 1\]"),
        (lambda: G.Energy(weights=(1, 2))(torch.zeros(1, 4, 4), torch.zeros(1, 4, 4)), "weights must hold one number"),
        (lambda: G.as_criterion("energie"), "penalty must be one of outside, energy, .* got 'energie'"),
        (lambda: G.as_criterion(G.Energy(), (1, 2)), "weights must be given to the criterion itself"),
        (lambda: ReFF(problem()[0], LAYERS, penalty=G.Energy(reduction="none")), "reduction must be mean or sum"),
        (lambda: G.right_reasons(*[torch.zeros(1, 1, 2, 2)] * 2, torch.zeros(1, 2, 2)), "images must require a grad"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_criteria_are_modules_that_say_what_they_are():
    assert str(G.RRR(peak=True)) == "RRR(weights=None, relu=False, reduction='mean', peak=True)"
    assert str(copy.deepcopy(G.Energy(weights=(1.0,)))) == "Energy(weights=(1.0,), relu=False, reduction='mean')"
    assert not list(G.Energy().parameters())


def test_of_the_maps_enlarged_to_the_image_none_is_kept_for_the_backward_pass():
    kept, maps = [], torch.rand(2, 4, 4, requires_grad=True)
    masks = torch.rand(2, 64, 64) > 0.5
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: kept.append(t.numel() * t.is_floating_point()) or t, lambda t: t
    ):
        loss = G.Energy()(maps, masks)
    assert not [numbers for numbers in kept if numbers >= masks.numel()]
    (slope,) = torch.autograd.grad(loss, maps)
    assert slope.any()


def test_peaks_keep_their_sign_and_their_place():
    maps = torch.tensor([[[1.0, -4.0], [2.0, 0.0]]])
    scaled, dead = peak_maps(maps, (2, 2))
    assert scaled.tolist() == [[[0.25, -1.0], [0.5, 0.0]]] and dead.tolist() == [False]
