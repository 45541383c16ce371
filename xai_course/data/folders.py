"""Images in folders or zip archives, decoded when asked for, with masks and boxes that follow the same crop.

The loaders in :mod:`xai_course.data.image_sets` turn each data set's own files into a list of :class:`Item`; the rest
is here.
"""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .batch import ArrayData, Batch, Splits, batches, fingerprint
from .boxes import boxes_to_masks
from .fetch import DataError, source
from .vision import folders

PRESETS = {"smoke": (200, 50, 100), "colab": None, "paper": None}  # at most so many images; None: all
SIDE = {"smoke": 64, "colab": 224, "paper": 224}  # default side of the square image in pixels
IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".tif", ".tiff", ".webp")


class Item(NamedTuple):
    """One image of a data set on disk.

    Attributes:
        image: path inside the data set's folder or archive, with forward slashes.
        label: class, or classes of a multi-label image.
        mask: path of the mask, "" where there is none.
        boxes: x0, y0, x1, y1 in pixels of the file, half-open, one per object.
    """

    image: str
    label: int | tuple[int, ...]
    mask: str = ""
    boxes: tuple[tuple[float, float, float, float], ...] = ()


class Archive:
    """A folder or a zip archive, read by relative paths.

    Args:
        path: of the folder or of the ``.zip`` file.
        key: entry of ``data/registry.json`` that says where the data come from and under which licence.
        layout: the files expected below ``path``, for the error message.
    """

    def __init__(self, path: str | os.PathLike, key: str, layout: str):
        self.path, self.key, self.layout = Path(path), key, layout
        self._zip, self._process = None, None

    def open(self, name: str):
        """The file as a binary stream.

        Raises:
            DataError: it is missing.
        """
        try:
            return io.BytesIO(self._archive().read(name)) if self.path.is_file() else (self.path / name).open("rb")
        except (OSError, KeyError, zipfile.BadZipFile) as error:
            raise self.missing(name) from error

    def lines(self, name: str) -> list[str]:
        """Non-empty lines of a text file."""
        with self.open(name) as file:
            return [line for line in file.read().decode("utf-8-sig").splitlines() if line.strip()]

    def files(self, folder: str) -> list[str]:
        """Sorted relative paths of all files below ``folder``.

        Raises:
            DataError: the folder is missing or empty.
        """
        if self.path.is_file():
            names = [n for n in self._archive().namelist() if n.startswith(f"{folder}/") and not n.endswith("/")]
        else:
            names = [p.relative_to(self.path).as_posix() for p in (self.path / folder).rglob("*") if p.is_file()]
        if not names:
            raise self.missing(f"{folder}/")
        return sorted(names)

    def images(self, folder: str) -> list[str]:
        """Those of :meth:`files` that are images."""
        return [name for name in self.files(folder) if PurePosixPath(name).suffix.lower() in IMAGE_ENDINGS]

    def has(self, name: str) -> bool:
        """Whether a file, or a folder with a file in it, is there."""
        if self.path.is_file():
            return any(n == name or n.startswith(f"{name}/") for n in self._archive().namelist())
        return (self.path / name).exists()

    def missing(self, name: str, problem: str = "is missing or damaged") -> DataError:
        """One message: which file, which layout, where from, under which licence."""
        origin = source(self.key)
        return DataError(
            f"{self.path / name} {problem}. Expected below {self.path}: {self.layout}. {origin.instruction} "
            f"Licence: {origin.licence}"
        )

    def _archive(self) -> zipfile.ZipFile:
        if self._zip is None or self._process != os.getpid():  # a forked worker must not share the file position
            self._zip, self._process = zipfile.ZipFile(self.path), os.getpid()
        return self._zip

    def __getstate__(self):
        return {**vars(self), "_zip": None}


