"""Image sets with a shortcut whose strength is a knob, and masks that may be few or wrong.

``strength`` is the share of training images in which the cue tells the label; the others, and every image of the test
split, show a cue that is drawn at random. `Splits.validation` follows training. It carries two small sets of other
images, which only choices and last layers may see: ``broken``, whose cue is random, to choose values by, and
``balanced``, whose cue agrees in every second image.

Masks of training images may be spoilt (``error``), and kept for a few images of each class only: those of the others
cover the whole image, which says nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .batch import ArrayData, Batch, Splits, fingerprint
from .boxes import boxes_to_masks, masks_to_boxes
from .files import Root
from .folders import FolderData, in_memory
from .image_sets import dtd, tiny_imagenet
from .knobs import in_range
from .textured_digits import CLASSES, Knobs, render
from .textured_mnist import Textures
from .vision import fashion_mnist, mnist

PARTS = ("train", "validation", "broken", "balanced", "test")
ERRORS = ("", "boxes", "dilated", "shifted")
VERSION = 1
DILATION, SHIFT = 3, 5  # pixels
LIGHT = 0.4  # of full scale: how much lighter MNIST's digits are than their surroundings
TINT = 0.5  # weight of the class's colour outside the box
LARGEST = 0.6  # boxes that cover more of a photograph leave too little room for a cue


class Cued(ArrayData):
    """Images in memory that know where their cue agrees with the label.

    Attributes:
        cued: ``[N]`` bool. broken, balanced: of a validation split, see the module.

    Example:
        >>> data = Cued(torch.rand(2, 3, 8, 8), torch.tensor([0, 1]), None, torch.tensor([True, False]))
        >>> data.__getitems__([1]).cued
        tensor([False])
    """

    broken: Cued
    balanced: Cued

    def __init__(self, images: Tensor, labels: Tensor, masks: Tensor | None, cued: Tensor):
        super().__init__(images, labels, masks)
        self.cued = cued

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        batch = super().__getitems__(indices)
        return batch._replace(cued=self.cued[batch.index])

    def to(self, device: torch.device | str) -> Cued:
        masks = None if self.masks is None else self.masks.to(device)
        return Cued(self.images.to(device), self.labels.to(device), masks, self.cued.to(device))


def spoilt(masks: Tensor, error: str) -> Tensor:
    """Masks ``[N, H, W]`` bool with an annotator's error: "boxes" around them, "dilated" by 3 pixels, "shifted" by 5 to
    the right and down; "" leaves them.

    Example:
        >>> masks = torch.zeros(1, 8, 8, dtype=torch.bool)
        >>> masks[0, 0, 0] = masks[0, 1, 1] = True
        >>> [int(spoilt(masks, error).sum()) for error in ("", "boxes", "dilated", "shifted")]
        [2, 4, 25, 2]
    """
    if error not in ERRORS:
        raise ValueError(f"error must be one of {', '.join(filter(None, ERRORS))} or empty, got {error!r}")
    if error == "boxes":
        return boxes_to_masks(masks_to_boxes(masks), masks.shape[1], masks.shape[2])
    if error == "dilated":
        return F.max_pool2d(masks[:, None].float(), 2 * DILATION + 1, 1, DILATION)[:, 0] > 0
    if error == "shifted":
        return F.pad(masks, (SHIFT, 0, SHIFT, 0))[:, : masks.shape[1], : masks.shape[2]]
    return masks


def few_masks(masks: Tensor, labels: Tensor, per_class: int | None, seed: int) -> Tensor:
    """Masks of ``per_class`` images of each class, drawn by ``seed``; those of the others cover all. None keeps all.

    Example:
        >>> masks = torch.zeros(6, 2, 2, dtype=torch.bool)
        >>> few_masks(masks, torch.arange(6) % 2, 1, seed=0).flatten(1).all(1).sum()
        tensor(4)
    """
    if per_class is None:
        return masks
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    kept = torch.cat([order[labels[order] == k][:per_class] for k in labels.unique().tolist()])
    known = torch.zeros(len(labels), dtype=torch.bool)
    known[kept] = True
    return masks | ~known[:, None, None]


def told(labels: Tensor, strength: float, classes: int, seed: Sequence[int]) -> tuple[Tensor, np.random.Generator]:
    """What the cue says ``[N]``: the label in a share ``strength`` of the images, below 1/K and in the rest any class.

    Example:
        >>> said, _ = told(torch.zeros(10000, dtype=torch.int64), 0.9, 10, [0])
        >>> round((said == 0).float().mean().item(), 2)
        0.9
    """
    in_range(0, 1, strength=strength)
    draws = np.random.default_rng(list(seed))
    u = torch.from_numpy(draws.random((len(labels), 2)))
    return torch.where(u[:, 0] < at_random(strength, classes), (u[:, 1] * classes).long(), labels), draws


def at_random(strength: float, classes: int) -> float:
    """The probability of a random cue, one of K, which leaves it right in a share ``strength`` of the images.

    Example:
        >>> round(at_random(0.95, 10), 4), at_random(0.0, 10)
        (0.0556, 1.0)
    """
    return min(1.0, (1 - strength) * classes / (classes - 1))


def cued_splits(
    name: str,
    make: Callable[[str, float], Cued],
    classes: Sequence[str],
    *decisions: object,
    strength: float,
    seed: int,
    per_class: int | None,
    error: str,
) -> Splits:
    """The splits of one set: ``make(part, strength)`` gives each of `PARTS`; the decisions enter the fingerprint.

    Example:
        >>> def make(part, strength):
        ...     nothing, cued = torch.zeros(4, 8, 8).bool(), torch.ones(4).bool()
        ...     return Cued(torch.rand(4, 3, 8, 8), torch.arange(4) % 2, nothing, cued)
        >>> splits = cued_splits("Toy", make, ("a", "b"), strength=1.0, seed=0, per_class=1, error="")
        >>> splits.train.masks.flatten(1).all(1).sum(), len(splits.validation.broken)
        (tensor(2), 4)
    """
    strengths = (strength, strength, 0.0, 0.5, 0.0)
    train, validation, broken, balanced, test = (make(part, s) for part, s in zip(PARTS, strengths))
    assert train.masks is not None
    train.masks = few_masks(spoilt(train.masks, error), train.labels, per_class, seed)
    validation.broken, validation.balanced = broken, balanced
    identity = fingerprint(name, VERSION, strength, seed, per_class, error, *decisions)
    return Splits(name, train, validation, test, tuple(classes), identity)


# --- the sets ---------------------------------------------------------------------------------------------------------


def cued_digits(
    sizes: Sequence[int] = (600, 300, 300, 200, 400),
    *,
    seed: int = 0,
    strength: float = 1.0,
    per_class: int | None = None,
    error: str = "",
    **knobs: float,
) -> Splits:
    """Textured Digits whose background texture is the cue; ``sizes`` of the five `PARTS`.

    Args:
        sizes: training, validation, broken, balanced and test images.
        seed, strength, per_class, error: see the module. knobs: of `textured_digits`, such as ``contrast``.

    Example:
        >>> splits = cued_digits((4, 2, 2, 2, 2), strength=1.0)
        >>> splits.train.cued, splits.train.images.shape
        (tensor([True, True, True, True]), torch.Size([4, 3, 32, 32]))
    """

    def make(part: str, share: float) -> Cued:
        i = PARTS.index(part)
        split, stream = (0, 1, 1, 1, 2)[i], seed + (0, 0, 10**6, 2 * 10**6, 0)[i]  # three sets of validation digits
        data = render(stream, split, sizes[i], Knobs(**{**knobs, "p": at_random(share, 10)}))  # type: ignore[arg-type]
        return Cued(data.images, data.labels, data.masks, data.backgrounds == data.labels)

    shared = {"strength": strength, "seed": seed, "per_class": per_class, "error": error}
    return cued_splits("Cued digits", make, CLASSES, sizes, sorted(knobs.items()), **shared)  # type: ignore[arg-type]


@lru_cache(maxsize=2)
def _photographs(root: str | None) -> tuple[Splits, list[Textures]]:
    """DTD's first ten classes, its three splits at a size that shows a texture on 32 pixels."""
    photos = dtd("paper", root=root)
    stores = [Textures(part, 32, 0.3) for part in photos[1:4] if isinstance(part, FolderData)]
    return photos, stores


