"""Images decoded when asked for, with masks and boxes that follow the same crop.

The loaders in :mod:`xai_course.data.image_sets` turn each data set's own files into a list of :class:`Item`; the rest
is here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

import numpy as np
import torch
from torch import Tensor

from .._require import require
from .archives import Archive
from .batch import ArrayData, Batch, Dataset, Splits, batches, fingerprint
from .boxes import boxes_to_masks
from .vision import Limit

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

PRESETS = {"smoke": (200, 50, 100), "colab": None, "paper": None}  # at most so many images; None: all
SIDE = {"smoke": 64, "colab": 224, "paper": 224}  # default side of the square image in pixels


class Item(NamedTuple):
    """One image of a data set on disk.

    Attributes:
        image: path inside the data set's folder or archive, with forward slashes.
        label: class, or classes of a multi-label image.
        mask: path of the mask, "" where there is none.
        boxes: x0, y0, x1, y1 in pixels of the file, half-open, one per object.

    Example:
        >>> Item("images/cell1.png", label=1, mask="masks/cell1.png").boxes
        ()
    """

    image: str
    label: int | tuple[int, ...]
    mask: str = ""
    boxes: tuple[tuple[float, float, float, float], ...] = ()


class Cut(TypedDict, total=False):
    """How many images are kept and what of each is shown; the arguments that all loaders share.

    Attributes:
        seed: of the held-out validation images and of what "smoke" or ``limit`` keep, 0 where it is not given; the test
            images never depend on it.
        size: side of the square images in pixels, instead of the preset's.
        limit: at most so many (train, validation, test) images, instead of the preset's.
        fit: "crop" (largest centred square) or "stretch" (whole image).

    Example:
        >>> Cut(size=32, fit="stretch")
        {'size': 32, 'fit': 'stretch'}
    """

    seed: int
    size: int | None
    limit: Limit
    fit: str


def over_half(values: np.ndarray) -> np.ndarray:
    """Foreground of a grey mask: above half of full scale (> 127.5).

    Example:
        >>> over_half(np.array([0, 127, 128, 255])).tolist()
        [False, False, True, True]
    """
    return values > 127


def trimap(values: np.ndarray) -> np.ndarray:
    """Foreground of a trimap: 1 (2 is background, 3 the border).

    Example:
        >>> trimap(np.array([1, 2, 3])).tolist()
        [True, False, False]
    """
    return values == 1


def trimap_with_border(values: np.ndarray) -> np.ndarray:
    """Foreground of a trimap, the uncertain border included.

    Example:
        >>> trimap_with_border(np.array([1, 2, 3])).tolist()
        [True, False, True]
    """
    return values != 2


def _any(values: np.ndarray) -> np.ndarray:
    """Foreground of a mask whose background is 0."""
    return values != 0


class FolderData:
    """Items decoded on demand into square images.

    Args:
        archive: where the files are.
        items: what to read.
        size: side of the output in pixels.
        classes: number of classes K; labels are ``[B, K]`` float32 where an item's label is a tuple.
        fit: "crop" cuts the largest centred square, "stretch" takes the whole image, its aspect ratio changed.
        foreground: turns a mask file's pixels ``[H, W]`` (integers) into bool.
        masks: "pixels": from mask files; "boxes": the filled boxes; "none".

    Every batch has float32 RGB images in [0, 1]; the mask follows the image's crop, by nearest neighbour.

    Example:
        >>> import tempfile, pathlib
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.new("RGB", (60, 40), (255, 0, 0)).save(pathlib.Path(folder, "red.png"))
        ...     data = FolderData(Archive(folder, "GlaS", ""), [Item("red.png", 1)], size=8, classes=2)
        ...     batch = data.__getitems__([0])
        >>> batch.images.shape, batch.images[0, :, 4, 4].tolist(), batch.labels.tolist()
        (torch.Size([1, 3, 8, 8]), [1.0, 0.0, 0.0], [1])
    """

    def __init__(
        self,
        archive: Archive,
        items: Sequence[Item],
        size: int,
        classes: int,
        *,
        fit: str = "crop",
        foreground: Callable[[np.ndarray], np.ndarray] = _any,
        masks: str = "pixels",
    ):
        require(fit in ("crop", "stretch"), 'fit must be "crop" or "stretch"', repr(fit))
        require(masks in ("pixels", "boxes", "none"), 'masks must be "pixels", "boxes" or "none"', repr(masks))
        require(size >= 8, "size must be at least 8 pixels", size)
        self.archive, self.items, self.size, self.classes = archive, list(items), size, classes
        self.fit, self.foreground, self.masks = fit, foreground, masks

    def __len__(self) -> int:
        return len(self.items)

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        at = [int(i) for i in indices]
        images, masks = zip(*_decoders(os.getpid()).map(self._read, at)) if at else ((), ())
        labels = [self.items[i].label for i in at]
        if self.items and isinstance(self.items[0].label, tuple):
            target = torch.zeros(len(at), self.classes)
            for row, several in zip(target, labels):
                row[[*several] if isinstance(several, tuple) else several] = 1
        else:
            target = torch.tensor(labels, dtype=torch.int64)
        stacked = torch.from_numpy(np.stack(images)) if at else torch.zeros(0, self.size, self.size, 3)
        there = [mask for mask in masks if mask is not None]
        return Batch(
            stacked.permute(0, 3, 1, 2).float().div(255).contiguous(),
            target,
            torch.stack(there) if there and len(there) == len(at) else None,
            torch.tensor(at, dtype=torch.int64),
        )

    @property
    def boxes(self) -> _Boxes | None:
        """``data.boxes[i]``: ``[n, 4]`` float32 in output pixels, cut at the image's border; None without boxes."""
        return _Boxes(self) if any(item.boxes for item in self.items) else None

    def image(self, i: int) -> Picture:
        """Image i as the file has it, a PIL image."""
        return self._open(self.items[int(i)].image)

    def _window(self, width: int, height: int) -> tuple[float, float, float, float]:
        """What part of the file is shown: x0, y0, x1, y1."""
        if self.fit == "stretch":
            return 0, 0, width, height
        side = min(width, height)
        x0, y0 = (width - side) / 2, (height - side) / 2
        return x0, y0, x0 + side, y0 + side

    def _open(self, name: str, *, whole: bool = True) -> Picture:
        """The decoded picture, or its header only."""
        from PIL import Image

        with self.archive.open(name) as file:
            try:
                image = Image.open(file)
                if whole:
                    image.load()
                return image
            except Exception as error:  # PIL too passes on what its decoders say, a decompression bomb among it
                raise self.archive.missing(name, f"cannot be decoded ({error})") from error

    def _read(self, i: int) -> tuple[np.ndarray, Tensor | None]:
        from PIL import Image

        item, square = self.items[i], (self.size, self.size)
        image = self._open(item.image)
        window = self._window(*image.size)
        pixels = np.array(image.convert("RGB").resize(square, Image.Resampling.BILINEAR, box=window))
        if self.masks == "pixels" and item.mask:
            mask = self._open(item.mask)
            if mask.size != image.size:
                raise self.archive.missing(item.mask, f"is {mask.size} pixels, its image {image.size}")
            shape = Image.fromarray(self.foreground(_integers(mask)).astype(np.uint8))
            return pixels, torch.from_numpy(np.array(shape.resize(square, Image.Resampling.NEAREST, box=window)) > 0)
        if self.masks == "boxes" and item.boxes:
            return pixels, boxes_to_masks(self._project(item, image.size), *square).any(0)
        return pixels, None

    def _project(self, item: Item, size: tuple[int, int]) -> Tensor:
        x0, y0, x1, y1 = self._window(*size)
        boxes = torch.tensor(item.boxes, dtype=torch.float32).view(-1, 4) - torch.tensor([x0, y0, x0, y0])
        return (boxes * (self.size / torch.tensor([x1 - x0, y1 - y0] * 2))).clamp(0, self.size)