def archive(root, candidates: Sequence[str], key: str, layout: str, marks: Sequence[str]) -> Archive:
    """The first of the user's folders, or of ``candidates`` inside them, that holds one of ``marks``.

    Raises:
        DataError: none does; the message lists where it looked, the layout, the origin and the licence.
    """
    places = [folder / below if below else folder for folder in folders(root) for below in ("", *candidates)]
    if root is None and not places:
        places = [Path(candidates[0] if candidates else key)]
    for place in places:
        found = Archive(place, key, layout)
        try:
            if (place.is_dir() or place.suffix == ".zip") and any(found.has(mark) for mark in marks):
                return found
        except (OSError, zipfile.BadZipFile):
            continue
    where = ", ".join(map(str, places))
    raise Archive(places[0], key, layout).missing(marks[0], f"was not found (root or XAI_COURSE_DATA: {where})")


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
    """

    def __init__(
        self,
        archive: Archive,
        items: Sequence[Item],
        size: int,
        classes: int,
        *,
        fit: str = "crop",
        foreground: Callable[[np.ndarray], np.ndarray] = np.bool_,
        masks: str = "pixels",
    ):
        if fit not in ("crop", "stretch"):
            raise ValueError(f'fit must be "crop" or "stretch", got {fit!r}')
        if masks not in ("pixels", "boxes", "none"):
            raise ValueError(f'masks must be "pixels", "boxes" or "none", got {masks!r}')
        if size < 8:
            raise ValueError(f"size must be at least 8 pixels, got {size}")
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
                row[list(several)] = 1
        else:
            target = torch.tensor(labels, dtype=torch.int64)
        stacked = torch.from_numpy(np.stack(images)) if at else torch.zeros(0, self.size, self.size, 3)
        has_masks = bool(at) and all(mask is not None for mask in masks)
        return Batch(
            stacked.permute(0, 3, 1, 2).float().div(255).contiguous(),
            target,
            torch.stack(masks) if has_masks else None,
            torch.tensor(at, dtype=torch.int64),
        )

    @property
    def boxes(self) -> _Boxes | None:
        """``data.boxes[i]``: ``[n, 4]`` float32 in output pixels, cut at the image's border; None without boxes."""
        return _Boxes(self) if any(item.boxes for item in self.items) else None

    def image(self, i: int):
        """Image i as the file has it, a PIL image."""
        return self._open(self.items[int(i)].image)

    def _window(self, width: int, height: int) -> tuple[float, float, float, float]:
        """What part of the file is shown: x0, y0, x1, y1."""
        if self.fit == "stretch":
            return 0, 0, width, height
        side = min(width, height)
        x0, y0 = (width - side) / 2, (height - side) / 2
        return x0, y0, x0 + side, y0 + side

    def _open(self, name: str):
        from PIL import Image, UnidentifiedImageError

        try:
            with self.archive.open(name) as file:
                image = Image.open(file)
                image.load()
                return image
        except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
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
            mask = Image.fromarray(self.foreground(_integers(mask)).astype(np.uint8))
            return pixels, torch.from_numpy(np.array(mask.resize(square, Image.Resampling.NEAREST, box=window)) > 0)
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
        from PIL import Image

        item = self.data.items[int(i)]
        with self.data.archive.open(item.image) as file:
            return self.data._project(item, Image.open(file).size)  # reads the header only


def _integers(mask) -> np.ndarray:
    """``[H, W]`` integers of a mask image: palette indices, grey levels, or the first channel of a colour image."""
    values = np.array(mask)
    return values[..., 0] if values.ndim == 3 else values


def in_memory(splits: Splits) -> Splits:
    """The same splits decoded once, as :class:`ArrayData` with uint8 images: for small sets, and for accelerators."""

    def load(data) -> ArrayData:
        parts = list(batches(data))
        images = torch.cat([part.images.mul(255).round().to(torch.uint8) for part in parts])
        masks = [part.masks for part in parts]
        whole = None if any(mask is None for mask in masks) else torch.cat(masks)
        return ArrayData(images, torch.cat([part.labels for part in parts]), whole)

    return splits._replace(train=load(splits.train), validation=load(splits.validation), test=load(splits.test))


def hold_out(items: Sequence[Item], fraction: float, seed: int) -> tuple[list[Item], list[Item]]:
    """(rest, held out): ``fraction`` of every class, at least one image of each class that has two.

    Multi-label items are drawn without regard to their classes.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"validation must be a fraction between 0 and 1, got {fraction}")
    rng, held = np.random.default_rng(seed), set()
    groups: dict = {}
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
    *,
    preset: str,
    seed: int,
    size: int | None,
    limit: tuple[int, int, int] | None,
    **options,
) -> Splits:
    """Splits of :class:`FolderData`, each cut to the preset's or the given limit; the test images kept never vary.

    Raises:
        ValueError: an unknown preset. DataError: a split without images.
    """
    if preset not in PRESETS:
        raise ValueError(f"preset must be one of {', '.join(PRESETS)}, got {preset!r}")
    at_most = limit or PRESETS[preset] or [len(part) for part in parts]
    side, kept = size or SIDE[preset], []
    for part, most, draw, split in zip(parts, at_most, (seed, seed, 0), ("training", "validation", "test")):
        if not part:
            raise where.missing("", f"holds no {split} image of {name}")
        rows = np.sort(np.random.default_rng(draw).permutation(len(part))[:most])
        kept.append([part[i] for i in rows])
    sets = [FolderData(where, items, side, len(classes), **options) for items in kept]
    decisions = {key: getattr(value, "__name__", value) for key, value in options.items()}
    return Splits(name, *sets, tuple(classes), fingerprint(name, kept, side, sorted(decisions.items())))
