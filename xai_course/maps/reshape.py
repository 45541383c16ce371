"""Features that are not ``[B, D, h, w]``: tokens and channels last, recognised and brought into order.

A reshape is a function of the features. It is applied to their gradient too, so it may only reorder or drop entries.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor

Reshape = Callable[[Tensor], Tensor]


def tokens(prefix: int = 1, grid: tuple[int, int] | None = None) -> Reshape:
    """A reshape for transformers: tokens ``[B, prefix + h*w, D]``, row after row, to ``[B, D, h, w]``.

    Args:
        prefix: tokens before the patches, which get no cell: 1 for a class token (ViT of timm, torchvision and
            transformers), 5 for a class token and four registers, 0 for none (Swin of transformers).
        grid: ``(h, w)``; None for a square.

    Raises:
        ValueError: (when it is used) the patches do not fill the grid.

    Example:
        >>> import torch
        >>> tokens(1)(torch.arange(5.0).view(1, 5, 1))
        tensor([[[[1., 2.],
                  [3., 4.]]]])
    """

    def reshape(features: Tensor) -> Tensor:
        side = math.isqrt(max(features.shape[1] - prefix, 0)) if features.ndim == 3 else 0
        h, w = grid or (side, side)
        if features.ndim != 3 or h * w == 0 or features.shape[1] != prefix + h * w:
            raise ValueError(
                f"tokens must be [B, {prefix} + h*w, D] with a grid of {grid or 'equal sides'}, "
                f"got {tuple(features.shape)}; tokens(prefix, grid=(h, w)) says how many stand before and how they lie"
            )
        return features[:, prefix:].unflatten(1, (h, w)).permute(0, 3, 1, 2)

    return reshape


def channels_last(features: Tensor) -> Tensor:
    """The reshape for the Swin stages of timm and torchvision: ``[B, h, w, D]`` to ``[B, D, h, w]``.

    Example:
        >>> import torch
        >>> channels_last(torch.zeros(2, 7, 7, 768)).shape
        torch.Size([2, 768, 7, 7])
    """
    return features.permute(0, 3, 1, 2)


def check_maps(name: str, features: Tensor, batch: int, size: tuple[int, ...] | None) -> None:
    """Raises ValueError unless these are maps ``[B, D, h, w]`` in the graph, as far as a shape can tell.

    Args:
        name: how the message begins.
        features: what a layer gave.
        batch: B.
        size: ``(H, W)`` of the images, whose aspect the maps must have; None where it is not known.

    Example:
        >>> import torch
        >>> check_maps("'stage'", torch.zeros(1, 7, 7, 768, requires_grad=True), 1, (224, 224))
        Traceback (most recent call last):
        ValueError: 'stage' must be maps [B, D, h, w], got (1, 7, 7, 768), channels last: pass reshape=channels_last
    """
    shape = tuple(features.shape)
    if features.ndim == 3 and len(features) == batch:
        raise ValueError(
            f"{name} must be maps [B, D, h, w], got tokens {shape}: pass reshape=tokens(1) where a class token stands "
            "before the patches, tokens(0) where none does"
        )
    if features.ndim != 4 or len(features) != batch or not features.requires_grad:
        raise ValueError(
            f"{name} must be maps [B, D, h, w] with B={batch} in the graph of the logits, "
            f"got {shape}, requires_grad={features.requires_grad}"
        )
    if size is not None and not same_aspect(shape[2:], size) and same_aspect(shape[1:3], size):
        raise ValueError(f"{name} must be maps [B, D, h, w], got {shape}, channels last: pass reshape=channels_last")


def same_aspect(cells: tuple[int, ...], size: tuple[int, ...]) -> bool:
    """Whether one stride s leads from ``(H, W)`` to ``(h, w)``, up to one cell: |H/s - h| <= 1 and |W/s - w| <= 1.

    Example:
        >>> same_aspect((7, 10), (224, 300)), same_aspect((7, 768), (224, 224))
        (True, False)
    """
    (h, w), (H, W) = cells, size
    return H * (w - 1) <= W * (h + 1) and W * (h - 1) <= H * (w + 1)
