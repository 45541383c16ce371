"""Textured Digits: real handwritten digits filled with one photo texture, on another. The embedded default data set.

The shape of a real digit (scikit-learn's ``load_digits``, 8x8, enlarged, with affine and elastic jitter) is the mask.
Its inside shows one photo texture, the outside another, so that label, mask and box are known exactly, and so is every
wrong reason for a right answer: with ``p=0`` the background gives the label away (the spurious cue of ReFF, Section 4).
Everything is offline, and image i of a split depends on (seed, split, i) and the knobs only.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .._require import require
from .batch import ArrayData, Splits, fingerprint
from .boxes import masks_to_boxes
from .knobs import in_range
from .noise import with_label_noise
from .textures import BACKGROUNDS, DIGITS, SHEET, sheets

SIZES = {"smoke": (2000, 500, 1000), "colab": (10000, 2000, 4000), "paper": (50000, 5000, 10000)}
CLASSES = tuple("0123456789")
BACKGROUND_CLASSES = tuple(texture.name for texture in BACKGROUNDS)  # label y's own background at p=0 is number y
DIGIT_CLASSES = tuple(texture.name for texture in DIGITS)  # label y's own digit texture at q=0 is number y
VERSION = 2  # part of every fingerprint: raise it when the same knobs no longer give the same images
CHUNK = 128  # images are rendered in whole chunks, so that an image never depends on how many others are asked for
ELASTIC = 3  # control points of the elastic jitter per side
PER_OBJECT = 11 + 2 * ELASTIC**2  # uniform draws per object: source, size and shape (6), texture (4), elastic jitter
PER_IMAGE = 10 + 4  # uniform draws per image: the order of the classes, then the background


@dataclass(frozen=True)
class Knobs:
    """What decides one split; the units and ranges stand in :func:`textured_digits`.

    Example:
        >>> replace(Knobs(), canvas=64, p=0.0).digit_size
        (22, 30)
    """

    canvas: int = 32
    digit_size: tuple[float, float] = (22, 30)
    p: float = 1.0
    q: float = 0.0
    position: str = "random"
    contrast: float = 0.6
    amplitude: float = 0.1
    chroma: float = 0.4
    objects: int = 1


class TexturedDigits(ArrayData):
    """One split: images ``[N, 3, H, W]`` uint8, labels, masks ``[N, H, W]`` bool, and how each image was made.

    Attributes (N images, O objects):
        boxes: ``[N, O, 4]`` int64, x0, y0, x1, y1 in pixels, half-open, around each digit's visible pixels.
        digits: ``[N, O]`` int64, true classes of the objects (never noisy).
        sources: ``[N, O]`` int64, row of the handwritten digit in ``load_digits``.
        backgrounds: ``[N]`` int64, index into ``BACKGROUND_CLASSES``.
        textures: ``[N, O]`` int64, index into ``DIGIT_CLASSES``.
        corrupted: ``[N]`` bool, True where label noise changed the label.

    Example:
        >>> data = textured_digits(p=0.0, train=4, validation=1, test=1).train
        >>> torch.equal(data.backgrounds, data.labels), data.boxes.shape  # p=0: the background tells the label
        (True, torch.Size([4, 1, 4]))
    """

    boxes: Tensor
    digits: Tensor
    sources: Tensor
    backgrounds: Tensor
    textures: Tensor
    corrupted: Tensor


def textured_digits(
    preset: str = "smoke",
    *,
    seed: int = 0,
    canvas: int = 32,
    digit_size: int | tuple[float, float] | None = None,
    p: float = 1.0,
    q: float = 0.0,
    p_test: float | None = None,
    q_test: float | None = None,
    position: str = "random",
    contrast: float = Knobs.contrast,
    amplitude: float = Knobs.amplitude,
    chroma: float = Knobs.chroma,
    objects: int = 1,
    label_noise: float = 0.0,
    train: int | None = None,
    validation: int | None = None,
    test: int | None = None,
) -> Splits:
    """Render the three splits. They share no handwritten digit and no pixel of a photograph.

    Args:
        preset: "smoke", "colab" or "paper"; sets only the sizes (2000/500/1000, 10000/2000/4000, 50000/5000/10000).
        seed: decides everything random, except which digits and photo bands belong to which split: that never changes.
        canvas: side of the square image in pixels, 32 or 64.
        digit_size: side in pixels of the digit's square before jitter, fixed (int) or uniform in (low, high); at least
            8, at most the canvas. None: 0.69 to 0.94 of the canvas, or 0.45 to 0.5 of it with several objects.
        p: probability in [0, 1] that the background's texture class is drawn uniformly; else it is the label's own
            (of the first object). p=0: the background tells the label. p=1: it tells nothing.
        q: the same for the texture inside each digit.
        p_test, q_test: p and q of the test split; None: as in training. Validation always follows training.
        position: "random" within the canvas (within its quadrant with several objects) or "centre".
        contrast: difference of mean brightness between digit and background, in [-1, 1] of full scale; above 0 the
            digit is the lighter one.
        amplitude: standard deviation of the texture's brightness, in [0, 0.5] of full scale.
        chroma: strength of the textures' colours in [0, 2]; 0 is grey (three equal channels), 1 the photo's own. Colour
            is the easiest cue: at p=0 a network that sees it hardly looks at the shape, while grey textures
            (``chroma=0, amplitude=0.08``) leave something for a method to win back.
        objects: 1: labels ``[N]`` int64. 2 or 3: that many digits of different classes in separate quadrants, labels
            ``[N, 10]`` float32.
        label_noise: rate in [0, 1] of symmetric label noise in training and validation; test labels stay clean.
        train, validation, test: sizes that replace the preset's.

    Returns:
        Splits of :class:`TexturedDigits`.

    Raises:
        ValueError: a knob outside its range.

    Example:
        >>> splits = textured_digits(train=4, validation=1, test=2, seed=1)
        >>> splits.train.images.shape, splits.train.labels.tolist()
        (torch.Size([4, 3, 32, 32]), [9, 5, 7, 1])
    """
    require(preset in SIZES, f"preset must be one of {', '.join(SIZES)}", repr(preset))
    sizes = [d if n is None else n for n, d in zip((train, validation, test), SIZES[preset])]
    size = _digit_size(digit_size, canvas, objects)
    knobs = Knobs(canvas, size, p, q, position, contrast, amplitude, chroma, objects)
    tests = replace(knobs, p=p if p_test is None else p_test, q=q if q_test is None else q_test)
    _check(knobs, tests, sizes, label_noise)
    sets = (render(seed, split, n, k) for split, (n, k) in enumerate(zip(sizes, (knobs, knobs, tests))))
    train_set, validation_set, test_set = sets
    identity = fingerprint("textured_digits", VERSION, seed, sizes, knobs, tests)
    splits = Splits("Textured Digits", train_set, validation_set, test_set, CLASSES, identity)
    return with_label_noise(splits, label_noise, seed=seed) if label_noise else splits


def render(seed: int, split: int, count: int, knobs: Knobs) -> TexturedDigits:
    """The first ``count`` images of split 0 (train), 1 (validation) or 2 (test), without label noise.

    Example:
        >>> few, more = render(0, 2, 2, Knobs()), render(0, 2, 3, Knobs())
        >>> torch.equal(few.images, more.images[:2])
        True
    """
    parts = [_render_chunk(seed, split, start, knobs) for start in range(0, max(count, 1), CHUNK)]
    made = {key: torch.cat([part[key] for part in parts])[:count] for key in parts[0]}
    data = TexturedDigits(made.pop("images"), made.pop("labels"), made.pop("masks"))
    vars(data).update(made, corrupted=torch.zeros(count, dtype=torch.bool))
    return data


def _render_chunk(seed: int, split: int, start: int, knobs: Knobs) -> dict[str, Tensor]:
    width = PER_IMAGE + PER_OBJECT * knobs.objects
    stream = np.random.PCG64(np.random.SeedSequence([seed, split])).advance(start * width)
    draws = np.random.Generator(stream).random((CHUNK, width))
    order, background, rest = draws[:, :10], draws[:, 10:14], draws[:, 14:].reshape(CHUNK, knobs.objects, PER_OBJECT)
    digits = order.argsort(axis=1)[:, : knobs.objects]  # distinct classes; the first one is uniform
    pool = _digit_pool(split)[digits]
    sources = np.take_along_axis(pool, (rest[..., :1] * pool.shape[-1]).astype(int), axis=-1)[..., 0]
    alpha = _shapes(sources, rest[..., 1:7], rest[..., 11:], draws[:, :10], knobs)
    own = digits[:, 0]
    backgrounds = np.where(background[:, 0] < knobs.p, (background[:, 1] * 10).astype(int), own)
    textures = np.where(rest[..., 7] < knobs.q, (rest[..., 8] * 10).astype(int), digits)
    image = _paint(split, backgrounds, background[:, 2:], -knobs.contrast / 2, knobs)
    for k in range(knobs.objects):
        inside = _paint(split, textures[:, k] + 10, rest[:, k, 9:11], knobs.contrast / 2, knobs)
        image += alpha[:, k, ..., None] * (inside - image)
    instances = torch.from_numpy(alpha > 0.5)
    hot = F.one_hot(torch.from_numpy(digits), 10).sum(1).float()
    return {
        "images": torch.from_numpy((image.clip(0, 1) * 255 + 0.5).astype(np.uint8)).permute(0, 3, 1, 2).contiguous(),
        "labels": torch.from_numpy(own) if knobs.objects == 1 else hot,
        "masks": instances.any(1),
        "boxes": masks_to_boxes(instances.flatten(0, 1)).view(CHUNK, knobs.objects, 4),
        "digits": torch.from_numpy(digits),
        "sources": torch.from_numpy(sources),
        "backgrounds": torch.from_numpy(backgrounds),
        "textures": torch.from_numpy(textures),
    }


def _paint(split: int, classes: np.ndarray, corner: np.ndarray, shift: float, knobs: Knobs) -> np.ndarray:
    """Crops ``[N, canvas, canvas, 3]`` in [0, 1] of the classes' sheets, their mean brightness moved by ``shift``."""
    light, colour = sheets()
    at = (corner * (SHEET - knobs.canvas + 1)).astype(int)
    rows, columns = (at[:, k, None] + np.arange(knobs.canvas) for k in (0, 1))
    where = (split, classes[:, None, None], rows[:, :, None], columns[:, None, :])
    return 0.5 + shift + knobs.amplitude * light[where][..., None] + knobs.chroma * colour[where]


