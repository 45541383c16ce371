"""Label noise and boxes against their definitions; the batch, and what it refuses."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xai_course.data import (
    ArrayData,
    Splits,
    asymmetric_noise,
    batches,
    box_iou,
    boxes_to_masks,
    fingerprint,
    masks_to_boxes,
    symmetric_noise,
    with_label_noise,
)


def close(share: float, expected: float, n: int) -> bool:
    return abs(share - expected) <= 4 * math.sqrt(expected * (1 - expected) / n) + 1e-9


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**40), rate=st.floats(0, 1), classes=st.integers(1, 20), count=st.integers(0, 60))
def test_noise_is_reproducible_row_by_row_and_reports_what_it_changed(seed, rate, classes, count):
    labels = torch.arange(80) % classes
    for noise in (symmetric_noise, asymmetric_noise):
        few, many = noise(labels[:count], rate, classes, seed=seed), noise(labels, rate, classes, seed=seed)
        assert torch.equal(few.labels, many.labels[:count])
        assert torch.equal(many.corrupted, many.labels != labels)
        assert many.labels.dtype == torch.int64 and many.labels.min() >= 0 and many.labels.max() < classes


@pytest.mark.parametrize("rate", [0.0, 0.2, 0.6, 1.0])
@pytest.mark.parametrize("classes", [2, 10, 100])
def test_rates(rate, classes):
    n, labels = 20_000, torch.arange(20_000) % classes
    uniform = symmetric_noise(labels, rate, classes, seed=1)
    assert close(uniform.corrupted.float().mean().item(), rate * (1 - 1 / classes), n)
    circular = asymmetric_noise(labels, rate, classes, seed=1)
    assert close(circular.corrupted.float().mean().item(), rate, n)
    assert torch.equal(circular.labels[circular.corrupted], (labels[circular.corrupted] + 1) % classes)


def test_all_classes_are_drawn_evenly():
    drawn = torch.bincount(symmetric_noise(torch.full((30_000,), 3), 1.0, 6, seed=2).labels, minlength=6)
    assert all(close(count / 30_000, 1 / 6, 30_000) for count in drawn.tolist())


def test_multi_label_noise_flips_entries():
    labels = torch.zeros(5000, 8)
    noisy = symmetric_noise(labels, 0.4, 8, seed=1)
    assert close(noisy.labels.mean().item(), 0.2, 40_000)
    assert torch.equal(noisy.corrupted, noisy.labels.any(1))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda y: symmetric_noise(y, 1.2, 4), "rate must be in"),
        (lambda y: symmetric_noise(y, 0.5, 3), r"labels must be in \[0, 3\)"),
        (lambda y: symmetric_noise(y.float(), 0.5, 4), "labels must be"),
        (lambda y: symmetric_noise(torch.full((2, 4), 0.5), 0.5, 4), "labels must be"),
        (lambda y: asymmetric_noise(torch.zeros(2, 4), 0.5, 4), "labels must be"),
    ],
)
def test_bad_noise_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(torch.arange(8) % 4)


def toy_splits(n: int = 400) -> Splits:
    def part(k: int) -> ArrayData:
        return ArrayData(torch.full((n, 1, 2, 2), k, dtype=torch.uint8), torch.arange(n) % 4)

    return Splits("toy", part(0), part(1), part(2), tuple("abcd"), fingerprint("toy"))


@pytest.mark.parametrize("kind", ["symmetric", "asymmetric"])
def test_splits_with_noise_leave_the_test_set_and_the_given_splits_alone(kind):
    clean = toy_splits()
    noisy = with_label_noise(clean, 0.5, kind=kind, seed=4)
    assert noisy.test is clean.test and torch.equal(clean.train.labels, torch.arange(400) % 4)
    for before, after in zip(clean[1:3], noisy[1:3]):
        assert torch.equal(after.corrupted, after.labels != before.labels) and after.corrupted.any()
    assert not torch.equal(noisy.train.corrupted, noisy.validation.corrupted)
    assert len({clean.fingerprint, noisy.fingerprint, with_label_noise(clean, 0.5, kind=kind).fingerprint}) == 3


def test_noise_on_splits_refuses_nonsense():
    with pytest.raises(ValueError, match="kind must be"):
        with_label_noise(toy_splits(), 0.5, kind="random")
    with pytest.raises(ValueError, match="ArrayData"):
        with_label_noise(toy_splits()._replace(train=[1, 2]), 0.5)


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_boxes_to_masks_and_back(data):
    height, width = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 12))
    x = sorted(data.draw(st.tuples(st.integers(0, width), st.integers(0, width))))
    y = sorted(data.draw(st.tuples(st.integers(0, height), st.integers(0, height))))
    mask = boxes_to_masks(torch.tensor([[x[0], y[0], x[1], y[1]]]), height, width)[0]
    expected = torch.zeros(height, width, dtype=torch.bool)
    expected[y[0] : y[1], x[0] : x[1]] = True
    assert torch.equal(mask, expected)
    empty = x[0] == x[1] or y[0] == y[1]
    assert masks_to_boxes(mask[None])[0].tolist() == ([0, 0, 0, 0] if empty else [x[0], y[0], x[1], y[1]])


def test_masks_to_boxes_against_a_loop():
    masks = torch.rand(40, 7, 9, generator=torch.Generator().manual_seed(0)) > 0.9
    masks[0] = False
    for mask, box in zip(masks, masks_to_boxes(masks).tolist()):
        rows, columns = torch.nonzero(mask, as_tuple=True)
        expected = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] if len(rows) else [0] * 4
        assert box == [int(value) for value in expected]
    assert masks_to_boxes(torch.zeros(0, 4, 4, dtype=torch.bool)).shape == (0, 4)


def test_boxes_outside_and_between_pixels():
    mask = boxes_to_masks(torch.tensor([[-5.0, -5.0, 1.6, 99.0]]), 3, 4)[0]
    assert mask.tolist() == [[True, True, False, False]] * 3  # centres at 0.5 and 1.5 are inside, 2.5 is not


def test_iou_against_counting_pixels():
    generator = torch.Generator().manual_seed(1)
    corners = torch.randint(0, 12, (20, 2, 2), generator=generator).sort(dim=1).values
    boxes = corners.flatten(1)
    masks = boxes_to_masks(boxes, 12, 12).flatten(1).float()
    shared = masks @ masks.T
    union = masks.sum(1)[:, None] + masks.sum(1)[None] - shared
    expected = torch.where(union > 0, shared / union.clamp_min(1), 0.0)
    torch.testing.assert_close(box_iou(boxes, boxes), expected)
    assert box_iou(boxes[:0], boxes).shape == (0, 20)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: masks_to_boxes(torch.zeros(2, 3, 3)), "masks must be"),
        (lambda: masks_to_boxes(torch.zeros(3, 3, dtype=torch.bool)), "masks must be"),
        (lambda: boxes_to_masks(torch.zeros(2, 5), 3, 3), "boxes must be"),
        (lambda: boxes_to_masks(torch.tensor([[3, 0, 1, 2]]), 3, 3), "x1 >= x0"),
        (lambda: box_iou(torch.zeros(1, 4), torch.zeros(4)), "others must be"),
    ],
)
def test_bad_boxes_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_batches_of_an_array():
    images = torch.arange(5, dtype=torch.uint8).view(5, 1, 1, 1).expand(5, 3, 2, 2).contiguous() * 51
    data = ArrayData(images, torch.arange(5), torch.ones(5, 2, 2, dtype=torch.bool))
    parts = list(batches(data, 2))
    assert [len(part.labels) for part in parts] == [2, 2, 1]
    batch = data.__getitems__([4, 0, 4])
    assert batch.images.dtype == torch.float32 and batch.images[:, 0, 0, 0].tolist() == pytest.approx([0.8, 0.0, 0.8])
    assert batch.index.tolist() == [4, 0, 4] and batch.masks.dtype == torch.bool
    empty = data.__getitems__([])
    assert empty.images.shape == (0, 3, 2, 2) and empty.labels.shape == (0,)
    assert ArrayData(images, torch.arange(5)).__getitems__([1]).masks is None


@pytest.mark.parametrize(
    ("images", "labels", "masks", "name"),
    [
        (torch.zeros(2, 3, 4), torch.zeros(2).long(), None, "images"),
        (torch.zeros(2, 1, 3, 3).double(), torch.zeros(2).long(), None, "images"),
        (torch.zeros(2, 1, 3, 3), torch.zeros(3).long(), None, "labels"),
        (torch.zeros(2, 1, 3, 3), torch.zeros(2), None, "labels"),
        (torch.zeros(2, 1, 3, 3), torch.zeros(2, 4).long(), None, "labels"),
        (torch.zeros(2, 1, 3, 3), torch.zeros(2).long(), torch.zeros(2, 3, 3), "masks"),
        (torch.zeros(2, 1, 3, 3), torch.zeros(2).long(), torch.zeros(2, 3, 4, dtype=torch.bool), "masks"),
    ],
)
def test_arrays_that_disagree_are_refused(images, labels, masks, name):
    with pytest.raises(ValueError, match=f"^{name} must be.*got"):
        ArrayData(images, labels, masks)


def test_fingerprint_changes_with_every_part():
    base = (torch.arange(4), b"bytes", "text", 1.0)
    prints = {fingerprint(*base), fingerprint(*base[:3], 2.0), fingerprint(torch.arange(1, 5), *base[1:])}
    assert len(prints) == 3 and fingerprint(*base) in prints and len(fingerprint()) == 16