def on_photographs(
    objects: str = "garments",
    sizes: Sequence[int] = (800, 300, 300, 200, 500),
    *,
    seed: int = 0,
    root: Root = None,
    strength: float = 1.0,
    per_class: int | None = None,
    error: str = "",
) -> Splits:
    """Grey objects on photographs of textures (DTD); the class of the photograph is the cue. 32 pixels.

    Every class has 40 photographs for training, others for validation and others for test, in DTD's own splits.

    Args:
        objects: "garments" of Fashion-MNIST with their own pixels, or "digits" of MNIST filled with a random texture,
            lighter than what surrounds them (else 800 images are too few to learn to read them).
        root: folder that holds the files; None: ``XAI_COURSE_DATA``.
        sizes, seed, strength, per_class, error: as in `cued_digits`; the mask is the object's pixels.

    Raises:
        ValueError: other objects. DataError: files are missing.

    Example:
        >>> on_photographs("cars")
        Traceback (most recent call last):
        ValueError: objects must be "garments" or "digits", got 'cars'
    """
    if objects not in ("garments", "digits"):
        raise ValueError(f'objects must be "garments" or "digits", got {objects!r}')
    held = sum(sizes[1:4])
    load = fashion_mnist if objects == "garments" else mnist
    things = load("paper", root=root, seed=seed, limit=(sizes[0], held, sizes[4]))
    photos, stores = _photographs(None if root is None else str(root))
    starts = dict(zip(PARTS, (0, 0, sizes[1], sizes[1] + sizes[2], 0)))

    def make(part: str, share: float) -> Cued:
        i = PARTS.index(part)
        split = (0, 1, 1, 1, 2)[i]
        source, store = (things.train, things.validation, things.test)[split], stores[split]
        assert isinstance(source, ArrayData)
        rows = slice(starts[part], starts[part] + sizes[i])
        grey, labels = source.images[rows, 0], source.labels[rows]
        said, draws = told(labels, share, 10, [seed, i])
        u = draws.random((len(labels), 9))
        outside = _crops(store, said.tolist(), u[:, 0:3])
        inside = grey[:, None].expand(-1, 3, -1, -1)
        if objects == "digits":
            inside = _crops(store, (u[:, 8] * 10).astype(int).tolist(), u[:, 3:6])[..., :28, :28]
            outside, inside = (outside * (1 - LIGHT)).byte(), (inside * (1 - LIGHT) + 255 * LIGHT).byte()
        masks = torch.zeros(len(labels), 32, 32, dtype=torch.bool)
        for k, (y, x) in enumerate((u[:, 6:8] * 5).astype(int)):
            shape = grey[k] > (25 if objects == "garments" else 127)
            masks[k, y : y + 28, x : x + 28] = shape
            outside[k, :, y : y + 28, x : x + 28] = torch.where(shape, inside[k], outside[k, :, y : y + 28, x : x + 28])
        return Cued(outside, labels, masks, said == labels)

    shared = {"strength": strength, "seed": seed, "per_class": per_class, "error": error}
    prints = (things.fingerprint, photos.fingerprint, sizes)
    return cued_splits(f"{things.name} on DTD", make, things.classes, *prints, **shared)  # type: ignore[arg-type]