def _shapes(sources: np.ndarray, u: np.ndarray, elastic: np.ndarray, order: np.ndarray, knobs: Knobs) -> np.ndarray:
    """Opacities ``[N, O, canvas, canvas]`` float32 in [0, 1] of the digits, jittered and placed.

    ``u [N, O, 6]``: size, position (2), rotation (within 15 degrees), shear, aspect; ``elastic [N, O, 2 * 9]``.
    """
    n, objects, canvas = *sources.shape, knobs.canvas
    low, high = knobs.digit_size
    size = low + (high - low) * u[..., 0]
    corner, room = _cells(order, objects, canvas)
    spread = 0.5 if knobs.position == "centre" else u[..., 1:3]
    centre = corner + size[..., None] / 2 + (room - size[..., None]) * spread  # y, x in pixels
    turn, shear, aspect = (u[..., 3] - 0.5) * np.pi / 6, (u[..., 4] - 0.5) * 0.4, 1 + (u[..., 5] - 0.5) * 0.3
    cos, sin = np.cos(turn), np.sin(turn)
    # Inverse map: a canvas pixel, relative to the centre and in units of half the digit's side, to the digit's frame.
    matrix = np.stack([np.stack([cos * aspect, sin + shear], -1), np.stack([-sin, cos / aspect], -1)], -2)
    pixel = np.arange(canvas) + 0.5
    grid = np.stack(np.broadcast_arrays(pixel[None, :], pixel[:, None]), -1)  # x, y
    relative = (grid - centre[..., None, None, ::-1]) / (size / 2)[..., None, None, None]
    frame = torch.from_numpy(np.einsum("noab,noyxb->noyxa", matrix, relative)).float().flatten(0, 1)
    bends = torch.from_numpy(elastic.reshape(n * objects, 2, ELASTIC, ELASTIC) - 0.5).float() * 0.18
    bends = F.grid_sample(bends, frame, mode="bilinear", padding_mode="border", align_corners=True)
    glyphs = torch.from_numpy(_glyphs()[sources.ravel()])[:, None]
    value = F.grid_sample(glyphs, frame + bends.permute(0, 2, 3, 1), mode="bilinear", align_corners=False)
    slope = torch.from_numpy(size.reshape(-1, 1, 1, 1)).float() * 0.15  # the edge stays about one pixel wide
    alpha = ((value - 0.42) * slope + 0.5).clamp(0, 1)  # exactly 0 without ink, exactly 1 in full ink, from 8 pixels on
    return alpha.view(n, objects, canvas, canvas).numpy()


