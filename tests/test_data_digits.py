"""Textured Digits: reproducible by index, disjoint between the splits, and exactly as its knobs say."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xai_course.data import DataError, masks_to_boxes, textured_digits, textures
from xai_course.data.textured_digits import (
    BACKGROUND_CLASSES,
    CHUNK,
    DIGIT_CLASSES,
    Knobs,
    TexturedDigits,
    _digit_pool,
    render,
)

TINY = {"train": 20, "validation": 8, "test": 8}


def same(a: TexturedDigits, b: TexturedDigits, count: int) -> bool:
    return all(torch.equal(getattr(a, key)[:count], getattr(b, key)[:count]) for key in ("images", "labels", "masks"))


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 2**31), split=st.integers(0, 2), count=st.integers(1, 2 * CHUNK))
def test_image_i_does_not_depend_on_how_many_are_made(seed, split, count):
    few, many = render(seed, split, count, Knobs()), render(seed, split, 2 * CHUNK, Knobs())
    assert len(few) == count
    assert same(few, many, count)


def test_every_seed_and_split_is_another_set():
    sets = [render(seed, split, 40, Knobs()).images for seed in (0, 1) for split in (0, 1, 2)]
    assert all(not torch.equal(a, b) for i, a in enumerate(sets) for b in sets[:i])


def test_the_number_of_threads_changes_no_byte():
    threads, before = torch.get_num_threads(), render(3, 1, 150, Knobs())
    try:
        torch.set_num_threads(3 - min(threads, 2))
        assert same(before, render(3, 1, 150, Knobs()), 150)
    finally:
        torch.set_num_threads(threads)


def test_no_handwritten_digit_is_in_two_splits():
    pools = [set(_digit_pool(split).ravel().tolist()) for split in range(3)]
    assert [len(pool) for pool in pools] == [1040, 260, 440]
    assert not (pools[0] & pools[1] or pools[0] & pools[2] or pools[1] & pools[2])
    made = render(0, 2, 300, Knobs())
    assert set(made.sources.ravel().tolist()) <= pools[2]


@pytest.mark.parametrize("shape", [(200, 90), (90, 200)])
def test_no_pixel_of_a_photo_is_in_two_splits(monkeypatch, shape):
    long = int(shape[1] > shape[0])
    place = np.indices(shape)[long].astype(np.uint8)
    photo = np.stack([place, np.zeros_like(place), np.zeros_like(place)], axis=-1)
    monkeypatch.setattr(textures, "_photo", lambda name: photo)
    _, colour = textures._sheets_of(textures.Texture("rows", "rows", (0, shape[0], 0, shape[1]), 1.0))
    seen = [set(np.rint((sheet[..., 0] - sheet[..., 1]) * 255).astype(int).ravel().tolist()) for sheet in colour]
    assert seen == [set(range(100)), set(range(100, 140)), set(range(140, 200))]


def test_a_package_without_its_photos_is_named(monkeypatch):
    import skimage.data

    def gone():
        raise FileNotFoundError("brick.png")

    monkeypatch.setattr(skimage.data, "brick", gone)
    with pytest.raises(DataError, match="scikit-image has no photo 'brick'.*install it again"):
        textures._photo("brick")


def test_sheets_are_normalised_and_named():
    light, colour = textures.sheets()
    assert light.shape == (3, 20, 128, 128) and colour.shape == (3, 20, 128, 128, 3)
    assert np.abs(light).max() <= 2.5 and 0.5 < light.std() < 1.5 and np.abs(light.mean()) < 0.1
    assert len(set(BACKGROUND_CLASSES + DIGIT_CLASSES)) == 20


@pytest.mark.parametrize("canvas", [32, 64])
@pytest.mark.parametrize("objects", [1, 3])
def test_the_mask_is_the_digit(canvas, objects):
    splits = textured_digits(canvas=canvas, objects=objects, contrast=1.0, amplitude=0.0, chroma=0.0, **TINY)
    for data in splits[1:4]:
        batch = data.__getitems__(range(len(data)))
        assert batch.images.shape == (len(data), 3, canvas, canvas) and batch.images.dtype == torch.float32
        assert torch.equal(batch.images[:, 0] > 0.5, batch.masks)
        assert batch.masks.flatten(1).float().mean(1).min() > 0.01


def test_boxes_are_tight_around_each_digit():
    single = render(0, 0, 60, Knobs())
    assert torch.equal(single.boxes[:, 0], masks_to_boxes(single.masks))
    several = render(0, 0, 60, Knobs(objects=3, digit_size=(14, 16)))
    hull = torch.cat([several.boxes[..., :2].amin(1), several.boxes[..., 2:].amax(1)], dim=1)
    assert torch.equal(hull, masks_to_boxes(several.masks))


@pytest.mark.parametrize("objects", [2, 3])
def test_several_objects_are_different_classes_in_places_of_their_own(objects):
    data = render(1, 0, 200, Knobs(objects=objects, digit_size=(14, 16)))
    assert data.labels.shape == (200, 10) and data.labels.dtype == torch.float32
    assert (data.labels.sum(1) == objects).all()
    assert (data.labels.gather(1, data.digits) == 1).all()
    for k in range(objects):
        for other in range(k):
            shared = torch.minimum(data.boxes[:, k, 2:], data.boxes[:, other, 2:])
            shared = shared - torch.maximum(data.boxes[:, k, :2], data.boxes[:, other, :2])
            assert (shared.amin(1) <= 0).all()


def within(share: float, expected: float, n: int) -> bool:
    return abs(share - expected) <= 4 * math.sqrt(expected * (1 - expected) / n) + 1e-9


@pytest.mark.parametrize("p", [0.0, 0.2, 0.7, 1.0])
def test_p_and_q_are_the_probabilities_of_a_random_texture(p):
    n, q = 1500, 1 - p
    data = render(5, 0, n, Knobs(p=p, q=q))
    assert within((data.backgrounds == data.labels).float().mean().item(), 1 - p + p / 10, n)
    assert within((data.textures == data.digits).float().mean().item(), 1 - q + q / 10, n)
    counts = torch.bincount(data.labels, minlength=10) / n
    assert all(within(share, 0.1, n) for share in counts.tolist())


def test_p_changes_the_background_and_nothing_else():
    cue, none = render(0, 0, 50, Knobs(p=0.0)), render(0, 0, 50, Knobs(p=1.0))
    assert torch.equal(cue.masks, none.masks) and torch.equal(cue.labels, none.labels)
    assert torch.equal(cue.textures, none.textures) and not torch.equal(cue.backgrounds, none.backgrounds)


def test_validation_follows_training_and_test_its_own_knobs():
    splits = textured_digits(p=0.0, q=0.0, p_test=1.0, q_test=1.0, train=100, validation=100, test=300)
    for data, cued in zip(splits[1:4], (True, True, False)):
        assert ((data.backgrounds == data.labels).float().mean() == 1) == cued
        assert ((data.textures == data.digits).float().mean() == 1) == cued


def test_backgrounds_can_be_told_apart_without_colour():
    """Spectra and brightness statistics of unseen photo bands name the class far above chance."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def describe(data):
        grey = data.images[:, 0].numpy().astype(float)
        spectrum = np.log1p(np.abs(np.fft.rfft2(grey - grey.mean((1, 2), keepdims=True))))
        pooled = spectrum[:, :16, :16].reshape(-1, 8, 2, 8, 2).mean((2, 4)).reshape(len(grey), -1)
        return np.hstack([pooled, np.quantile(grey, (0.05, 0.25, 0.5, 0.75, 0.95), axis=(1, 2)).T])

    knobs = Knobs(chroma=0.0, amplitude=0.15, digit_size=(8, 8))
    train, test = render(0, 0, 900, knobs), render(0, 2, 400, knobs)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
    assert model.fit(describe(train), train.backgrounds).score(describe(test), test.backgrounds) > 0.5  # chance is 0.1


