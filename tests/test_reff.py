"""ReFF: every equation against autograd, finite differences or a slow loop; the escapes; the silent traps."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from reff_cases import random_maps, random_mask

from xai_course.methods.explanation_loss import normalised_shares, squared_strides
from xai_course.methods.guidance import Energy, MatchingL1, MatchingL2, RelevantFocus
from xai_course.methods.reff import PAPER_WEIGHTS, focusing_loss

seeds = st.integers(0, 10_000)
# of maps that are shares already, one number for each image
each = {"weights": [1.0], "reduction": "none"}
outside_norm, outside_mass = RelevantFocus(**each), Energy(**each)
matching_l1, matching_l2 = MatchingL1(**each), MatchingL2(**each)


# --- Eq. 3: the loss as a function of the maps ------------------------------------------------------------------------


def loop_loss(maps, relevant, weights) -> float:
    """Eq. 3 pixel by pixel."""
    total = 0.0
    for layer, weight in zip(maps, weights):
        full = F.interpolate(layer[:, None], relevant.shape[1:], mode="bilinear", align_corners=False)[:, 0]
        for image, s in zip(full, relevant):
            mass = sum(image.flatten().tolist())
            for value, inside in zip(image.flatten().tolist(), s.flatten().tolist()):
                total += weight * (value / mass * (1 - inside)) ** 2 / len(full) if mass > 0 else 0.0
    return total


@given(seeds, st.integers(1, 4))
@settings(max_examples=10, deadline=None, derandomize=True)
def test_eq3_equals_the_loop(seed, batch):
    torch.manual_seed(seed)
    maps, relevant = random_maps(batch), torch.rand(batch, 16, 16, dtype=torch.float64)
    maps[1][0] = 0  # a dead map among living ones
    loss = focusing_loss(maps, relevant, weights=(2.0, 0.5, 7.0)).loss
    assert loss.item() == pytest.approx(loop_loss(maps, relevant, (2.0, 0.5, 7.0)), rel=1e-12)


def test_shares_sum_to_one_after_resizing():
    maps = random_maps()[2] * 1e-9  # a small scale catches an added epsilon
    share, dead = normalised_shares(maps.float(), (16, 16))
    torch.testing.assert_close(share.sum((1, 2)), torch.ones(3), atol=1e-6, rtol=0)
    assert not dead.any()


@given(seeds)
@settings(max_examples=10, deadline=None, derandomize=True)
def test_inside_the_object_costs_nothing(seed):
    torch.manual_seed(seed)
    relevant = torch.zeros(2, 8, 8, dtype=torch.float64)
    relevant[:, 2:6, 2:6] = 1
    inside = (torch.rand(2, 8, 8, dtype=torch.float64) * relevant).requires_grad_()
    for penalty in ("outside", "energy"):
        loss = focusing_loss([inside], relevant, penalty=penalty).loss
        assert loss.item() == 0
    outside = focusing_loss([inside], relevant).loss
    assert torch.autograd.grad(outside, inside)[0].abs().max() == 0


def test_everything_relevant_costs_nothing():
    maps = [m.requires_grad_() for m in random_maps()]
    for penalty in ("outside", "energy"):
        loss = focusing_loss(maps, torch.ones(3, 16, 16, dtype=torch.float64), penalty=penalty).loss
        assert loss.item() == 0 and all(g.abs().max() == 0 for g in torch.autograd.grad(loss, maps))


@pytest.mark.parametrize("penalty", ["outside", "energy", "l1", "l2"])
def test_dead_maps_are_free_and_counted(penalty):
    maps = random_maps()
    maps[0][1:], maps[2][:] = 0, 0
    maps = [m.requires_grad_() for m in maps]
    focus = focusing_loss(maps, random_mask(), penalty=penalty)
    found = torch.autograd.grad(focus.loss, maps)
    assert all(g.isfinite().all() for g in found) and found[0][1:].abs().max() == 0 and found[2].abs().max() == 0
    torch.testing.assert_close(focus.dead, torch.tensor([2 / 3, 0, 1.0]))
    assert focus.layers[2] == 0 and focus.layers[1] > 0


def test_without_the_floor_a_dead_map_is_nan():
    dead = torch.zeros(1, 2, 2)
    assert (dead / dead.sum()).isnan().all()


@given(seeds)
@settings(max_examples=10, deadline=None, derandomize=True)
def test_layers_add_up(seed):
    torch.manual_seed(seed)
    maps, relevant, weights = random_maps(), random_mask(), torch.rand(3, dtype=torch.float64).tolist()
    single = [focusing_loss(maps, relevant, [float(i == k) for i in range(3)]).loss for k in range(3)]
    expected = sum(w * term for w, term in zip(weights, single))
    torch.testing.assert_close(focusing_loss(maps, relevant, weights).loss, expected, rtol=1e-12, atol=0)


def test_a_larger_object_never_costs_more():
    torch.manual_seed(0)
    maps, costs = random_maps(), []
    for edge in range(9):
        relevant = torch.zeros(3, 16, 16, dtype=torch.float64)
        relevant[:, 8 - edge : 8 + edge, 8 - edge : 8 + edge] = 1
        costs.append([focusing_loss(maps, relevant, penalty=p).loss.item() for p in ("outside", "energy")])
    assert all(a >= b for before, after in pairwise(costs) for a, b in zip(before, after))
    assert costs[-1] == [0, 0]


def test_each_layer_term_is_at_most_its_largest_share():
    maps, relevant = random_maps(), random_mask()
    bounds = [normalised_shares(m, (16, 16))[0].amax((1, 2)).mean() for m in maps]
    assert (focusing_loss(maps, relevant).layers <= torch.stack(bounds)).all()


def test_half_relevant_keeps_a_quarter_of_the_penalty():
    maps, none = random_maps(), torch.zeros(3, 16, 16, dtype=torch.float64)
    quarter = focusing_loss(maps, none + 0.5).loss / focusing_loss(maps, none).loss
    half = focusing_loss(maps, none + 0.5, penalty="energy").loss / focusing_loss(maps, none, penalty="energy").loss
    assert quarter.item() == pytest.approx(0.25) and half.item() == pytest.approx(0.5)


# --- what the norms mean ----------------------------------------------------------------------------------------------


@given(seeds)
@settings(max_examples=20, deadline=None, derandomize=True)
def test_l1_and_l2_are_constants_plus_twice_the_mass(seed):
    torch.manual_seed(seed)
    relevant, (share, _) = random_mask(), normalised_shares(random_maps()[1], (16, 16))
    area, mass = relevant.sum((1, 2)), outside_mass(share, relevant)
    torch.testing.assert_close(matching_l1(share, relevant), area - 1 + 2 * mass, rtol=0, atol=1e-10)
    squared = share.square().sum((1, 2))
    torch.testing.assert_close(matching_l2(share, relevant), area - 2 + 2 * mass + squared, rtol=0, atol=1e-10)


@given(seeds, st.sampled_from([1, 2, 4, 8]))
@settings(max_examples=10, deadline=None, derandomize=True)
def test_squared_stride_undoes_nearest_upsampling(seed, stride):
    torch.manual_seed(seed)
    native = torch.rand(2, 4, 4, dtype=torch.float64)
    nearest = native.repeat_interleave(stride, 1).repeat_interleave(stride, 2)
    share, _ = normalised_shares(nearest, (4 * stride, 4 * stride))
    (weight,) = squared_strides([native], (4 * stride, 4 * stride))
    expected = (native / native.sum((1, 2), keepdim=True)).square().sum((1, 2))
    torch.testing.assert_close(weight * outside_norm(share, torch.zeros_like(share)), expected, rtol=1e-12, atol=0)


def test_paper_weights_are_squared_strides():
    maps = [torch.zeros(1, n, n) for n in (56, 28, 14, 7)]
    strides = squared_strides(maps, (224, 224))
    assert squared_strides([torch.zeros(1, 7, 14)], (28, 56)) == [16.0]
    assert strides == [16, 64, 256, 1024] and all(
        abs(paper / own - 1) < 0.07 for paper, own in zip(PAPER_WEIGHTS, strides)
    )


@pytest.mark.parametrize("penalty", ["outside", "energy", "l1", "l2"])
def test_default_weights_are_squared_strides_except_for_the_mass(penalty):
    maps, masks = random_maps(), random_mask()
    weights = [1, 1, 1] if penalty == "energy" else [4, 16, 64]
    assert torch.equal(
        focusing_loss(maps, masks, None, penalty).loss, focusing_loss(maps, masks, weights, penalty).loss
    )


def test_a_single_map_needs_no_list():
    maps, masks = random_maps()[0], random_mask()
    assert torch.equal(focusing_loss(maps, masks).loss, focusing_loss([maps], masks).loss)


@given(seeds)
@settings(max_examples=20, deadline=None, derandomize=True)
def test_forces_of_the_two_penalties(seed):
    """d/dI of both, in closed form: the proposition of the chapter. S is the map's sum."""
    torch.manual_seed(seed)
    raw, s = torch.rand(1, 6, 6, dtype=torch.float64, requires_grad=True), random_mask(1, 6)
    share, _ = normalised_shares(raw, (6, 6))
    total, norm, mass = raw.detach().sum(), outside_norm(share, s), outside_mass(share, s)
    (pull,) = torch.autograd.grad(norm, raw, retain_graph=True)
    torch.testing.assert_close(pull, 2 / total * (share * (1 - s).square() - norm).detach())
    (pull,) = torch.autograd.grad(mass, raw)
    torch.testing.assert_close(pull, 1 / total * (1 - s - mass).detach())


