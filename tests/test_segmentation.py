"""F1+ and F1-: against slow sets of pixels, limiting cases, the trivial masks, and the two ways of averaging."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from xai_course.data.batch import ArrayData, Batch, Splits
from xai_course.measure import scores as seg
from xai_course.measure.localising import best_levels, segmentation
from xai_course.measure.looking import look, padded_map
from xai_course.measure.trivial import whole_image


def slow_f1(predicted, truth) -> float:
    p = {(i, j) for i, row in enumerate(predicted.tolist()) for j, on in enumerate(row) if on}
    t = {(i, j) for i, row in enumerate(truth.tolist()) for j, on in enumerate(row) if on}
    return 1.0 if not p and not t else 2 * len(p & t) / (len(p) + len(t))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(0, 10_000), *[st.integers(1, 5)] * 3, *[st.floats(0, 1)] * 2)
def test_f1_equals_sets_of_pixels(seed, images, height, width, p, t):
    generator = torch.Generator().manual_seed(seed)
    predicted = torch.rand(images, height, width, generator=generator) < p
    truth = torch.rand(images, height, width, generator=generator) < t
    slow = torch.tensor([slow_f1(a, b) for a, b in zip(predicted, truth)], dtype=torch.float64)
    assert torch.allclose(seg.f1_foreground(predicted, truth), slow, atol=1e-12)
    assert torch.equal(seg.f1_background(predicted, truth), seg.f1_foreground(~predicted, ~truth))
    assert torch.equal(seg.f1_foreground(predicted, truth), seg.f1_foreground(truth, predicted))


def test_empty_masks_score_one():
    nothing, everything = torch.zeros(1, 3, 3, dtype=torch.bool), torch.ones(1, 3, 3, dtype=torch.bool)
    assert seg.f1_foreground(nothing, nothing) == 1 and seg.f1_background(everything, everything) == 1
    assert seg.f1_foreground(nothing, everything) == 0 == seg.f1_background(nothing, everything)


def squares(areas=(0.1, 0.3, 0.5, 0.9)) -> torch.Tensor:
    truth = torch.zeros(len(areas), 10, 10, dtype=torch.bool)
    for mask, area in zip(truth, areas):
        mask.view(-1)[: round(100 * area)] = True
    return truth


def test_all_ones_reaches_2a_over_1_plus_a():
    truth = squares()
    full = whole_image(truth.unsqueeze(1).float()).bool()
    expected = torch.tensor([2 * a / (1 + a) for a in (0.1, 0.3, 0.5, 0.9)], dtype=torch.float64)
    assert torch.allclose(seg.f1_foreground(full, truth), expected, atol=1e-12)
    assert torch.equal(seg.f1_background(full, truth), torch.zeros(4, dtype=torch.float64))


def test_per_image_and_pooled_differ():
    """Areas .1, .3, .5, .9 under a mask of ones: 56.4 % averaged over images, 62.1 % pooled over pixels."""
    truth = squares()
    full = whole_image(truth.unsqueeze(1).float()).bool()
    assert round(100 * float(seg.f1_foreground(full, truth).mean()), 1) == 56.4
    plus, minus = seg.f1_pooled(full, truth)
    assert round(100 * plus, 1) == 62.1 and minus == 0


def test_padded_map_crops_back():
    images = torch.rand(2, 3, 20, 37)
    seen = []

    def explain(padded):
        seen.append(padded.shape)
        return padded[:, 0]

    assert torch.equal(padded_map(explain, images, 16), images[:, 0])
    assert seen[0][-2:] == (32, 48)


class Fixed(nn.Module):
    """Its map is the image's red channel; its prediction the brightest corner pixel of the rest."""

    def logits(self, images):
        return images[:, 1:, 0, 0]

    def explain(self, images, classes):
        assert not self.training
        return images[:, 0]


def test_level_chosen_where_it_is_right():
    truth = torch.zeros(4, 8, 8, dtype=torch.bool)
    truth[:, 2:6, 2:6] = True
    images = torch.zeros(4, 3, 8, 8)
    images[:, 0] = torch.where(truth, 0.4, 0.2)
    data, method = ArrayData(images, torch.zeros(4, dtype=torch.int64), truth), Fixed()
    seen = [({"": s.maps}, s.masks) for s in look(method, data, size=3)]
    assert best_levels(seen, ["f1"], "absolute", (0.1, 0.3, 0.5)) == {("f1", ""): 0.3}
    assert method.training
    found = segmentation(method, Splits("toy", data, data, data, ("a", "b"), ""), size=3)
    assert found["chosen_plus"] == found["chosen_minus"] == found["chosen_mean"] == 1 and found["chosen_level"] == 0.25
    assert found["f1_plus"] == 0 == found["area"] and found["f1_minus"] == pytest.approx(2 * 48 / (48 + 64))
    assert found["f1_mean"] == pytest.approx(found["f1_minus"] / 2)
    assert found["accuracy"] == 1 and found["error"] == 0 and found["pooled_plus"] == 0


class Heights:
    """Two images of one width and two heights, one in a batch."""

    def __len__(self):
        return 2

    def __getitems__(self, index):
        (i,) = index
        masks = torch.zeros(1, 4 + 4 * i, 8, dtype=torch.bool)
        masks[:, 1:3] = True
        return Batch(0.6 * masks.unsqueeze(1).expand(-1, 3, -1, -1), torch.tensor([0]), masks, torch.tensor([i]))


def test_pixels_of_images_of_two_sizes_are_not_pooled():
    data = Heights()
    found = segmentation(Fixed(), Splits("toy", data, data, data, ("a", "b"), ""), size=1)
    assert found["f1_plus"] == 1 and "pooled_plus" not in found


NONE = torch.zeros(1, 2, 2, dtype=torch.bool)
BARE = ArrayData(torch.rand(2, 3, 4, 4), torch.zeros(2, dtype=torch.int64))


@pytest.mark.parametrize(
    "call, match",
    [
        (lambda: seg.f1_foreground(NONE, NONE[:, :1]), "both be"),
        (lambda: seg.f1_foreground(torch.rand(1, 2, 2), NONE), "bool"),
        (lambda: seg.thresholded(torch.rand(1, 2, 2), 1.5, "absolute"), "level"),
        (lambda: padded_map(lambda x: x[:, 0], torch.rand(1, 3, 5, 40), 32), "too small"),
        (lambda: segmentation(Fixed(), Splits("toy", BARE, BARE, BARE, ("a",), "")), "masks"),
    ],
)
def test_bad_input(call, match):
    with pytest.raises(ValueError, match=match):
        call()
