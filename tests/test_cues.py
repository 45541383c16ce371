"""Sets with a shortcut: its strength, where it lies, and masks that are few or wrong."""

from __future__ import annotations

import zipfile

import pytest
import torch

from tests.pack import pack
from xai_course.data import cued_digits, few_masks, on_photographs, spoilt, textured_digits, tinted_photographs
from xai_course.data.cues import Cued, _spots
from xai_course.measure import validation_scores, with_and_without_cue
from xai_course.methods.base import CrossEntropy
from xai_course.nets.convnets import small_cnn

SIZES = (400, 100, 300, 200, 300)


def parts(splits) -> dict[str, Cued]:
    held = splits.validation
    names = ("train", "validation", "broken", "balanced", "test")
    return dict(zip(names, (splits.train, held, held.broken, held.balanced, splits.test)))


def check(splits, classes: int, strength: float, sizes=SIZES) -> None:
    """Sizes, and how often the cue is right in each part."""
    expected = {"train": strength, "validation": strength, "broken": 1 / classes, "balanced": 0.5, "test": 1 / classes}
    for (name, data), size in zip(parts(splits).items(), sizes):
        assert len(data) == size and data.masks.flatten(1).any(1).all()
        share, sd = data.cued.double().mean().item(), (expected[name] * (1 - expected[name]) / size) ** 0.5
        assert abs(share - expected[name]) <= 4 * sd + 1e-9, (name, share)
        assert torch.equal(data.__getitems__([3, 1]).cued, data.cued[[3, 1]])
        assert data.to("cpu").cued is data.cued
    images = [data.images for data in parts(splits).values()]
    seen = {bytes(image.numpy().tobytes()) for part in images for image in part}
    assert len(seen) == sum(sizes)  # no image is in two parts


@pytest.mark.parametrize("strength", [1.0, 0.95])
def test_digits_are_the_textured_digits_with_another_cue_in_each_part(strength):
    splits = cued_digits(SIZES, strength=strength, seed=3, chroma=0.0, q=1.0)
    check(splits, 10, strength)
    if strength == 1:
        same = textured_digits(seed=3, p=0.0, p_test=1.0, q=1.0, chroma=0.0, train=400, validation=100, test=300)
        for ours, theirs in zip(splits[1:4], same[1:4]):
            assert torch.equal(ours.images, theirs.images) and torch.equal(ours.labels, theirs.labels)
    again = cued_digits(SIZES, strength=strength, seed=3, chroma=0.0, q=1.0)
    assert again.fingerprint == splits.fingerprint and torch.equal(again.train.images, splits.train.images)
    others = [cued_digits(SIZES, seed=4, chroma=0.0, q=1.0), cued_digits(SIZES, seed=3, per_class=1, chroma=0.0, q=1.0)]
    assert len({s.fingerprint for s in (splits, *others)}) == 3


def test_few_masks_keep_the_same_number_of_each_class():
    full = cued_digits((300, 2, 2, 2, 2))
    few = cued_digits((300, 2, 2, 2, 2), per_class=2)
    known = ~few.train.masks.flatten(1).all(1)
    assert known.sum() == 20 and few.train.labels[known].bincount().tolist() == [2] * 10
    assert torch.equal(few.train.masks[known], full.train.masks[known])
    assert torch.equal(few.test.masks, full.test.masks)
    other = few_masks(full.train.masks, full.train.labels, 2, seed=1)
    assert not torch.equal(other, few.train.masks)