@given(seeds)
@settings(max_examples=20, deadline=None, derandomize=True)
def test_squared_norm_is_mass_squared_over_spread(seed):
    torch.manual_seed(seed)
    s, (share, _) = random_mask(), normalised_shares(random_maps()[0], (16, 16))
    outside = share * (1 - s)
    spread = outside.sum((1, 2)).square() / outside.square().sum((1, 2))
    torch.testing.assert_close(outside_norm(share, s), outside_mass(share, s).square() / spread)
    assert (spread <= (s == 0).sum((1, 2)) + 1e-9).all() and (spread >= 1 - 1e-9).all()


def test_the_squared_norm_prefers_all_wrong_to_half_right():
    """A diffuse map with everything outside costs less than half of it in one outside spot; the mass disagrees."""
    s = torch.zeros(1, 7, 7)
    s[:, 2:5, 2:5] = 1
    diffuse, half = (1 - s) / 40, torch.zeros(1, 7, 7)
    half[0, 3, 3], half[0, 0, 0] = 0.5, 0.5
    assert outside_norm(diffuse, s).item() == pytest.approx(1 / 40) and outside_norm(half, s).item() == 0.25
    assert outside_mass(diffuse, s).item() == pytest.approx(1) and outside_mass(half, s).item() == 0.5
