"""A shortcut that is one small spot: the opposite of a background that is everywhere."""

from __future__ import annotations

import torch
from torch import Tensor

from .._require import require
from .batch import ArrayData, Dataset, Splits, fingerprint
from .knobs import in_range

CELLS = 3  # a spot shows one of 2 ** (CELLS * CELLS) black-and-white patterns


def with_spot(splits: Splits, *, size: int = 6, p: float = 0.0, seed: int = 0) -> Splits:
    """Put a spot in a corner of every image: its pattern tells the label in training and validation, nothing in test.

    Like a watermark or a ruler beside a lesion. The corner is the one with the least of the object in it; the object's
    mask excludes the spot.

    Args:
        splits: of `ArrayData` with uint8 images, single labels and masks.
        size: side of the spot in pixels, a multiple of 3.
        p: probability in [0, 1] that a training or validation image shows a random pattern instead of its class's.
        seed: of the patterns and of all random choices.

    Raises:
        ValueError: a size that does not fit, a probability outside [0, 1], or images without masks.

    Example:
        >>> from .textured_digits import textured_digits
        >>> splits = textured_digits(train=2, validation=1, test=1)
        >>> spotted = with_spot(splits)
        >>> int((spotted.train.images != splits.train.images).any(1).sum())  # pixels, of 2 x 36
        72
    """
    in_range(0, 1, p=p)
    sets = splits.train, splits.validation, splits.test
    side = min(_with_masks(splits.train).images.shape[-2:])
    require(size % CELLS == 0 and 0 < size <= side // 2, f"size must be a multiple of {CELLS} up to {side // 2}", size)
    generator = torch.Generator().manual_seed(seed)
    classes = len(splits.classes)
    codes = torch.randperm(2 ** (CELLS * CELLS), generator=generator)[:classes]
    bits = (codes[:, None] >> torch.arange(CELLS * CELLS)) & 1
    pattern = (255 * bits).to(torch.uint8).view(classes, CELLS, CELLS)
    pattern = pattern.repeat_interleave(size // CELLS, 1).repeat_interleave(size // CELLS, 2)
    parts = []
    for data, doubt in zip(map(_with_masks, sets), (p, p, 1.0)):
        told = data.labels
        if doubt > 0:
            at_random = torch.randint(classes, (len(data),), generator=generator)
            kept = torch.rand(len(data), generator=generator) >= doubt
            told = torch.where(kept, told, at_random)
        parts.append(_stamped(data, pattern[told]))
    train, validation, test = parts
    identity = fingerprint(splits.fingerprint, "with_spot", size, seed, *((p,) if p else ()))
    return Splits(f"{splits.name} with a spot", train, validation, test, splits.classes, identity)


def _with_masks(data: Dataset) -> ArrayData:
    if not isinstance(data, ArrayData) or data.masks is None or data.images.dtype != torch.uint8:
        raise ValueError(f"splits must hold ArrayData of uint8 images with masks, got {data!r}")
    return data


def _stamped(data: ArrayData, spots: Tensor) -> ArrayData:
    """``spots [N, s, s]`` in the emptiest corner of each image."""
    assert data.masks is not None
    size, images, masks = spots.shape[-1], data.images.clone(), data.masks.clone()
    ends = (slice(None, size), slice(-size, None))
    corners = [(rows, columns) for rows in ends for columns in ends]
    filled = torch.stack([masks[:, rows, columns].sum(dim=(1, 2)) for rows, columns in corners], 1)
    emptiest = filled.argmin(1)
    for i, (rows, columns) in enumerate(corners):
        here = (emptiest == i).nonzero().flatten()
        for channel in range(images.shape[1]):
            images[here, channel, rows, columns] = spots[here]
        masks[here, rows, columns] = False
    return ArrayData(images, data.labels, masks)
