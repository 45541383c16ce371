"""Deletion and insertion: does the score move when the pixels a map ranks first are taken away, or given back?"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..data.batch import Splits, batches
from ..nets.modes import device_of, evaluating
from .trivial import TRIVIAL


def deletion_auc(score: Callable[[Tensor], Tensor], images: Tensor, maps: Tensor, **how) -> Tensor:
    """Area under the score while pixels are removed, most important first (Petsiuk et al. 2018); lower is better.

    Args:
        score: ``[B, C, H, W] -> [B]``, for example the softmax probability of the explained class.
        images: ``[B, C, H, W]``.
        maps: ``[B, H, W]``; only the order of the pixels counts, equal values in reading order.
        how: ``steps`` (default 16) equal portions; ``baseline``, what removed pixels become: "mean" (each image's mean
            colour, default), "blur" (Gaussian), or a tensor that broadcasts to the images.

    Returns:
        ``[B]``, trapezoid area over the share of pixels removed, from 0 to 1.
    """
    return _area(score, images, maps, insert=False, **how)


def insertion_auc(score: Callable[[Tensor], Tensor], images: Tensor, maps: Tensor, **how) -> Tensor:
    """Area under the score while the pixels appear on the baseline, most important first; higher is better.

    Arguments and result as in `deletion_auc`.
    """
    return _area(score, images, maps, insert=True, **how)


def deletion(
    method, splits: Splits, *, images: int = 256, steps: int = 8, trivial: Sequence[str] = ("random", "edges")
) -> dict[str, float]:
    """``deletion_auc`` of the predicted class's probability on the first test images, pixels blurred away.

    Beside the method's own map: those named in ``trivial`` (keys of `trivial.TRIVIAL`), each under its name, and
    ``_mask``, the true object as the map. A network that never needed the object keeps its score when that is deleted,
    whatever its maps look like.
    """
    device = device_of(method)
    batch = next(iter(batches(splits.test, images, device)))
    with evaluating(method), torch.no_grad():
        classes = method.logits(batch.images).argmax(1)
        ways = {"": method.explain(batch.images, classes)}
        ways |= {f"_{name}": TRIVIAL[name](batch.images) for name in trivial}
        if batch.masks is not None:
            ways["_mask"] = batch.masks.to(batch.images.dtype)

        def score(changed: Tensor) -> Tensor:
            return method.logits(changed).softmax(1).gather(1, classes.unsqueeze(1))[:, 0]

        found = {k: deletion_auc(score, batch.images, m, steps=steps, baseline="blur") for k, m in ways.items()}
    return {f"deletion_auc{name}": float(values.mean()) for name, values in found.items()}


@torch.no_grad()
def _area(
    score, images: Tensor, maps: Tensor, *, insert: bool, steps: int = 16, baseline: str | Tensor = "mean"
) -> Tensor:
    if maps.ndim != 3 or images.ndim != 4 or maps.shape != images[:, 0].shape:
        raise ValueError(f"maps must be [B, H, W] of the images {tuple(images.shape)}, got {tuple(maps.shape)}")
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    empty = _baseline(images, baseline)
    place = maps.flatten(1).argsort(dim=1, descending=True, stable=True).argsort(dim=1)  # rank of each pixel, 0 first
    rank = place.view(maps.shape).unsqueeze(1)
    pixels, values = maps[0].numel(), []
    for step in range(steps + 1):
        first = rank < round(pixels * step / steps)
        values.append(score(torch.where(first == insert, images, empty)).double())
    return torch.trapezoid(torch.stack(values, 1), dx=1 / steps, dim=1)


def _baseline(images: Tensor, kind: str | Tensor) -> Tensor:
    if isinstance(kind, Tensor):
        return kind.to(images).expand_as(images)
    if kind == "mean":
        return images.mean((2, 3), keepdim=True).expand_as(images)
    if kind == "blur":
        side = min(images.shape[-2:])
        sigma, reach = side / 8, max(1, side // 4)
        bell = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, device=images.device) / sigma).square()).to(
            images.dtype
        )
        bell, channels = bell / bell.sum(), images.shape[1]
        rows = F.pad(images, (reach, reach, reach, reach), mode="replicate")
        rows = F.conv2d(rows, bell.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)
        return F.conv2d(rows, bell.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)
    raise ValueError(f'baseline must be "mean", "blur" or a tensor, got {kind!r}')
