"""The most confusing wrong classes and their class activation maps, without computing those of all classes.

Sec. 3.2 and Eq. 1 of HNC (Sun, Khan, Li, Cholakkal, Khan, Van Gool, ECCV 2020).
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from .._require import require
from ..maps import check_classes, check_linear, class_activation_map
from .base import check_labels, full_precision

# --- Sec. 3.2: which classes ------------------------------------------------------------------------------------------


def topk_negatives(logits: Tensor, positives: Tensor, keep_top: int) -> tuple[Tensor, Tensor]:
    r"""The k negative classes with the largest scores, :math:`J'_>` of Sec. 3.2, exactly k of them.

    The paper thresholds with >=, which returns more than k classes where scores tie; ``topk`` breaks ties instead. The
    choice carries no gradient.

    Args:
        logits: ``[B, n]``.
        positives: labels ``[B]`` int64, or ``[B, n]`` bool or {0, 1}, nonzero where the class is present.
        keep_top: how many, the paper's k, at least 1; more than there are means all of them.

    Returns:
        ``index [B, k']`` int64 and ``valid [B, k']`` bool; k' = min(k, n - 1) for labels and min(k, n) otherwise.
        ``valid`` is False where an image has fewer negatives than that (the index there is a positive class).

    Raises:
        ValueError: keep_top < 1, the shapes do not fit, or (checked on the CPU only) a label outside [0, n).

    Example:
        >>> logits = torch.tensor([[3.0, 1.0, -2.0, 2.0]])
        >>> topk_negatives(logits, torch.tensor([0]), keep_top=2)
        (tensor([[3, 1]]), tensor([[True, True]]))
        >>> topk_negatives(logits, torch.tensor([[1, 1, 1, 0]]), keep_top=2)[1]  # one negative only
        tensor([[ True, False]])
    """
    require(logits.ndim == 2, "logits must be [B, n]", tuple(logits.shape))
    batch, n = logits.shape
    require(keep_top >= 1, "keep_top must be at least 1", keep_top)
    fit = positives.shape in ((batch,), (batch, n))
    require(fit, f"positives must be [{batch}] or [{batch}, {n}]", tuple(positives.shape))
    if positives.ndim == 1:
        check_labels(positives, batch, n)
        positives = F.one_hot(positives, n)
        keep_top = min(keep_top, n - 1)
    positives = positives.bool()
    # -inf on a copy. Zero instead would select the label itself wherever all negatives lie below zero.
    scores = logits.detach().masked_fill(positives, -math.inf)
    index = scores.topk(min(keep_top, n), dim=1).indices
    return index, ~positives.gather(1, index)


# --- Eq. 1: maps of the chosen classes --------------------------------------------------------------------------------


def gathered_maps(features: Tensor, weight: Tensor, bias: Tensor | None, classes: Tensor) -> Tensor:
    r"""Eq. 1 for the chosen classes only, :math:`M_o(i,j) = \sum_d w_{od} F_d(i,j) + b_o`.

    With the bias (the paper's Eq. 1 drops it, its code does not) the mean of a map is exactly its logit. Three routes
    with equal values; `route` picks by shape. Runs in the dtype of ``weight``, outside autocast.

    Args:
        features: ``[B, c, h, w]``.
        weight, bias: ``[n, c]`` and ``[n]`` (or None) of the linear head.
        classes: ``[B, k]`` int64.

    Returns:
        ``[B, k, h, w]``; gradients reach features, weight and bias. The chunked route cannot be differentiated twice.

    Raises:
        ValueError: shapes that do not fit, an empty batch, or (on the CPU) a class out of range.

    Example:
        >>> features = torch.tensor([[[[1.0, 3.0]]]])  # one channel, two cells
        >>> gathered_maps(features, torch.tensor([[1.0], [2.0], [-1.0]]), None, torch.tensor([[2, 1]]))
        tensor([[[[-1., -3.]],
        <BLANKLINE>
                 [[ 2.,  6.]]]])
    """
    check_linear(features, weight, bias)
    check_classes(classes, len(features), len(weight), dims=(2,))
    with full_precision(features):
        features = features.to(weight.dtype)
        (batch, k), (n, c), cells = classes.shape, weight.shape, features[0, 0].numel()
        way = route(batch, n, c, cells, k)
        if way == "gather":
            return class_activation_map(features, weight, bias, classes)
        if way == "full":
            maps = F.conv2d(features, weight[:, :, None, None], bias)
            return maps.take_along_dim(classes[:, :, None, None], dim=1)
        chunked: Tensor = _ChunkedMaps.apply(features.flatten(2), weight, classes, chunk_size(batch, n, c, cells, k))
        if bias is not None:
            chunked = chunked + bias[classes].unsqueeze(-1)
        return chunked.unflatten(2, features.shape[2:])


def route(batch: int, n: int, c: int, cells: int, k: int) -> str:
    """How to compute k of n maps: ``"gather"``, ``"chunk"`` or ``"full"``, never with more memory than all n maps.

    Gathering copies batch * k * c weights, all maps are batch * n * cells numbers: gathering is the smaller up to
    k = n * cells / c (24 for ImageNet on a ResNet). Above, the batch is cut in chunks that fit and the copies are made
    again in the backward pass. Near k = n / 3 one large product beats many small ones.

    Example:
        >>> [route(batch=32, n=1000, c=2048, cells=49, k=k) for k in (10, 100, 900)]
        ['gather', 'chunk', 'full']
    """
    if k * c <= n * cells:
        return "gather"
    return "chunk" if 3 * k <= n and k * c <= batch * n * cells else "full"


def chunk_size(batch: int, n: int, c: int, cells: int, k: int) -> int:
    """Images per chunk, so that the copied weights fit beside the maps into the memory of all n maps; at least 1.

    Four images already give a matrix product its full speed; more only spill the cache.

    Example:
        >>> [chunk_size(batch=32, n=1000, c=2048, cells=49, k=k) for k in (100, 300)]
        [3, 1]
    """
    return max(1, min(4, batch * n * cells // (2 * k * c)))


class _ChunkedMaps(torch.autograd.Function):
    """``weight[classes] @ features`` that never holds more than one chunk of ``weight[classes]``."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, classes: Tensor, size: int) -> Tensor:
        ctx.save_for_backward(features, weight, classes)
        ctx.size = size
        pairs = zip(features.split(size), classes.split(size), strict=True)
        return torch.cat([_rows(weight, chosen) @ part for part, chosen in pairs])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        features, weight, classes = ctx.saved_tensors
        to_features, to_weight = torch.empty_like(features), torch.zeros_like(weight)
        parts = (t.split(ctx.size) for t in (features, classes, gradient, to_features))
        for part, chosen, g, out in zip(*parts, strict=True):
            torch.matmul(_rows(weight, chosen).transpose(1, 2), g, out=out)
            to_weight.index_add_(0, chosen.flatten(), (g @ part.transpose(1, 2)).flatten(0, 1))
        return to_features, to_weight, None, None


def _rows(weight: Tensor, classes: Tensor) -> Tensor:
    return weight.index_select(0, classes.flatten()).unflatten(0, classes.shape)