def test_errors_of_masks():
    masks = torch.zeros(1, 20, 20, dtype=torch.bool)
    masks[0, 5, 5] = masks[0, 8, 9] = True
    assert spoilt(masks, "") is masks
    boxes, wide, moved = (spoilt(masks, error)[0] for error in ("boxes", "dilated", "shifted"))
    assert boxes.nonzero().min(0).values.tolist() == [5, 5] and boxes.sum() == 4 * 5
    assert wide.sum() == 2 * 49 - 4 * 3 and wide[2, 2] and not wide[1, 5]
    assert moved.nonzero().tolist() == [[10, 10], [13, 14]]
    masks[0, 19, 19] = True
    assert spoilt(masks, "shifted").sum() == 2  # what leaves the image is gone
    with pytest.raises(ValueError, match="error must be one of boxes, dilated, shifted or empty, got 'torn'"):
        spoilt(masks, "torn")
    with pytest.raises(ValueError, match=r"strength must be in \[0, 1\], got 1.5"):
        on_a_line(1.5)


def on_a_line(strength: float):
    from xai_course.data.cues import told

    return told(torch.zeros(3, dtype=torch.int64), strength, 10, [0])


@pytest.mark.parametrize("objects", ["garments", "digits"])
def test_objects_on_photographs(objects):
    root = pack("dtd10_192.zip")
    splits = on_photographs(objects, SIZES, root=root, strength=0.95, seed=1)
    check(splits, 10, 0.95)
    other = on_photographs(objects, SIZES, root=root, strength=0.0, seed=1)
    a, b = splits.train, other.train
    assert torch.equal(a.masks, b.masks)  # the same objects at the same places before other backgrounds
    inside = a.masks[:, None].expand_as(a.images)
    assert torch.equal(a.images[inside], b.images[inside]) == (objects in ("garments", "digits"))
    assert not torch.equal(a.images, b.images)
    share = a.masks.float().mean().item()
    assert (0.2 < share < 0.5) if objects == "garments" else (0.05 < share < 0.2)


def test_a_colour_outside_the_box_or_a_spot_inside(tmp_path):
    zipfile.ZipFile(pack("tiny20") / "tiny20" / "tiny-imagenet-200.zip").extractall(tmp_path)
    sizes = (300, 100, 100, 100, 200)
    tinted, spots, plain = (
        tinted_photographs(sizes, root=tmp_path, seed=1, **knobs) for knobs in ({}, {"spot": 6}, {"strength": 0.0})
    )
    check(tinted, 20, 1.0, sizes)
    assert tinted.train.masks.float().mean((1, 2)).max() < 0.6
    inside = tinted.train.masks[:, None].expand_as(tinted.train.images)
    assert torch.equal(tinted.train.images[inside], plain.train.images[inside])
    changed = (spots.train.images != tinted.train.images).any(1)
    assert (changed & spots.train.masks).flatten(1).any(1).float().mean() > 0.95
    for k in range(5):  # images of one class carry one colour outside the box
        rows = (tinted.train.labels == tinted.train.labels[k]).nonzero().flatten()
        gaps = [
            (tinted.train.images[i].float() - plain.train.images[i].float())[:, ~tinted.train.masks[i]].mean(1)
            for i in rows
        ]
        assert torch.stack(gaps).isfinite().all()


def test_a_spot_stays_in_its_box():
    masks = torch.zeros(3, 32, 32, dtype=torch.bool)
    masks[0, 3:20, 10:30] = masks[1, 0:4, 0:3] = masks[2, 26:32, 26:32] = True
    for u in (0.0, 0.5, 0.999):
        spots = _spots(masks, 6, torch.full((3, 2), u).numpy())
        assert not (spots & ~masks).any() and spots.flatten(1).sum(1).tolist() == [36, 12, 36]


def test_measures_look_at_the_parts_they_name():
    splits, method = cued_digits((4, 60, 60, 4, 60)), CrossEntropy(small_cnn(width=2, seed=0))

    def right(data):
        return (method.eval().logits(data.images / 255).argmax(1) == data.labels).double().mean().item()

    assert with_and_without_cue(method, splits) == {
        "accuracy": right(splits.test),
        "accuracy_seen": right(splits.validation),
    }
    assert validation_scores(method, splits) == {
        "accuracy_broken": right(splits.validation.broken),
        "accuracy_seen": right(splits.validation),
    }