def test_knobs_of_size_place_and_colour():
    small = render(0, 0, 80, Knobs(digit_size=(12, 12), position="centre"))
    large = render(0, 0, 80, Knobs(digit_size=(28, 28), position="centre"))
    assert large.masks.sum() > 3 * small.masks.sum()
    middle = (small.boxes[:, 0, :2] + small.boxes[:, 0, 2:]).float().mean(0) / 2
    assert (middle - 16).abs().max() < 1
    grey = render(0, 0, 40, Knobs(chroma=0.0)).images
    assert torch.equal(grey[:, 0], grey[:, 1]) and torch.equal(grey[:, 0], grey[:, 2])
    light = render(0, 0, 80, Knobs(contrast=0.6))
    inside, outside = light.images.float().mean(1)[light.masks], light.images.float().mean(1)[~light.masks]
    assert (inside.mean() - outside.mean()) / 255 == pytest.approx(0.6, abs=0.08)


def test_label_noise_changes_training_and_validation_labels_only():
    clean = textured_digits(train=600, validation=300, test=100)
    noisy = textured_digits(train=600, validation=300, test=100, label_noise=0.5)
    for before, after in zip(clean[1:3], noisy[1:3]):
        assert torch.equal(after.digits[:, 0], before.labels) and torch.equal(after.images, before.images)
        assert torch.equal(after.corrupted, after.labels != before.labels)
        assert within(after.corrupted.float().mean().item(), 0.45, len(after))
    assert torch.equal(noisy.test.labels, clean.test.labels)
    assert noisy.fingerprint != clean.fingerprint


def test_preset_sizes_and_fingerprint():
    splits = textured_digits()
    assert [len(data) for data in splits[1:4]] == [2000, 500, 1000]
    assert splits.classes == tuple("0123456789") and splits.train.masks is not None
    assert textured_digits(**TINY).fingerprint == textured_digits(**TINY).fingerprint
    others = [{}, {"seed": 1}, {"p": 0.5}, {"p_test": 0.5}, {"chroma": 0.0}, {"test": 9}]
    assert len({textured_digits(**{**TINY, **knobs}).fingerprint for knobs in others}) == len(others)


@pytest.mark.parametrize(
    "knobs",
    [
        {"preset": "huge"},
        {"canvas": 48},
        {"p": -0.1},
        {"p": float("nan")},
        {"q": 1.5},
        {"p_test": 2.0},
        {"q_test": -1.0},
        {"digit_size": 4},
        {"digit_size": (20, 40)},
        {"digit_size": (20, 10)},
        {"position": "left"},
        {"contrast": 2.0},
        {"amplitude": -0.1},
        {"chroma": 3.0},
        {"objects": 4},
        {"objects": 2, "digit_size": 30},
        {"label_noise": 1.1},
        {"train": 0},
        {"test": -3},
    ],
)
def test_a_knob_out_of_range_is_named(knobs):
    name = "digit_size" if "digit_size" in knobs else next(iter(knobs))
    with pytest.raises(ValueError, match=rf"^{name} .*got"):
        textured_digits(**knobs)


def test_importing_the_data_floor_pulls_in_no_heavy_package():
    heavy = ("torchvision", "sklearn", "skimage", "scipy", "PIL", "matplotlib")
    code = f"import sys, xai_course.data; print([m for m in {heavy!r} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
