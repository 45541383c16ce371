"""Features that are not ``[B, D, h, w]``: tokens and channels last, recognised and brought into order.

A reshape is a function of the features. It is applied to their gradient too, so it may only reorder or drop entries.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor, nn

from .._require import require

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
        fit = features.ndim == 3 and h * w and features.shape[1] == prefix + h * w
        wanted = f"[B, {prefix} + h*w, D] with a grid of {grid or 'equal sides'}, got {tuple(features.shape)}"
        require(
            fit, f"tokens must be {wanted}; tokens(prefix, grid=(h, w)) says how many stand before and how they lie"
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


class Layer(NamedTuple):
    """What a layer gave, how a message calls it, and what tells its axes apart: the image's size and the module."""

    name: str
    features: Tensor
    size: tuple[int, ...] | None = None
    module: nn.Module | None = None


def check_maps(layer: Layer, features: Tensor, batch: int) -> None:
    """Raises ValueError unless these are maps ``[B, D, h, w]`` in the graph, as far as a shape can tell.

    Args:
        layer: what is checked; where its ``size`` ``(H, W)`` is known, the maps must have the aspect of the image. If
            both readings have it (96 channels on 96x96 positions), linear layers without a convolution decide for
            channels last.
        features: the layer's features, reshaped.
        batch: B.

    Example:
        >>> import torch
        >>> features = torch.zeros(1, 7, 7, 768, requires_grad=True)
        >>> check_maps(Layer("'stage'", features, (224, 224)), features, 1)
        Traceback (most recent call last):
        ValueError: 'stage' must be maps [B, D, h, w], got (1, 7, 7, 768), channels last: pass reshape=channels_last
    """
    shape, (name, _, size, module) = tuple(features.shape), layer
    cure = "pass reshape=tokens(1) where a class token stands before the patches, tokens(0) where none does"
    tokens_came = features.ndim == 3 and len(features) == batch
    require(not tokens_came, f"{name} must be maps [B, D, h, w], got tokens {shape}: {cure}")
    fit, graph = features.ndim == 4 and len(features) == batch, features.requires_grad
    wanted = f"maps [B, D, h, w] with B={batch} in the graph of the logits"
    require(fit and graph, f"{name} must be {wanted}, got {shape}, requires_grad={graph}")
    if size is None or not same_aspect(shape[1:3], size):
        return
    parts = [] if module is None else [*module.modules()]
    linear = any(type(part) in (nn.Linear, nn.LayerNorm) for part in parts)  # norms made for maps are subclasses
    fit = same_aspect(shape[2:], size) and not (linear and not any(isinstance(part, nn.Conv2d) for part in parts))
    require(fit, f"{name} must be maps [B, D, h, w], got {shape}, channels last: pass reshape=channels_last")


def same_aspect(cells: tuple[int, ...], size: tuple[int, ...]) -> bool:
    """Whether one stride s leads from ``(H, W)`` to ``(h, w)``, up to one cell in height and in width.

    Example:
        >>> same_aspect((7, 10), (224, 300)), same_aspect((7, 768), (224, 224))
        (True, False)
    """
    (h, w), (H, W) = cells, size
    return H * (w - 1) <= W * (h + 1) and W * (h - 1) <= H * (w + 1)
