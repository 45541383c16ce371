"""Patch measures by hand-made boxes, and the dummies that every score is read beside."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F

from xai_course.data.batch import ArrayData, Splits
from xai_course.measure.multilabel import mean_average_precision
from xai_course.measure.patches import (
    Patches,
    best_weight_level,
    box_ap,
    hull,
    look_at_patches,
    object_boxes,
    patch_counts,
    patch_hits,
    patch_measures,
    patch_scores,
    patches_inside,
    trivial_selections,
)
from xai_course.methods.loss_attention import Attended
from xai_course.methods.patch_heads import LossAttention, MeanPooling
from xai_course.nets.patch_nets import patch_net

GRID = patch_net("small", 2, seed=0).boxes((32, 32))


def box(*corners: int) -> torch.Tensor:
    return torch.tensor([[corners]])


def test_whole_image_holds_every_patch():
    assert patches_inside(GRID, box(0, 0, 32, 32)).all()
    grid = hull(torch.ones(1, 36, dtype=torch.bool), GRID)
    assert grid.tolist() == [[0, 0, 29, 29]]
    assert box_ap(grid, box(0, 0, 32, 32)) == 1  # IoU 29^2 / 32^2 = .821


def test_a_corner_box_holds_four_patches():
    inside = patches_inside(GRID, box(0, 0, 12, 12))
    assert inside.nonzero()[:, 1].tolist() == [0, 1, 6, 7]
    around = hull(inside, GRID)
    assert around.tolist() == [[0, 0, 13, 13]]
    assert box_ap(around, box(0, 0, 12, 12), overlap=0.85) == 1  # 144 / 169 = .852
    assert box_ap(around, box(0, 0, 12, 12), overlap=0.853) == 0
    assert patches_inside(GRID, box(0, 0, 13, 13)).sum() == 8  # 5/9 of the third row is inside


def test_half_is_not_more_than_half():
    patch = torch.tensor([[0, 0, 10, 10]])
    assert not patches_inside(patch, box(0, 0, 10, 5)).any()
    assert patches_inside(patch, box(0, 0, 10, 6)).all()
    assert not patches_inside(patch, torch.tensor([[[0, 0, 10, 4], [0, 6, 10, 10]]])).any()  # one box must hold it


def test_a_box_of_zeros_is_nobody():
    assert not patches_inside(GRID, box(0, 0, 0, 0)).any()
    assert hull(torch.zeros(2, 36, dtype=torch.bool), GRID).tolist() == [[0] * 4] * 2
    assert box_ap(torch.zeros(1, 4), torch.zeros(1, 1, 4)) == 0


def test_ap_is_strict_and_takes_any_object():
    guess = torch.tensor([[0, 0, 10, 10], [0, 0, 10, 10]])
    objects = torch.tensor([[[0, 0, 10, 5], [20, 20, 30, 30]], [[40, 40, 50, 50], [0, 0, 10, 6]]])
    assert box_ap(guess, objects) == 0.5


def test_hits_of_one_and_of_several_labels():
    logits = torch.tensor([[[2.0, 1, -1], [-3, -1, -2]]])
    assert patch_hits(logits, torch.tensor([1])).tolist() == [[False, True]]
    assert patch_hits(logits, torch.tensor([[0.0, 1, 1]])).tolist() == [[True, False]]
    assert patch_hits(logits, torch.zeros(1, 3)).tolist() == [[False, False]]


def test_counts_and_scores_by_hand():
    selected = torch.tensor([[1, 1, 1, 0, 0]]).bool()
    hit = torch.tensor([[1, 1, 0, 1, 0]]).bool()
    inside = torch.tensor([[1, 0, 1, 1, 1]]).bool()
    counts = patch_counts(selected, hit, inside)
    assert counts == {"true": 1, "selected_hit": 2, "selected_inside": 2, "selected": 3, "inside": 4, "patches": 5}
    scores = patch_scores(counts)
    assert scores["precision"] == 1 / 2 and scores["recall"] == 1 / 4 and scores["f"] == pytest.approx(1 / 3)
    assert scores["plain_precision"] == 2 / 3 and scores["plain_recall"] == 1 / 2
    halves = [patch_counts(selected[:, i], hit[:, i], inside[:, i]) for i in (slice(0, 2), slice(2, 5))]
    assert {k: sum(part[k] for part in halves) for k in counts} == counts  # shards add up
    assert set(patch_scores(patch_counts(*[selected & False] * 3)).values()) == {0.0}


def test_printed_f_values_are_harmonic_means():  # Tables IV and V, all but one to the digit
    for precision, recall, f in [(81.85, 13.53, 23.22), (82.67, 29.98, 44.00), (24.88, 71.73, 36.95)]:
        assert round(2 * precision * recall / (precision + recall), 2) == f
    assert round(2 * 22.92 * 99.99 / (22.92 + 99.99), 2) == 37.29  # printed: 37.31


def test_the_all_positive_dummy_has_the_f_of_the_base_rate():
    inside = torch.rand(50, 36, generator=torch.Generator().manual_seed(0)) < 0.229
    everything = torch.ones_like(inside)
    scores = patch_scores(patch_counts(everything, everything, inside))
    base = inside.double().mean().item()
    assert scores["recall"] == 1 and scores["f"] == pytest.approx(2 * base / (1 + base))
    assert abs(2 * 0.2292 / 1.2292 - 0.3731) < 3e-4  # dynamic routing's F on COCO in Table V


def test_trivial_selections_keep_the_count():
    selected = torch.rand(20, 36, generator=torch.Generator().manual_seed(0)) < 0.3
    dummies = trivial_selections(selected, GRID, (32, 32))
    assert dummies["all"].all()
    for name in ("random", "centre"):
        assert torch.equal(dummies[name].sum(1), selected.sum(1))
    four = torch.zeros(1, 36, dtype=torch.bool)
    four[0, :4] = True
    found = trivial_selections(four, GRID, (29, 29))["centre"].nonzero()[:, 1].tolist()
    assert found == [14, 15, 20, 21]
    assert torch.equal(dummies["random"], trivial_selections(selected, GRID, (32, 32))["random"])


def seen_of(weights: torch.Tensor, objects: torch.Tensor) -> Patches:
    return Patches(weights, weights > 0, weights > 0, weights, patches_inside(GRID, objects), objects, GRID, (32, 32))


def test_the_level_is_the_best_one():
    weights = F.one_hot(torch.tensor([0, 14]), 36) + 0.3
    objects = torch.tensor([[[0, 0, 9, 9]], [[8, 8, 17, 17]]])
    weights = weights / weights.sum(1, keepdim=True)
    assert (
        best_weight_level(seen_of(weights, objects)) == 1.0
    )  # below, every patch counts; from there on, only the right one
    assert best_weight_level(seen_of(torch.full((2, 36), 1 / 36), objects)) == 0.0
    ties = torch.where(weights > 0.1, weights, torch.tensor(1 / 36))  # a patch exactly at the level is not selected
    assert best_weight_level(seen_of(ties, objects)) == 1.0


class Told(LossAttention):
    """Weighs and names what the image's red channel shows: a method whose right answer is known."""

    least = 0.5

    def attend(self, images: torch.Tensor) -> Attended:
        red = images[:, 0]
        share = torch.stack([red[:, t:b, l:r].mean((1, 2)) for l, t, r, b in GRID.tolist()], 1)
        weights = (share > self.least).float()
        patches = torch.stack([2 * share - 1, torch.full_like(share, -9)], 2)
        return Attended(patches.amax(1), weights / weights.sum(1, keepdim=True), patches)


