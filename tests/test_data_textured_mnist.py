"""Textured MNIST against a slow version of the supplement's description, item by item."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from xai_course.data import ArrayData, DataError, Splits, dtd, textured_mnist
from xai_course.data.textured_mnist import DIGIT_TEXTURES, Textures, texture_tables

NAMES = """
    banded blotchy braided bubbly bumpy chequered cobwebbed cracked crosshatched crystalline dotted fibrous flecked
    freckled frilly gauzy grid grooved honeycombed interlaced knitted lacelike lined marbled matted meshed paisley
    perforated pitted pleated polka-dotted porous potholed scaly smeared spiralled sprinkled stained stratified striped
    studded swirly veined waffled woven wrinkled zigzagged
"""
DTD = NAMES.split()


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Splits:
    """Twenty classes, two photos of one brightness each per split: the class can be read off every pixel."""
    root: Path = tmp_path_factory.mktemp("textures")
    for s, part in enumerate(("train", "val", "test")):
        for k in range(20):
            folder = root / part / f"class{k:02d}"
            folder.mkdir(parents=True)
            for i in range(2):
                Image.new("RGB", (70 + 10 * i, 66), (12 * k, 80 * s, 100 * i)).save(folder / f"{i}.png")
    return dtd("paper", root=root)


@pytest.fixture
def numbers(monkeypatch):
    """A stand-in for MNIST: strokes of grey and white on black."""
    generator = torch.Generator().manual_seed(0)

    def part(n: int) -> ArrayData:
        images = torch.zeros(n, 1, 28, 28, dtype=torch.uint8)
        for image in images:
            y, x = torch.randint(4, 18, (2,), generator=generator).tolist()
            image[0, y : y + 6, x : x + 3] = 200
            image[0, y : y + 2, x : x + 6] = 70
        return ArrayData(images, torch.randint(0, 10, (n,), generator=generator))

    made = Splits("MNIST", part(600), part(100), part(600), tuple("0123456789"), "digits")
    monkeypatch.setattr(sys.modules["xai_course.data.textured_mnist"], "mnist", lambda *args, **kwargs: made)
    return made


def build(photos: Splits, **knobs) -> Splits:
    return textured_mnist(textures=photos, **{"canvas": 64, **knobs})


def slow_item(split, k: int):
    """One item from the description, with loops."""
    u = np.random.default_rng([*split.stream, k]).random(12)
    digit, label = split.digits.images[k, 0].float() / 255, int(split.digits.labels[k])
    n, canvas, (own_b, own_f, every_b) = split.digit_size, split.canvas, split.tables
    large = torch.nn.functional.interpolate(digit[None, None], size=(n, n), mode="bilinear")[0, 0]
    oy, ox = (int(v * (canvas - n + 1)) for v in u[:2])
    background = every_b[int(u[3] * len(every_b))] if u[2] < split.p else own_b[label]
    texture = own_f[int(u[5] * 10)] if u[4] < split.q else own_f[label]
    mask, image = torch.zeros(canvas, canvas, dtype=torch.bool), torch.zeros(3, canvas, canvas)
    for y in range(canvas):
        for x in range(canvas):
            inside = 0 <= y - oy < n and 0 <= x - ox < n and large[y - oy, x - ox] > 0.5 * large.max()
            mask[y, x] = bool(inside)
            photo = int(u[9 if inside else 6] * 2)  # every photo has one colour
            split_colour = {"train": 0, "val": 80, "test": 160}[split.textures.data.items[0].image.split("/")[0]]
            image[:, y, x] = torch.tensor([12 * (texture if inside else background), split_colour, 100 * photo]) / 255
    return image, mask, background, texture


def test_against_the_slow_version(photos, numbers):
    splits = build(photos, p=0.5, q=0.5, canvas=32, digit_size=28)
    for split in splits[1:4]:
        batch, plan = split.__getitems__([3, 0, 7]), split.plan
        for row, k in enumerate((3, 0, 7)):
            image, mask, background, texture = slow_item(split, k)
            assert torch.equal(batch.images[row], image)
            assert torch.equal(batch.masks[row], mask)
            assert (plan["background"][k], plan["texture"][k]) == (background, texture)
        assert torch.equal(batch.labels, split.digits.labels[[3, 0, 7]]) and batch.index.tolist() == [3, 0, 7]


@pytest.mark.parametrize(("canvas", "knobs"), [(64, {}), (40, {"digit_size": 20, "p": 0.5, "position": "centre"})])
def test_a_batch_is_what_one_image_at_a_time_gives(numbers, tmp_path, canvas, knobs):
    """Photos of noise: every pixel says where it was cut."""
    rng = np.random.default_rng(0)
    for part in ("train", "val", "test"):
        for k in range(10):
            (tmp_path / part / f"c{k}").mkdir(parents=True)
            noise = rng.integers(0, 256, (66 + k, 90, 3), dtype=np.uint8)
            Image.fromarray(noise).save(tmp_path / part / f"c{k}" / "0.png")
    split = build(dtd("paper", root=tmp_path), canvas=canvas, **knobs).train
    which = [41, 7, 7, *range(60)]
    batch = split.__getitems__(which)
    for row, k in enumerate(which):
        layers = []
        for name, u in (("background", split.plan["draws"][k, 6:9]), ("texture", split.plan["draws"][k, 9:])):
            item = split.textures.data.items[split.textures.by_class[split.plan[name][k]][0]]
            photo = np.array(Image.open(tmp_path / item.image))
            y, x = (int(v * (length - canvas + 1)) for v, length in zip(u[1:], photo.shape))
            layers.append(photo[y : y + canvas, x : x + canvas])
        pixels = np.where(batch.masks[row].numpy()[..., None], layers[1], layers[0])
        assert torch.equal(batch.images[row], torch.from_numpy(pixels).permute(2, 0, 1).float() / 255)
    assert batch.images.is_contiguous() and batch.images.dtype == torch.float32


def test_same_item_in_any_order_and_company(photos, numbers):
    a, b = build(photos, seed=3), build(photos, seed=3)
    many, few = a.train.__getitems__(range(40)), b.train.__getitems__([39, 5])
    assert torch.equal(many.images[[39, 5]], few.images) and torch.equal(many.masks[[39, 5]], few.masks)
    assert not torch.equal(build(photos, seed=4).train.__getitems__([5]).images, few.images[1:])
    assert a.fingerprint == b.fingerprint != build(photos, seed=3, p=0.1).fingerprint


@pytest.mark.parametrize("p", [0.0, 0.2, 1.0])
def test_p_and_q(photos, numbers, p):
    split = build(photos, p=p, q=1 - p).train
    plan, labels = split.plan, split.digits.labels.numpy()
    for found, own, share, n in (
        (plan["background"], np.array(split.tables[0]), p, 10),
        (plan["texture"], np.array(split.tables[1]), 1 - p, 10),
    ):
        expected = 1 - share + share / n
        tolerance = 3 * math.sqrt(expected * (1 - expected) / 600) + 1e-9
        assert abs((found == own[labels]).mean() - expected) <= tolerance


def test_the_test_split_has_its_own_p(photos, numbers):
    splits = build(photos, p=0.0, q=1.0)
    for split, cued in zip(splits[1:4], (True, True, False)):
        own = np.array(split.tables[0])[split.digits.labels.numpy()]
        assert ((split.plan["background"] == own).mean() == 1) == cued


def test_the_papers_classes_and_the_fallbacks():
    own_b, own_f, every_b = texture_tables(DTD)
    assert [DTD[k] for k in own_f] == list(DIGIT_TEXTURES) and len(every_b) == 37
    assert DTD[own_b[0]] == "blotchy" and DTD[own_b[9]] == "fibrous" and own_b == every_b[:10]
    own_b, own_f, every_b = texture_tables([f"c{k}" for k in range(24)])
    assert own_b == list(range(10)) and own_f == list(range(10, 20)) and every_b == [*range(10), *range(20, 24)]
    own_b, own_f, every_b = texture_tables([f"c{k}" for k in range(10)])
    assert sorted(own_f) == own_b == every_b and all(f != b for f, b in zip(own_f, own_b))
    with pytest.raises(ValueError, match="textures must have at least 10 classes, got 9"):
        texture_tables(range(9))


def test_size_and_place(photos, numbers):
    default = build(photos, canvas=64)
    assert default.train.digit_size == 63 and default.train.__getitems__([0]).images.shape == (1, 3, 64, 64)
    small = build(photos, digit_size=28).train.__getitems__(range(60)).masks
    assert small.any(0).sum() > 3 * small.sum((1, 2)).max()  # the digits move over the canvas
    centred = build(photos, digit_size=28, position="centre").train.__getitems__(range(60)).masks
    assert not centred[:, :18].any() and not centred[:, -18:].any()
    assert default.train.__getitems__([]).images.shape == (0, 3, 64, 64)


def test_small_photos_are_enlarged_and_zoom_shrinks(photos):
    store = Textures(photos.train, 128)
    assert store.crop(3, (0.9, 0.99, 0.99), 128).shape == (3, 128, 128)
    store = Textures(photos.train, 16, zoom=0.5)
    assert store.crop(3, (0.0, 0.5, 0.5), 16).shape == (3, 16, 16) and store._photo(0).shape == (3, 33, 35)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"p": -1.0}, "p must be"),
        ({"q_test": 2.0}, "q_test must be"),
        ({"digit_size": 65}, "digit_size must be"),
        ({"canvas": 20}, "canvas must be"),
        ({"position": "top"}, "position must be"),
        ({"zoom": 0.0}, "zoom must be"),
    ],
)
def test_bad_knobs_are_named(photos, numbers, knobs, message):
    with pytest.raises(ValueError, match=message):
        build(photos, **knobs)


def test_without_textures_the_message_says_where_from(numbers, tmp_path):
    with pytest.raises(DataError, match="robots.ox.ac.uk"):
        textured_mnist(root=tmp_path)