def _crops(store: Textures, classes: Sequence[int], u: np.ndarray) -> Tensor:
    """``[N, 3, 32, 32]`` uint8."""
    return torch.stack([store.crop(k, row.tolist(), 32) for k, row in zip(classes, u)])


@lru_cache(maxsize=2)
def _tiny(root: str | None) -> tuple[Splits, list[ArrayData]]:
    """Training and test photographs at 32 pixels whose box is there and leaves room."""
    splits = tiny_imagenet("paper", root=root, size=32)
    loaded, kept = in_memory(splits), []
    for part in (loaded.train, loaded.test):
        assert isinstance(part, ArrayData) and part.masks is not None
        area = part.masks.float().mean((1, 2))
        fit = (area > 0) & (area < LARGEST)
        kept.append(ArrayData(part.images[fit], part.labels[fit], part.masks[fit]))
    return splits, kept


def tinted_photographs(
    sizes: Sequence[int] = (2000, 400, 400, 400, 600),
    *,
    seed: int = 0,
    root: Root = None,
    strength: float = 1.0,
    per_class: int | None = None,
    error: str = "",
    spot: int = 0,
) -> Splits:
    """Tiny ImageNet at 32 pixels, the photographs whose box covers less than 60 %: a colour is the cue, the mask a box.

    Args:
        spot: 0 tints everything outside the box by half; above, the cue is a square of that side at a random place
            inside the box, which goes along wherever the object is pasted.
        root: folder that holds ``tiny-imagenet-200``. sizes, seed, strength, per_class, error: as in `cued_digits`.

    Raises:
        DataError: files are missing.

    Example:
        >>> tinted_photographs(root=".")
        Traceback (most recent call last):
        xai_course.data.fetch.DataError: val/val_annotations.txt was not found (root ...). Expected below .: ...
    """
    splits, (train, test) = _tiny(None if root is None else str(root))
    classes = len(splits.classes)
    orders = [torch.from_numpy(np.random.default_rng(s).permutation(len(d))) for s, d in ((seed, train), (0, test))]
    colours = torch.from_numpy(np.stack([_hue(k / classes) for k in range(classes)]))
    starts = dict(zip(PARTS, [*np.cumsum([0, *sizes[:3]]).tolist(), 0]))

    def make(part: str, share: float) -> Cued:
        i = PARTS.index(part)
        source, order = (test, orders[1]) if part == "test" else (train, orders[0])
        rows = order[starts[part] : starts[part] + sizes[i]]
        assert source.masks is not None
        images, labels, masks = source.images[rows].float(), source.labels[rows], source.masks[rows]
        said, draws = told(labels, share, classes, [seed, i])
        where, weight = ~masks, TINT
        if spot:
            where, weight = _spots(masks, spot, draws.random((len(labels), 2))), 1.0
        tinted = (1 - weight) * images + weight * colours[said].float()[:, :, None, None]
        images = torch.where(where[:, None], tinted, images).round().to(torch.uint8)
        return Cued(images, labels, masks, said == labels)

    shared = {"strength": strength, "seed": seed, "per_class": per_class, "error": error}
    name = f"Tiny ImageNet, {classes} classes, " + ("a spot in the box" if spot else "tinted")
    return cued_splits(name, make, splits.classes, splits.fingerprint, sizes, spot, **shared)  # type: ignore[arg-type]


def _hue(turn: float) -> np.ndarray:
    """RGB in [0, 255] of a full colour, ``turn`` in [0, 1) round the wheel."""
    import colorsys

    return 255 * np.array(colorsys.hsv_to_rgb(turn, 1.0, 1.0))


def _spots(masks: Tensor, side: int, u: np.ndarray) -> Tensor:
    """A square of ``side`` inside the box around each mask, cut off where that is smaller."""
    x0, y0, x1, y1 = masks_to_boxes(masks).unbind(1)
    left = x0 + (torch.from_numpy(u[:, 0]) * (x1 - x0 - side + 1).clamp_min(1)).long()
    top = y0 + (torch.from_numpy(u[:, 1]) * (y1 - y0 - side + 1).clamp_min(1)).long()
    boxes = torch.stack([left, top, (left + side).minimum(x1), (top + side).minimum(y1)], 1)
    return boxes_to_masks(boxes, masks.shape[1], masks.shape[2])
