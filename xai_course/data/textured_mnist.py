r"""Textured MNIST (ReFF, Section 4.2 and supplement Table 1): MNIST digits filled with one texture, on another.

For item k of a split the digit is resized bilinearly to n x n, its mask is :math:`d > \max(d) / 2`, the background
shows the class :math:`b(y)` that belongs to the label, or with probability p a random background class; the digit shows
:math:`f(y)`, or with probability q a random digit texture. The paper trains at ``p=0, q=1`` and tests at ``p=1``.
:math:`f` is printed in the supplement, :math:`b` is not: here it is the first ten of the 37 background classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .._require import require
from .batch import ArrayData, Batch, Splits, fingerprint
from .files import Root
from .folders import FolderData
from .image_sets import dtd
from .knobs import in_range
from .vision import Limit, mnist

# f(0) .. f(9), supplement Table 1
DIGIT_TEXTURES = ("banded", "dotted", "grid", "knitted", "paisley", "scaly", "striped", "veined", "woven", "zigzagged")
PLANNED = ("background", "texture", "draws")


class Textures:
    """Photos of one split by class, decoded when first needed and then kept (about 1.7 GB for all 47 classes of DTD).

    Args:
        data: the texture photos.
        short: photos whose shorter side is below this many pixels are enlarged to it.
        zoom: every photo is first resized by this factor.
        device: where they are kept.

    Example:
        >>> import tempfile, pathlib
        >>> from PIL import Image
        >>> from .archives import Archive
        >>> from .folders import Item
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.new("RGB", (40, 30), (200, 100, 0)).save(pathlib.Path(folder, "plain.png"))
        ...     photos = FolderData(Archive(folder, "GlaS", ""), [Item("plain.png", 0)], size=32, classes=1)
        ...     Textures(photos, short=32).crop(0, (0, 0, 0), side=32).shape
        torch.Size([3, 32, 32])
    """

    def __init__(self, data: FolderData, short: int, zoom: float = 1.0, device: torch.device | str = "cpu"):
        self.data, self.short, self.zoom, self.device = data, short, zoom, device
        self.by_class = [[i for i, item in enumerate(data.items) if item.label == k] for k in range(data.classes)]
        self._kept: dict[int, Tensor] = {}

    def crop(self, label: int, u: Sequence[float], side: int) -> Tensor:
        """A view ``[3, side, side]`` uint8: photo, row and column chosen by three numbers in [0, 1)."""
        rows = self.by_class[label]
        photo = self._photo(rows[int(u[0] * len(rows))])
        y, x = (int(v * (length - side + 1)) for v, length in zip(u[1:], photo.shape[1:]))
        return photo[:, y : y + side, x : x + side]

    def _photo(self, i: int) -> Tensor:
        if i not in self._kept:
            image = self.data.image(i).convert("RGB")
            scale = max(self.zoom, self.short / min(image.size))
            if scale != 1:
                image = image.resize([max(self.short, round(scale * length)) for length in image.size])
            self._kept[i] = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().to(self.device)
        return self._kept[i]


@dataclass(eq=False)
class TexturedMnist:
    """One split, rendered on demand; item k depends on (seed, split, k) and the knobs only.

    Args:
        digits: MNIST images ``[N, 1, 28, 28]`` with labels.
        textures: photos of the same split.
        tables: classes b(0) .. b(9), classes f(0) .. f(9), and all background classes, as indices of ``textures``.
        p, q, canvas, digit_size, position: as in :func:`textured_mnist`.
        stream: (seed, number of the split).

    Example:
        >>> import tempfile, pathlib
        >>> from PIL import Image
        >>> from .archives import Archive
        >>> from .folders import Item
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.new("RGB", (40, 30), (200, 100, 0)).save(pathlib.Path(folder, "plain.png"))
        ...     photos = FolderData(Archive(folder, "GlaS", ""), [Item("plain.png", 0)], size=32, classes=1)
        ...     store, digits = Textures(photos, short=32), ArrayData(torch.rand(1, 1, 28, 28), torch.tensor([7]))
        ...     one = TexturedMnist(digits, store, ([0] * 10, [0] * 10, [0]), 0.0, 1.0, 32, 31, "random", (0, 0))
        ...     batch = one.__getitems__([0])
        >>> batch.images.shape, batch.masks.shape
        (torch.Size([1, 3, 32, 32]), torch.Size([1, 32, 32]))
    """

    digits: ArrayData
    textures: Textures
    tables: tuple[Sequence[int], Sequence[int], Sequence[int]]
    p: float
    q: float
    canvas: int
    digit_size: int
    position: str
    stream: tuple[int, int]

    def __len__(self) -> int:
        return len(self.digits)

    def to(self, device: torch.device | str) -> TexturedMnist:
        """The same split, rendered on ``device``."""
        store = Textures(self.textures.data, self.textures.short, self.textures.zoom, device)
        return replace(self, digits=self.digits.to(device), textures=store)

    @cached_property
    def plan(self) -> dict[str, np.ndarray]:
        """What is drawn for each item: classes ``background`` and ``texture [N]``, and the ``draws [N, 12]``."""
        draws = np.array([np.random.default_rng([*self.stream, k]).random(12) for k in range(len(self))])
        own_background, own_texture, backgrounds = map(np.asarray, self.tables)
        y = self.digits.labels.cpu().numpy()
        any_background = backgrounds[(draws[:, 3] * len(backgrounds)).astype(int)]
        any_texture = own_texture[(draws[:, 5] * 10).astype(int)]
        return {
            "background": np.where(draws[:, 2] < self.p, any_background, own_background[y]),
            "texture": np.where(draws[:, 4] < self.q, any_texture, own_texture[y]),
            "draws": draws,
        }

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        at, side = list(indices), self.canvas
        batch, (outside, inside, draws) = self.digits.__getitems__(at), (self.plan[key][at] for key in PLANNED)
        masks, images = self._masks(batch.images, draws[:, :2]), _empty((len(at), 3, side, side), batch.images.device)
        for image, mask, behind, texture, u in zip(images, masks, outside, inside, draws):
            background, digit = self.textures.crop(behind, u[6:9], side), self.textures.crop(texture, u[9:], side)
            image.copy_(background + mask * (digit - background)).div_(255)  # bytes wrap around: exact
        return Batch(images, batch.labels, masks, batch.index)

    def _masks(self, digits: Tensor, u: np.ndarray) -> Tensor:
        """``[B, canvas, canvas]`` bool: the enlarged digits above half their maximum, at their offsets."""
        n, room = self.digit_size, self.canvas - self.digit_size
        masks = torch.zeros(len(digits), self.canvas, self.canvas, dtype=torch.bool, device=digits.device)
        if not len(digits):
            return masks
        large = F.interpolate(digits, size=(n, n), mode="bilinear", align_corners=False)[:, 0]
        small = large > 0.5 * large.amax((1, 2), keepdim=True)
        offset = np.full((len(digits), 2), room // 2) if self.position == "centre" else (u * (room + 1)).astype(int)
        for mask, digit, (y, x) in zip(masks, small, offset):
            mask[y : y + n, x : x + n] = digit
        return masks


def _empty(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Float32 not yet written. NumPy asks the system for large pages, without which most of the time goes into them."""
    return torch.from_numpy(np.empty(shape, np.float32)) if device.type == "cpu" else torch.empty(shape, device=device)


