r"""How well a thresholded map segments the object: F1+ on the foreground, F1- on the background.

Convention of Min-Max entropy's official code (paper, Sec. 4): threshold, F1 (the Dice index) per image, plain mean over
the images. Pooled over all pixels is another number, offered beside it. F1+ alone proves nothing: a mask that covers
every pixel reaches a mean of :math:`2a/(1+a)` for objects of area share a, with F1- = 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..data.batch import Batch, Dataset, Splits, batches
from ..nets.modes import device_of, evaluating


def _pair(predicted: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    if predicted.shape != truth.shape or predicted.ndim != 3:
        raise ValueError(
            f"masks must both be [B, H, W], got predicted {tuple(predicted.shape)} and truth {tuple(truth.shape)}"
        )
    if predicted.dtype != torch.bool or truth.dtype != torch.bool:
        raise ValueError(f"masks must be bool: threshold them first, got {predicted.dtype} and {truth.dtype}")
    return predicted.flatten(1), truth.flatten(1)


def thresholded(maps: Tensor, level: float | Tensor = 0.5) -> Tensor:
    """Maps ``[..., H, W]`` in [0, 1] to bool masks, True where ``maps >= level``.

    Raises:
        ValueError: the level lies outside [0, 1].
    """
    if not 0 <= float(level) <= 1:
        raise ValueError(f"level must lie in [0, 1], got {float(level)}")
    return maps >= level


def f1_foreground(predicted: Tensor, truth: Tensor) -> Tensor:
    r"""F1+ of each image, :math:`2|P \cap T| / (|P| + |T|)`, ``[B]`` float64 in [0, 1].

    Both masks empty is a perfect answer and scores 1 (the official code divides 0 by 0 there).

    Args:
        predicted, truth: ``[B, H, W]`` bool.

    Raises:
        ValueError: the two differ in shape, or are not bool.
    """
    predicted, truth = _pair(predicted, truth)
    both = (predicted & truth).sum(1).double()
    sizes = predicted.sum(1).double() + truth.sum(1)
    return torch.where(sizes > 0, 2 * both / sizes.clamp_min(1), torch.ones_like(both))


def f1_background(predicted: Tensor, truth: Tensor) -> Tensor:
    """F1- of each image: `f1_foreground` of the two complements. ``[B]`` float64 in [0, 1]."""
    return f1_foreground(~predicted, ~truth)


def f1_pooled(predicted: Tensor, truth: Tensor) -> tuple[float, float]:
    """F1+ and F1- with the pixels of all images counted together: large objects weigh more than small ones."""
    predicted, truth = _pair(predicted, truth)
    together = (predicted.reshape(1, 1, -1), truth.reshape(1, 1, -1))
    return float(f1_foreground(*together)), float(f1_background(*together))


def trivial_masks(shape: Sequence[int], area: float = 0.25, seed: int = 0) -> dict[str, Tensor]:
    """Masks ``[B, H, W]`` that know nothing: every pixel, no pixel, a fair coin per pixel, a centred square.

    Args:
        shape: ``(B, H, W)``.
        area: share of the image that the square covers, in (0, 1].
        seed: of the coin.
    """
    if not 0 < area <= 1:
        raise ValueError(f"area must lie in (0, 1], got {area}")
    _, height, width = shape
    square = torch.zeros(*shape, dtype=torch.bool)
    h, w = (max(1, round(side * area**0.5)) for side in (height, width))
    top, left = (height - h) // 2, (width - w) // 2
    square[:, top : top + h, left : left + w] = True
    coin = torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) < 0.5
    full = torch.ones(*shape, dtype=torch.bool)
    return {"all_ones": full, "empty": ~full, "random": coin, "centre": square}


def padded_map(explain: Callable[[Tensor], Tensor], images: Tensor, multiple: int = 32) -> Tensor:
    """A map of whole images of any size: reflect-pad to a multiple of the stride, explain, crop back.

    Args:
        explain: ``[B, C, H', W'] -> [B, H', W']``.
        images: ``[B, C, H, W]``.
        multiple: sides are padded up to a multiple of this on the right and below.
    """
    height, width = images.shape[-2:]
    down, right = -height % multiple, -width % multiple
    if down >= height or right >= width:
        raise ValueError(f"images of {height}x{width} are too small to reflect-pad to a multiple of {multiple}")
    padded = torch.nn.functional.pad(images, (0, right, 0, down), mode="reflect")
    return explain(padded)[:, :height, :width]


class Seen(NamedTuple):
    """One measured batch: ``maps [B, H, W]`` float32, ``truth [B, H, W]`` bool, ``right [B]`` bool or None."""

    maps: Tensor
    truth: Tensor
    right: Tensor | None


@torch.no_grad()
def look(method, data: Dataset, *, size: int = 256, multiple: int = 1) -> Iterator[Seen]:
    """The method's maps of its own predicted classes beside the true masks, batch by batch, on the CPU, in eval mode.

    A method without image-level prediction (``classifies`` False) is asked about class 0. No label enters the maps.

    Args:
        size: images per batch; 1 where they differ in size.
        multiple: the network's stride, see `padded_map`.

    Raises:
        ValueError: the data set has no masks.
    """
    with evaluating(method):
        for batch in batches(data, size, device_of(method)):
            if batch.masks is None:
                raise ValueError("data must have masks to measure localisation against, got None")
            yield _look(method, batch, multiple)


def _look(method, batch: Batch, multiple: int) -> Seen:
    if getattr(method, "classifies", True):
        said = method.logits(batch.images).argmax(1)
        right = (said == batch.labels).cpu()
    else:
        said, right = torch.zeros(len(batch.images), dtype=torch.int64, device=batch.images.device), None
    maps = padded_map(lambda images: method.explain(images, said), batch.images, multiple)
    return Seen(maps.float().cpu(), batch.masks.cpu(), right)


def scores_at(method, data: Dataset, levels: Sequence[float], **how) -> Tensor:
    """Mean F1+ and F1- at each threshold: ``[len(levels), 2]``, from one pass over the data."""
    total, count = torch.zeros(len(levels), 2, dtype=torch.float64), 0
    for maps, truth, _ in look(method, data, **how):
        count += len(maps)
        for row, level in enumerate(levels):
            mask = thresholded(maps, level)
            total[row] += torch.stack([f1_foreground(mask, truth).sum(), f1_background(mask, truth).sum()])
    return total / count


def best_level(method, data: Dataset, levels: Sequence[float], **how) -> float:
    """The threshold with the highest mean of F1+ and F1- on ``data``: give it the validation split, never the test."""
    return float(levels[int(scores_at(method, data, levels, **how).sum(1).argmax())])


LEVELS = tuple(round(0.05 * i, 2) for i in range(1, 20))


@torch.no_grad()
def localisation(method, splits: Splits, *, size: int = 256, multiple: int = 1) -> dict[str, float]:
    """All of Table 1's columns on the test split, and what keeps them honest.

    Returns:
        In per cent, as the paper prints: ``f1_plus``, ``f1_minus``: per image, cut at 0.5. ``f1_mean``: their mean.
        ``chosen_plus``, ``chosen_minus``, ``chosen_mean``: cut at ``chosen_level``, where validation is best.
        ``pooled_plus``, ``pooled_minus``: over all pixels, cut at 0.5. ``area``: share of the image predicted.
        ``error``: wrong images, and ``accuracy`` as a share, where the method classifies.
    """
    how = {"size": size, "multiple": multiple}
    level = best_level(method, splits.validation, LEVELS, **how)
    maps, truth, right = zip(*look(method, splits.test, **how))
    found = {"chosen_level": level, **_scores(maps, truth, 0.5, ""), **_scores(maps, truth, level, "chosen_")}
    found["area"] = 100 * _mean([thresholded(m).double().mean((1, 2)) for m in maps])
    if len({m.shape[1:] for m in maps}) == 1:
        plus, minus = f1_pooled(thresholded(torch.cat(maps)), torch.cat(truth))
        found |= {"pooled_plus": 100 * plus, "pooled_minus": 100 * minus}
    if right[0] is not None:
        found["accuracy"] = _mean([r.double() for r in right])
        found["error"] = 100 * (1 - found["accuracy"])
    return found


def validation_error(method, splits: Splits, *, size: int = 256) -> dict[str, float]:
    """``validation_error``: wrong images in per cent on the validation split, what the paper stops training by."""
    right = [seen.right for seen in look(method, splits.validation, size=size)]
    return {"validation_error": 100 - 100 * _mean([r.double() for r in right])}


def _scores(maps, truth, level: float, prefix: str) -> dict[str, float]:
    cut = [thresholded(m, level) for m in maps]
    plus = 100 * _mean([f1_foreground(m, t) for m, t in zip(cut, truth)])
    minus = 100 * _mean([f1_background(m, t) for m, t in zip(cut, truth)])
    names = ("plus", "minus", "mean") if prefix else ("f1_plus", "f1_minus", "f1_mean")
    return {prefix + name: value for name, value in zip(names, (plus, minus, (plus + minus) / 2))}


def _mean(parts: Sequence[Tensor]) -> float:
    return float(torch.cat(list(parts)).mean())