def toy_splits(labels: torch.Tensor) -> Splits:
    images, masks = torch.zeros(4, 3, 32, 32), torch.zeros(4, 32, 32, dtype=torch.bool)
    for i, (left, top) in enumerate([(0, 0), (8, 8), (4, 12), (16, 16)]):
        images[i, 0, top : top + 13, left : left + 13] = 1
        masks[i, top : top + 13, left : left + 13] = True
    data = ArrayData(images, labels, masks)
    return Splits("toy", data, data, data, ("a", "b"), "0")


@pytest.mark.parametrize("labels", [torch.zeros(4).long(), torch.tensor([[1.0, 0]] * 4)])
def test_a_perfect_selection_scores_one(labels):
    method = Told(patch_net("small", 2, seed=0))
    found = patch_measures(method, toy_splits(labels))
    if labels.ndim == 1:  # the highest logit: every patch names the only class that has positive ones
        assert found["patch_accuracy"] == 1
    for name in ("precision", "recall", "f", "plain_precision", "plain_recall", "mass", "evidence"):
        assert found[name] == pytest.approx(1), name
    method.least = 0.99  # only patches that lie wholly inside: their hull is the object
    assert patch_measures(method, toy_splits(labels))["ap"] == 1
    assert (
        found["plain_f_all"] < 1
        and found["ap_all"] == 0
        and found["plain_precision_all"] == pytest.approx(found["base"])
    )
    assert found["plain_f_random"] < 0.6