def textured_mnist(
    preset: str = "smoke",
    *,
    seed: int = 0,
    root: Root = None,
    textures: Splits | None = None,
    canvas: int = 224,
    digit_size: int | None = None,
    p: float = 0.0,
    q: float = 1.0,
    p_test: float = 1.0,
    q_test: float | None = None,
    position: str = "random",
    zoom: float = 1.0,
    limit: Limit = None,
) -> Splits:
    """MNIST on textures, 54,000/6,000/10,000 images at full size.

    Args:
        preset: as in :func:`xai_course.data.vision.mnist`: "smoke" keeps at most 4000/1000/2000 images.
        seed: of the held-out digits and of every draw.
        root: folder with MNIST and DTD; None: ``XAI_COURSE_DATA``.
        textures: splits of :class:`FolderData` with at least ten classes, instead of DTD. With DTD's 47 classes the
            digit textures are the paper's; otherwise classes 10 to 19 in order, or, below 20 classes, the backgrounds
            themselves shifted by five. Their train, validation and test photos fill the split of the same name.
        canvas: side in pixels.
        digit_size: side n of the enlarged digit in pixels, at most the canvas; None: canvas - 1 (223, as in the paper).
        p, q: probability in [0, 1] that the background's, the digit's texture class is random; validation alike.
        p_test, q_test: the same for the test split; q_test None: q.
        position: "random" or "centre".
        zoom: photos are resized by this factor before cropping; below 1 for a small canvas.
        limit: at most so many (train, validation, test) images.

    Raises:
        ValueError: a knob outside its range, fewer than ten texture classes, a class without photos in a split.
        DataError: MNIST or the textures cannot be had.

    Example:
        >>> textured_mnist(canvas=20)
        Traceback (most recent call last):
        ValueError: canvas must be at least 28 pixels, got 20
    """
    digit_size = canvas - 1 if digit_size is None else digit_size
    q_test = q if q_test is None else q_test
    _check(canvas, digit_size, position, zoom)
    in_range(0, 1, p=p, q=q, p_test=p_test, q_test=q_test)
    digits = mnist(preset, seed=seed, root=root, validation=6000, limit=limit)
    photos = textures or dtd("paper", root=root)
    tables = texture_tables(photos.classes)
    sets = []
    for split, (numbers, pictures) in enumerate(zip(digits[1:4], photos[1:4])):
        if not isinstance(numbers, ArrayData) or not isinstance(pictures, FolderData):
            raise ValueError(f"textures must be splits of FolderData, got {type(pictures).__name__}")
        store = Textures(pictures, canvas, zoom)
        if not all(store.by_class):
            raise ValueError(f"textures must have a photo of every class in every split, got none of {split=}")
        chances = (p, q) if split < 2 else (p_test, q_test)
        sets.append(TexturedMnist(numbers, store, tables, *chances, canvas, digit_size, position, (seed, split)))
    train, validation, test = sets
    decisions = (p, q, p_test, q_test, canvas, digit_size, position, zoom, seed)
    identity = fingerprint("textured_mnist", digits.fingerprint, photos.fingerprint, decisions)
    return Splits("Textured MNIST", train, validation, test, digits.classes, identity)