def _cells(order: np.ndarray, objects: int, canvas: int) -> tuple[np.ndarray, float]:
    """Where each object may lie: corner ``[N, O, 2]`` (y, x) in pixels, side of its square (canvas or quadrant)."""
    if objects == 1:
        return np.zeros((len(order), 1, 2)), float(canvas)
    cell = order[:, 3:7].argsort(axis=1)[:, :objects]
    return np.stack([cell // 2, cell % 2], -1) * (canvas / 2), canvas / 2


@lru_cache(maxsize=1)
def _handwriting() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    return load_digits(return_X_y=True)


@lru_cache(maxsize=1)
def _glyphs() -> np.ndarray:
    """``[1797, 32, 32]`` float32 in [0, 1]: every digit enlarged smoothly, with a margin of one digit pixel."""
    images = torch.from_numpy(_handwriting()[0]).view(-1, 1, 8, 8).float()
    images = F.pad(images / images.amax((2, 3), keepdim=True), (1, 1, 1, 1))
    return F.interpolate(images, size=40, mode="bicubic", align_corners=False).clamp(0, 1)[:, 0].numpy()


@lru_cache(maxsize=3)
def _digit_pool(split: int) -> np.ndarray:
    """``[10, M]`` rows of ``load_digits`` per class for one split: 60, 15 and 25 % of each class, always the same."""
    labels = _handwriting()[1]
    cuts, rng = (0.0, 0.6, 0.75, 1.0), np.random.default_rng(0)
    pools = []
    for digit in range(10):
        rows = rng.permutation(np.flatnonzero(labels == digit))[:174]  # the rarest class has 174
        pools.append(rows[round(cuts[split] * 174) : round(cuts[split + 1] * 174)])
    return np.stack(pools)


def _digit_size(size: int | tuple[float, float] | None, canvas: int, objects: int) -> tuple[float, float]:
    if size is None:
        low, high = (0.69, 0.94) if objects == 1 else (0.45, 0.5)
        return round(low * canvas), round(high * canvas)
    return (size, size) if isinstance(size, int | float) else size


def _check(knobs: Knobs, tests: Knobs, sizes: list[int], label_noise: float) -> None:
    require(knobs.canvas in (32, 64), "canvas must be 32 or 64 pixels", repr(knobs.canvas))
    require(knobs.objects in (1, 2, 3), "objects must be 1, 2 or 3", repr(knobs.objects))
    room = knobs.canvas if knobs.objects == 1 else knobs.canvas // 2
    if len(knobs.digit_size) != 2 or not 8 <= knobs.digit_size[0] <= knobs.digit_size[1] <= room:
        raise ValueError(f"digit_size must be 8 <= low <= high <= {room} pixels, got {knobs.digit_size!r}")
    require(knobs.position in ("random", "centre"), 'position must be "random" or "centre"', repr(knobs.position))
    in_range(0, 1, p=knobs.p, q=knobs.q, p_test=tests.p, q_test=tests.q, label_noise=label_noise)
    in_range(-1, 1, contrast=knobs.contrast)
    in_range(0, 0.5, amplitude=knobs.amplitude)
    in_range(0, 2, chroma=knobs.chroma)
    for name, size in zip(("train", "validation", "test"), sizes):
        require(size >= 1, f"{name} must be at least 1 image", repr(size))