@lru_cache(maxsize=1)
def _decoders(process: int) -> ThreadPoolExecutor:
    """Threads that decode images side by side (PIL lets go of the interpreter); new ones in every forked process."""
    return ThreadPoolExecutor(max_workers=min(16, os.cpu_count() or 1))


class _Boxes:
    """The boxes of a :class:`FolderData`, one image at a time."""

    def __init__(self, data: FolderData):
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, i: int) -> Tensor:
        item = self.data.items[int(i)]
        return self.data._project(item, self.data._open(item.image, whole=False).size)


def _integers(mask: Picture) -> np.ndarray:
    """``[H, W]`` integers of a mask image: palette indices, grey levels, or the first channel of a colour image."""
    values = np.array(mask)
    return values[..., 0] if values.ndim == 3 else values


def in_memory(splits: Splits) -> Splits:
    """The same splits decoded once, as :class:`ArrayData` with uint8 images: for small sets, and for accelerators.

    Example:
        >>> grey = ArrayData(torch.full((3, 1, 8, 8), 0.2), torch.arange(3))
        >>> held = in_memory(Splits("Grey", grey, grey, grey, ("a", "b", "c"), "0"))
        >>> held.train.images.dtype, int(held.train.images[0, 0, 0, 0])
        (torch.uint8, 51)
    """

    def load(data: Dataset) -> ArrayData:
        parts = list(batches(data))
        images = torch.cat([part.images.mul(255).round().to(torch.uint8) for part in parts])
        masks = [part.masks for part in parts if part.masks is not None]
        whole = torch.cat(masks) if len(masks) == len(parts) else None
        return ArrayData(images, torch.cat([part.labels for part in parts]), whole)

    return splits._replace(train=load(splits.train), validation=load(splits.validation), test=load(splits.test))