def texture_tables(classes: Sequence[str]) -> tuple[list[int], list[int], list[int]]:
    """b(0) .. b(9), f(0) .. f(9) and all background classes, as indices into ``classes``.

    Raises:
        ValueError: fewer than ten classes.

    Example:
        >>> backgrounds, digits, every = texture_tables([f"texture {k}" for k in range(20)])
        >>> digits[:3], len(every)
        ([10, 11, 12], 10)
    """
    require(len(classes) >= 10, "textures must have at least 10 classes", len(classes))
    if set(DIGIT_TEXTURES) <= set(classes) and len(classes) >= 20:
        inside = [classes.index(name) for name in DIGIT_TEXTURES]
        outside = [k for k in range(len(classes)) if k not in inside]
    elif len(classes) >= 20:
        inside, outside = list(range(10, 20)), [k for k in range(len(classes)) if not 10 <= k < 20]
    else:
        inside, outside = [(y + 5) % 10 for y in range(10)], list(range(len(classes)))
    return outside[:10], inside, outside


def _check(canvas: int, digit_size: int, position: str, zoom: float) -> None:
    require(canvas >= 28, "canvas must be at least 28 pixels", canvas)
    require(8 <= digit_size <= canvas, f"digit_size must be in [8, {canvas}] pixels", digit_size)
    require(position in ("random", "centre"), 'position must be "random" or "centre"', repr(position))
    require(zoom > 0, "zoom must be above 0", zoom)