def test_mean_pooling_has_the_base_rate_as_mass():
    splits = toy_splits(torch.zeros(4).long())
    method = MeanPooling(patch_net("small", 2, seed=0)).train()
    found = patch_measures(method, splits)
    assert found["mass"] == pytest.approx(found["base"]) and found["kept"] == 36
    assert found["plain_recall"] == 1 and found["plain_precision"] == pytest.approx(found["base"])
    assert found["recall"] == pytest.approx(found["recall_all"]) and method.training
    field = patch_measures(method, splits, geometry="rf")
    assert field["base"] < found["base"]  # wider patches fill less of themselves with the object


def test_objects_come_from_boxes_or_masks():
    splits = toy_splits(torch.zeros(4).long())
    batch = splits.test.__getitems__([1, 3])
    assert object_boxes(splits.test, batch).tolist() == [[[8, 8, 21, 21]], [[16, 16, 29, 29]]]
    splits.test.boxes = [torch.tensor([[0, 0, 1, 1]])] * 3 + [torch.tensor([[0, 0, 2, 2], [1, 1, 3, 3]])]
    assert object_boxes(splits.test, batch).tolist() == [[[0, 0, 1, 1], [0] * 4], [[0, 0, 2, 2], [1, 1, 3, 3]]]
    bare = ArrayData(torch.zeros(2, 3, 32, 32), torch.zeros(2).long())
    with pytest.raises(ValueError, match="masks must be .* got None"):
        look_at_patches(LossAttention(patch_net("small", 2)), bare)


def eleven_point_map(scores: torch.Tensor, targets: torch.Tensor) -> float:
    """The mean "AP" that the official code prints for COCO; what the page on the differences says of it.

    Recall levels 0, 0.1, ..., 1 take the highest precision found *between* two levels instead of beyond one, a level
    that no image falls on counts as 0, and a class without positives counts as 0 in the mean.
    """
    return float(torch.stack([_eleven_point(s, t) for s, t in zip(scores.T, targets.T)]).mean())


def _eleven_point(scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    right = targets[scores.argsort(descending=True)] > 0
    positives = int(right.sum())
    precision = torch.where(right, right.cumsum(0) / torch.arange(1, len(right) + 1), 0.0)
    marks, found = [0] * 13, 0
    for rank, n in zip(right.nonzero().flatten().tolist(), range(1, positives + 1)):
        recall = torch.tensor(n) / torch.tensor(float(positives))  # float32, as there: decides ties at the levels
        if (0.1 * found < recall < 0.1 * (found + 1) or recall == 1) and found < 11:
            found += 1
            marks[found] = rank
    levels = [  # a level that no image falls on has no later rank than the one before
        precision[b] if b <= a else precision[a:b].amax() for a, b in itertools.pairwise(marks[:12])
    ]
    return torch.stack(levels).mean()


def test_eleven_points_are_not_average_precision():  # D16, agrees with the released routine on random scores
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(1000, 2, generator=generator)
    targets = torch.zeros(1000, 2)
    targets[torch.randperm(1000, generator=generator)[:300], 0] = 1
    one = eleven_point_map(scores[:, :1], targets[:, :1])
    assert abs(one - mean_average_precision(scores[:, :1], targets[:, :1])) > 0.01
    assert eleven_point_map(scores[:, 1:], targets[:, 1:]) == 0  # a class without positives
    assert eleven_point_map(scores, targets) == pytest.approx(one / 2)  # and drags the mean down
    few = torch.zeros(10, 1)
    few[0] = few[1] = 1
    assert eleven_point_map(torch.arange(10.0, 0, -1).unsqueeze(1), few) == pytest.approx(1)
    assert mean_average_precision(torch.arange(10.0, 0, -1).unsqueeze(1), few) == 1
    # two of four right, the first and the last: recall .5 and 1 end two levels, [0, 0] and the ranks 0 to 3; nine stay
    ends = torch.tensor([[1.0], [0.0], [0.0], [1.0]])
    assert eleven_point_map(torch.tensor([[4.0], [3], [2], [1]]), ends) == pytest.approx(1.0)
    hidden = torch.tensor([0.0, 1, 1]).unsqueeze(1)  # two of three right, but not the first: 2 points instead of 11
    assert eleven_point_map(torch.tensor([[3.0], [2], [1]]), hidden) < 0.1
    assert mean_average_precision(torch.tensor([[3.0], [2], [1]]), hidden) > 0.5
