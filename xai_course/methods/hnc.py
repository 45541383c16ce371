"""HNC loss: flatten the class activation maps of the most confusing wrong classes.

Sun, Khan, Li, Cholakkal, Khan, Van Gool, "Fixing Localization Errors to Improve Image Classification", ECCV 2020.
Equations in the paper's order as plain functions, then the `Method`. Maps are in logit units, with their sign; the
spatial mean of a map is its logit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ..data.batch import Batch, Dataset, batches
from ..maps import check_classes, check_linear, class_activation_map, gap_head
from ..nets.modes import evaluating
from ..preset import Clock
from .base import Losses, Method, classification_loss, wide

REDUCTIONS = ("sum", "mean")


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
        ValueError: keep_top < 1, or the shapes do not fit.
    """
    batch, n = _shape(logits, "logits", 2)
    if keep_top < 1:
        raise ValueError(f"keep_top must be at least 1, got {keep_top}")
    if positives.shape not in ((batch,), (batch, n)):
        raise ValueError(f"positives must be [{batch}] or [{batch}, {n}], got {tuple(positives.shape)}")
    if positives.ndim == 1:
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
    """
    check_linear(features, weight, bias)
    check_classes(classes, len(features), len(weight), dims=(2,))
    with torch.autocast(features.device.type, enabled=False):
        features = features.to(weight.dtype)
        (batch, k), (n, c), cells = classes.shape, weight.shape, features[0, 0].numel()
        way = route(batch, n, c, cells, k)
        if way == "gather":
            return class_activation_map(features, weight, bias, classes)
        if way == "full":
            maps = F.conv2d(features, weight[:, :, None, None], bias)
            return maps.take_along_dim(classes[:, :, None, None], dim=1)
        maps = _ChunkedMaps.apply(features.flatten(2), weight, classes, chunk_size(batch, n, c, cells, k))
        if bias is not None:
            maps = maps + bias[classes].unsqueeze(-1)
        return maps.unflatten(2, features.shape[2:])


def route(batch: int, n: int, c: int, cells: int, k: int) -> str:
    """How to compute k of n maps: ``"gather"``, ``"chunk"`` or ``"full"``, never with more memory than all n maps.

    Gathering copies batch * k * c weights, all maps are batch * n * cells numbers: gathering is the smaller up to
    k = n * cells / c (24 for ImageNet on a ResNet). Above, the batch is cut in chunks that fit and the copies are made
    again in the backward pass. Near k = n / 3 one large product beats many small ones.
    """
    if k * c <= n * cells:
        return "gather"
    return "chunk" if 3 * k <= n and k * c <= batch * n * cells else "full"


def chunk_size(batch: int, n: int, c: int, cells: int, k: int) -> int:
    """Images per chunk, so that the copied weights fit beside the maps into the memory of all n maps; at least 1.

    Four images already give a matrix product its full speed; more only spill the cache.
    """
    return max(1, min(4, batch * n * cells // (2 * k * c)))


class _ChunkedMaps(torch.autograd.Function):
    """``weight[classes] @ features`` that never holds more than one chunk of ``weight[classes]``."""

    @staticmethod
    def forward(ctx, features: Tensor, weight: Tensor, classes: Tensor, size: int) -> Tensor:
        ctx.save_for_backward(features, weight, classes)
        ctx.size = size
        pairs = zip(features.split(size), classes.split(size), strict=True)
        return torch.cat([_rows(weight, chosen) @ part for part, chosen in pairs])

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor):
        features, weight, classes = ctx.saved_tensors
        to_features, to_weight = torch.empty_like(features), torch.zeros_like(weight)
        parts = (t.split(ctx.size) for t in (features, classes, gradient, to_features))
        for part, chosen, g, out in zip(*parts, strict=True):
            torch.matmul(_rows(weight, chosen).transpose(1, 2), g, out=out)
            to_weight.index_add_(0, chosen.flatten(), (g @ part.transpose(1, 2)).flatten(0, 1))
        return to_features, to_weight, None, None


# --- Eq. 2-5 and the controls: one number per map, float32 at least -------------------------------------------------


def mean_square(maps: Tensor, target: float = 0.0) -> Tensor:
    r"""One class of Eq. 2, :math:`\frac1{hw}\sum_{ij}(M_o(i,j)-\alpha)^2`. ``[B, k, h, w] -> [B, k]`` in [0, inf)."""
    return (wide(maps) - target).square().mean(dim=(2, 3))


def uniform_divergence(maps: Tensor) -> Tensor:
    r"""One class of Eq. 5, :math:`-\frac1{hw}\sum_{ij}\log\mathrm{softmax}(M_o)_{ij} = \mathrm{LSE}(M_o)-\bar M_o`.

    ``[B, k, h, w] -> [B, k]`` in [log(hw), inf): the printed loss drops the constant of Eq. 4, so a flat map costs
    log(hw), not 0, and :math:`D_{KL}(U\|M'_o)` is this minus log(hw). Log-sum-exp is finite where the exponentials of
    the maps are not.
    """
    flat = wide(maps).flatten(2)
    return flat.logsumexp(dim=2) - flat.mean(dim=2)


def squared_logit(maps: Tensor, target: float = 0.0) -> Tensor:
    r"""Control that sees no shape, :math:`(\bar M_o-\alpha)^2 = (s_o-\alpha)^2`. ``[B, k, h, w] -> [B, k]``."""
    return (wide(maps).mean(dim=(2, 3)) - target).square()


def spatial_variance(maps: Tensor) -> Tensor:
    r"""Control that sees no level, :math:`\frac1{hw}\sum_{ij}(M_o(i,j)-\bar M_o)^2`. ``[B, k, h, w] -> [B, k]``.

    Eq. 2 is exactly `squared_logit` plus this.
    """
    return wide(maps).var(dim=(2, 3), correction=0)


def reduce_classes(values: Tensor, valid: Tensor | None = None, *, reduction_k: str) -> Tensor:
    """Per-class penalties ``[B, k]`` to one scalar: over classes by ``reduction_k``, then the mean over images.

    Args:
        values: ``[B, k]``.
        valid: ``[B, k]`` bool, None for all True. An image without a valid class counts as 0.
        reduction_k: ``"sum"`` as Eq. 2 and 5 print it, ``"mean"`` over the valid classes (lambda then survives a
            change of k). The official code takes the mean for mse and the sum for kd.

    Raises:
        ValueError: another reduction, or shapes that differ.
    """
    if reduction_k not in REDUCTIONS:
        raise ValueError(f"reduction_k must be one of {', '.join(REDUCTIONS)}, got {reduction_k!r}")
    valid = torch.ones_like(values, dtype=torch.bool) if valid is None else valid
    if valid.shape != values.shape:
        raise ValueError(f"valid must be {tuple(values.shape)}, got {tuple(valid.shape)}")
    total = values.where(valid, 0).sum(dim=1)
    if reduction_k == "mean":
        total = total / valid.sum(dim=1).clamp_min(1)
    return total.sum() / max(1, len(total))


def hnc_mse(maps: Tensor, valid: Tensor | None = None, *, target: float = 0.0, reduction_k: str) -> Tensor:
    """Eq. 2 on the selected maps ``[B, k, h, w]``, mean over the batch (which the paper does not print)."""
    return reduce_classes(mean_square(maps, target), valid, reduction_k=reduction_k)


def hnc_kd(maps: Tensor, valid: Tensor | None = None, *, reduction_k: str) -> Tensor:
    """Eq. 5 on the selected maps ``[B, k, h, w]``, mean over the batch. "kd" is a KL divergence, not distillation."""
    return reduce_classes(uniform_divergence(maps), valid, reduction_k=reduction_k)


PENALTIES: dict[str, Callable[[Tensor], Tensor]] = {
    "mse": mean_square,
    "kd": uniform_divergence,
    "logit": squared_logit,
    "variance": spatial_variance,
}


# --- Eq. 8: weighted sigmoid cross-entropy ----------------------------------------------------------------------------


def weighted_sigmoid_cross_entropy(logits: Tensor, targets: Tensor, positive_rate: Tensor) -> Tensor:
    r"""Eq. 8, :math:`-\frac1n\sum_o u_o[y_o\log\sigma(s_o)+(1-y_o)\log(1-\sigma(s_o))]`, mean over the batch.

    :math:`u_o = e^{1-p_o}` where the class is present and :math:`e^{p_o}` where it is not, so u lies in [1, e] and a
    rare class counts more when it is there.

    Args:
        logits, targets: ``[B, n]``; targets in {0, 1}.
        positive_rate: ``[n]`` in [0, 1], :math:`p_o`, the share of training images that show the class.

    Raises:
        ValueError: shapes that do not fit, or (checked on the CPU only) a rate outside [0, 1].
    """
    batch, n = _shape(logits, "logits", 2)
    if targets.shape != (batch, n) or positive_rate.shape != (n,):
        raise ValueError(
            f"targets must be [{batch}, {n}] and positive_rate [{n}], "
            f"got {tuple(targets.shape)} and {tuple(positive_rate.shape)}"
        )
    if positive_rate.device.type == "cpu" and not ((positive_rate >= 0) & (positive_rate <= 1)).all():
        raise ValueError(f"positive_rate must lie in [0, 1], got {positive_rate.min():.3g}..{positive_rate.max():.3g}")
    targets, rate = targets.to(logits.dtype), positive_rate.to(logits.dtype)
    weight = torch.where(targets > 0.5, (1 - rate).exp(), rate.exp())
    return F.binary_cross_entropy_with_logits(logits, targets, weight)


def positive_rate(data: Dataset, size: int = 1024) -> Tensor:
    r""":math:`p_o` of Eq. 8: the share ``[n]`` of images of a multi-label data set that show each class."""
    return torch.cat([batch.labels for batch in batches(data, size)]).mean(dim=0)


# --- Eq. 7 and 9: the method ------------------------------------------------------------------------------------------


class HNC(Method):
    r"""Eq. 7 and 9, :math:`L = \mathrm{CE} + \lambda\,\mathrm{HNC}`, with its two controls under the same interface.

    Args:
        net: a network whose logits are one linear layer (``head``) on the spatial mean of ``features``.
        penalty: ``"mse"`` (Eq. 2), ``"kd"`` (Eq. 5), or a control, ``"logit"`` (level only) or ``"variance"`` (shape
            only).
        balance: lambda, at least 0. The unit depends on ``penalty`` and ``reduction_k``.
        keep_top: k, negative classes per image; None takes n // 10, at least 1 (the official code: 100 of 1000).
        target: alpha, the value the maps are pulled to, Eq. 2; for ``"mse"`` and ``"logit"``.
        reduction_k: ``"mean"`` or ``"sum"`` over the k classes.
        positive_rate: ``[n]``; turns the classification loss of multi-label data into Eq. 8.

    Raises:
        ValueError: the network is not GAP + linear, an argument is out of range, or a batch is empty.
    """

    def __init__(
        self,
        net: nn.Module,
        penalty: str = "mse",
        balance: float = 0.1,
        *,
        keep_top: int | None = None,
        target: float = 0.0,
        reduction_k: str = "mean",
        positive_rate: Tensor | None = None,
    ):
        super().__init__(net)
        if penalty not in PENALTIES:
            raise ValueError(f"penalty must be one of {', '.join(PENALTIES)}, got {penalty!r}")
        if reduction_k not in REDUCTIONS:
            raise ValueError(f"reduction_k must be one of {', '.join(REDUCTIONS)}, got {reduction_k!r}")
        if not balance >= 0:
            raise ValueError(f"balance must be at least 0, got {balance}")
        classes = gap_head(net).out_features
        self.keep_top = max(1, classes // 10) if keep_top is None else keep_top
        if self.keep_top < 1:
            raise ValueError(f"keep_top must be at least 1, got {keep_top}")
        self.penalty, self.balance, self.target, self.reduction_k = penalty, balance, target, reduction_k
        self.register_buffer("positive_rate", positive_rate, persistent=False)
        self._checked = False

    def losses(self, batch: Batch, clock: Clock) -> Iterator[Losses]:
        if not len(batch.images):
            raise ValueError("batch must hold at least one image, got an empty one")
        if not self._checked:  # once: a network with something between pooling and scores has no such maps
            check_gap_linear(self.net, batch.images[:1])
            self._checked = True
        features, head = self.net.features(batch.images), gap_head(self.net)
        logits = head(features.mean(dim=(2, 3)))
        answer = self.classification(logits, batch.labels)
        flatness = self.homogeneity(features, logits, batch.labels)
        yield {"classification": answer, "hnc": flatness, "total": answer + self.balance * flatness}

    def classification(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Eq. 6 or Eq. 8 (mean binary cross-entropy without ``positive_rate``)."""
        if labels.ndim == 2 and self.positive_rate is not None:
            return weighted_sigmoid_cross_entropy(logits, labels, self.positive_rate)
        return classification_loss(logits, labels)

    def homogeneity(self, features: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        """The penalty on the top-k negative maps: a scalar, before ``balance``."""
        index, valid = topk_negatives(logits, labels, self.keep_top)
        head = gap_head(self.net)
        maps = gathered_maps(features, head.weight, head.bias, index)
        extra = (self.target,) if self.penalty in ("mse", "logit") else ()
        return reduce_classes(PENALTIES[self.penalty](maps, *extra), valid, reduction_k=self.reduction_k)


@torch.no_grad()
def check_gap_linear(net: nn.Module, images: Tensor, tolerance: float = 1e-3) -> None:
    """Compare ``net(images)`` with its head on the spatial mean of its features, in eval mode; modes are put back.

    Raises:
        ValueError: they differ by more than ``tolerance`` of the largest logit: the maps of Eq. 1 do not average to the
            logits of this network.
    """
    head = gap_head(net)
    with evaluating(net), torch.autocast(images.device.type, enabled=False):
        logits, pooled = net(images), head(net.features(images).mean(dim=(2, 3)))
    if logits.shape != pooled.shape or not (logits - pooled).abs().max() <= tolerance * logits.abs().max():
        raise ValueError(
            f"net must be global average pooling and one linear layer: {type(net).__name__} returns other logits than "
            "head(features.mean((2, 3))), so its class activation maps do not explain them"
        )


def _rows(weight: Tensor, classes: Tensor) -> Tensor:
    return weight.index_select(0, classes.flatten()).unflatten(0, classes.shape)


def _shape(values: Tensor, name: str, ndim: int) -> tuple[int, ...]:
    if values.ndim != ndim:
        raise ValueError(f"{name} must have {ndim} dimensions, got {tuple(values.shape)}")
    return tuple(values.shape)