def hold_out(items: Sequence[Item], fraction: float, seed: int) -> tuple[list[Item], list[Item]]:
    """(rest, held out): ``fraction`` of every class, at least one image of each class that has two.

    Multi-label items are drawn without regard to their classes.

    Example:
        >>> items = [Item(f"{i}.png", label=i % 2) for i in range(10)]
        >>> [len(part) for part in hold_out(items, 0.2, seed=0)]
        [8, 2]
    """
    require(0 < fraction < 1, "validation must be a fraction between 0 and 1", fraction)
    rng = np.random.default_rng(seed)
    held: set[int] = set()
    groups: dict[int, list[int]] = {}
    for i, item in enumerate(items):
        groups.setdefault(item.label if isinstance(item.label, int) else -1, []).append(i)
    for label in sorted(groups):
        rows = rng.permutation(groups[label])
        held.update(rows[: max(len(rows) > 1, round(fraction * len(rows)))].tolist())
    return [x for i, x in enumerate(items) if i not in held], [items[i] for i in sorted(held)]


def assemble(
    name: str,
    where: Archive,
    parts: Sequence[Sequence[Item]],
    classes: Sequence[str],
    preset: str,
    *,
    validation: float = 0.0,
    seed: int = 0,
    size: int | None = None,
    limit: Limit = None,
    **options: Any,
) -> Splits:
    """Splits of :class:`FolderData`, each cut to the preset's or the given limit; the test images kept never vary.

    ``parts`` are the training, validation and test items; of two, ``validation`` of the first is held out.

    Raises:
        ValueError: an unknown preset. DataError: a split without images.

    Example:
        >>> items = [Item(f"{i}.png", label=i % 2) for i in range(9)]
        >>> parts = items[:5], items[5:7], items[7:]
        >>> splits = assemble("Toys", Archive("toys", "GlaS", ""), parts, ("a", "b"), preset="smoke")
        >>> len(splits.train), splits.train.size
        (5, 64)
    """
    if len(parts) == 2:
        parts = (*hold_out(parts[0], validation, seed), parts[1])
    require(preset in PRESETS, f"preset must be one of {', '.join(PRESETS)}", repr(preset))
    options.setdefault("fit", "crop")
    at_most = limit or PRESETS[preset] or [len(part) for part in parts]
    side, kept = size or SIDE[preset], []
    for part, most, draw, split in zip(parts, at_most, (seed, seed, 0), ("training", "validation", "test")):
        if not part:
            raise where.missing("", f"holds no {split} image of {name}")
        rows = np.sort(np.random.default_rng(draw).permutation(len(part))[:most])
        kept.append([part[i] for i in rows])
    train, held, test = (FolderData(where, items, side, len(classes), **options) for items in kept)
    decisions = {key: getattr(value, "__name__", value) for key, value in options.items()}
    identity = fingerprint(name, kept, side, sorted(decisions.items()))
    return Splits(name, train, held, test, tuple(classes), identity)
