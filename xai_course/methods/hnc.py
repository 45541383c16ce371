"""HNC loss: flatten the class activation maps of the most confusing wrong classes.

Sun, Khan, Li, Cholakkal, Khan, Van Gool, "Fixing Localization Errors to Improve Image Classification", ECCV 2020.
Equations in the paper's order as plain functions (Sec. 3.2 and Eq. 1 are in `negatives`), then the criteria and the
`Method`. Maps are in logit units, with their sign; the spatial mean of a map is its logit.
"""

from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._require import require
from ..data.batch import Batch
from ..maps import gap_head
from ..nets.convnets import GapClassifier
from ..nets.modes import evaluating
from ..preset import Clock
from .base import FunctionCriterion, Losses, Method, classification_loss, full_precision, reduced, wide
from .negatives import gathered_maps, topk_negatives

OVER_CLASSES = ("sum", "mean")


# --- Eq. 2-5 and the controls: one number per map, float32 at least -------------------------------------------------


def mean_square(maps: Tensor, target: float = 0.0) -> Tensor:
    r"""One class of Eq. 2, :math:`\frac1{hw}\sum_{ij}(M_o(i,j)-\alpha)^2`. ``[B, k, h, w] -> [B, k]`` in [0, inf).

    Example:
        >>> mean_square(torch.tensor([[[[1.0, 3.0]]]])), mean_square(torch.tensor([[[[1.0, 3.0]]]]), target=2.0)
        (tensor([[5.]]), tensor([[1.]]))
    """
    return (wide(maps) - target).square().mean(dim=(2, 3))


def uniform_divergence(maps: Tensor) -> Tensor:
    r"""One class of Eq. 5, :math:`-\frac1{hw}\sum_{ij}\log\mathrm{softmax}(M_o)_{ij} = \mathrm{LSE}(M_o)-\bar M_o`.

    ``[B, k, h, w] -> [B, k]`` in [log(hw), inf): the printed loss drops the constant of Eq. 4, so a flat map costs
    log(hw), not 0, and :math:`D_{KL}(U\|M'_o)` is this minus log(hw). Log-sum-exp is finite where the exponentials of
    the maps are not.

    Example:
        >>> flat, peak = torch.full((1, 1, 7, 7), 3.0), torch.zeros(1, 1, 7, 7)
        >>> peak[..., 0, 0] = 200.0
        >>> uniform_divergence(flat).exp(), uniform_divergence(peak)
        (tensor([[49.0000]]), tensor([[195.9184]]))
    """
    flat = wide(maps).flatten(2)
    return flat.logsumexp(dim=2) - flat.mean(dim=2)


def squared_logit(maps: Tensor, target: float = 0.0) -> Tensor:
    r"""Control that sees no shape, :math:`(\bar M_o-\alpha)^2 = (s_o-\alpha)^2`. ``[B, k, h, w] -> [B, k]``.

    Example:
        >>> squared_logit(torch.tensor([[[[1.0, 3.0]]]]))
        tensor([[4.]])
    """
    return (wide(maps).mean(dim=(2, 3)) - target).square()


def spatial_variance(maps: Tensor) -> Tensor:
    r"""Control that sees no level, :math:`\frac1{hw}\sum_{ij}(M_o(i,j)-\bar M_o)^2`. ``[B, k, h, w] -> [B, k]``.

    Eq. 2 is exactly `squared_logit` plus this.

    Example:
        >>> spatial_variance(torch.tensor([[[[1.0, 3.0]]]]))
        tensor([[1.]])
    """
    return wide(maps).var(dim=(2, 3), correction=0)


def reduce_classes(
    values: Tensor, valid: Tensor | None = None, *, reduction_k: str = "mean", reduction: str = "mean"
) -> Tensor:
    """Per-class penalties ``[B, k]``: over the classes by ``reduction_k``, then over the images by ``reduction``.

    Args:
        values: ``[B, k]``.
        valid: ``[B, k]`` bool, None for all True. An image without a valid class counts as 0.
        reduction_k: ``"sum"`` as Eq. 2 and 5 print it, ``"mean"`` over the valid classes (lambda then survives a
            change of k). The official code takes the mean for mse and the sum for kd.
        reduction: see `reduced`; the paper prints none, its code takes the mean.

    Raises:
        ValueError: another reduction, or shapes that differ.

    Example:
        >>> values, valid = torch.tensor([[2.0, 4.0], [8.0, 9.0]]), torch.tensor([[True, True], [True, False]])
        >>> [reduce_classes(values, valid, reduction_k=how, reduction="none").tolist() for how in OVER_CLASSES]
        [[6.0, 8.0], [3.0, 8.0]]
    """
    require(reduction_k in OVER_CLASSES, f"reduction_k must be one of {', '.join(OVER_CLASSES)}", repr(reduction_k))
    valid = torch.ones_like(values, dtype=torch.bool) if valid is None else valid
    require(valid.shape == values.shape, f"valid must be {tuple(values.shape)}", tuple(valid.shape))
    total = values.where(valid, 0).sum(dim=1)
    if reduction_k == "mean":
        total = total / valid.sum(dim=1).clamp_min(1)
    return reduced(total, reduction)


def hnc_mse(maps: Tensor, valid: Tensor | None = None, *, target: float = 0.0, **reductions: str) -> Tensor:
    """Eq. 2 on the selected maps ``[B, k, h, w]``; ``reductions`` as in `reduce_classes`.

    Example:
        >>> hnc_mse(torch.tensor([[[[1.0, 3.0]], [[0.0, 0.0]]]]), reduction_k="sum")
        tensor(5.)
    """
    return reduce_classes(mean_square(maps, target), valid, **reductions)


def hnc_kd(maps: Tensor, valid: Tensor | None = None, **reductions: str) -> Tensor:
    """Eq. 5 on the selected maps ``[B, k, h, w]``; "kd" is a KL divergence, not distillation.

    Example:
        >>> hnc_kd(torch.zeros(1, 3, 2, 2), reduction_k="sum").exp()  # three flat maps of four cells
        tensor(64.)
    """
    return reduce_classes(uniform_divergence(maps), valid, **reductions)


PENALTIES: dict[str, Callable[..., Tensor]] = {
    "mse": mean_square,
    "kd": uniform_divergence,
    "logit": squared_logit,
    "variance": spatial_variance,
}


TARGETED = ("mse", "logit")  # penalties that pull to a value


# --- Eq. 8: weighted sigmoid cross-entropy ----------------------------------------------------------------------------


def weighted_sigmoid_cross_entropy(
    logits: Tensor, targets: Tensor, positive_rate: Tensor, reduction: str = "mean"
) -> Tensor:
    r"""Eq. 8, :math:`-\frac1n\sum_o u_o[y_o\log\sigma(s_o)+(1-y_o)\log(1-\sigma(s_o))]` of each image.

    :math:`u_o = e^{1-p_o}` where the class is present and :math:`e^{p_o}` where it is not, so u lies in [1, e] and a
    rare class counts more when it is there.

    Args:
        logits, targets: ``[B, n]``; targets in {0, 1}.
        positive_rate: ``[n]`` in [0, 1], :math:`p_o`, the share of training images that show the class.
        reduction: over the images, see `reduced`.

    Raises:
        ValueError: shapes that do not fit, or (checked on the CPU only) a rate outside [0, 1].

    Example:
        >>> logits, targets = torch.zeros(1, 2), torch.tensor([[1.0, 0.0]])
        >>> weighted_sigmoid_cross_entropy(logits, targets, torch.zeros(2))  # (e + 1) / 2 log 2
        tensor(1.2887)
    """
    shapes = [tuple(each.shape) for each in (logits, targets, positive_rate)]
    fit = logits.ndim == 2 and len(logits) and shapes[0] == shapes[1] and shapes[0][1:] == shapes[2]
    require(fit, "logits and targets must be [B, n] with B > 0 and positive_rate [n]", *shapes)
    if positive_rate.device.type == "cpu":
        low, high = positive_rate.min().item(), positive_rate.max().item()
        require(0 <= low <= high <= 1, f"positive_rate must lie in [0, 1], got {low:.3g}..{high:.3g}")
    logits = wide(logits)
    targets, rate = targets.to(logits.dtype), positive_rate.to(logits.dtype)
    weight = torch.where(targets > 0.5, (1 - rate).exp(), rate.exp())
    if reduction == "mean":
        return F.binary_cross_entropy_with_logits(logits, targets, weight)
    return reduced(F.binary_cross_entropy_with_logits(logits, targets, weight, reduction="none"), reduction)


class WeightedSigmoidCrossEntropy(FunctionCriterion, of=weighted_sigmoid_cross_entropy):
    """`weighted_sigmoid_cross_entropy` as a criterion, called with ``logits, targets [B, n]``.

    Args:
        positive_rate: ``[n]``; a buffer, so that it follows the criterion to its device. See `positive_rate`.
        reduction: see `reduced`.

    Example:
        >>> criterion = WeightedSigmoidCrossEntropy(torch.tensor([0.1, 0.5]))
        >>> missed = [criterion(torch.zeros(1, 2), torch.tensor([labels])) for labels in ([1.0, 0.0], [0.0, 1.0])]
        >>> bool(missed[0] > missed[1])  # the rare class weighs more
        True
    """


# --- Eq. 2 and 5 of a batch -------------------------------------------------------------------------------------------


def homogeneous_negative_maps(
    features: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    labels: Tensor,
    logits: Tensor | None = None,
    *,
    penalty: str = "mse",
    keep_top: int | None = None,
    target: float = 0.0,
    reduction_k: str = "mean",
    reduction: str = "mean",
) -> Tensor:
    r"""The penalty of Eq. 2 or 5 on the class activation maps of the top-k negative classes.

    Args:
        features: ``[B, c, h, w]``, what global average pooling reads.
        weight, bias: ``[n, c]`` and ``[n]`` (or None) of the linear layer behind the pooling.
        labels: ``[B]`` int64, or ``[B, n]``, nonzero where a class is present.
        logits: ``[B, n]``, which choose the classes; computed where they are not given.
        penalty: ``"mse"`` (Eq. 2), ``"kd"`` (Eq. 5), or a control, ``"logit"`` (level only) or ``"variance"`` (shape
            only).
        keep_top: k, negative classes per image; None takes n // 10, at least 1 (the official code: 100 of 1000).
        target: alpha, the value the maps are pulled to, Eq. 2; for ``"mse"`` and ``"logit"``.
        reduction_k, reduction: over the classes and over the images, see `reduce_classes`.

    Returns:
        A scalar, or ``[B]`` for ``reduction="none"``; float32 at least.

    Raises:
        ValueError: an unknown option, shapes that do not fit, an empty batch, or (on the CPU) a label out of range.

    Example:
        >>> features = torch.tensor([[[[1.0, 3.0]]]])  # one channel, two cells: maps (1, 3), (2, 6) and (-1, -3)
        >>> weight, labels = torch.tensor([[1.0], [2.0], [-1.0]]), torch.tensor([1])
        >>> [homogeneous_negative_maps(features, weight, None, labels, penalty=p).item() for p in ("mse", "variance")]
        [5.0, 1.0]
    """
    require(penalty in PENALTIES, f"penalty must be one of {', '.join(PENALTIES)}", repr(penalty))
    if logits is None:
        logits = F.linear(features.detach().mean(dim=(2, 3)), weight, bias)
    index, valid = topk_negatives(logits, labels, max(1, len(weight) // 10) if keep_top is None else keep_top)
    maps = gathered_maps(features, weight, bias, index)
    values = PENALTIES[penalty](maps, target) if penalty in TARGETED else PENALTIES[penalty](maps)
    return reduce_classes(values, valid, reduction_k=reduction_k, reduction=reduction)


class HomogeneousNegativeMaps(FunctionCriterion, of=homogeneous_negative_maps, takes=5):
    """`homogeneous_negative_maps` as a criterion, for anybody's training loop.

    Args:
        penalty, keep_top, target, reduction_k, reduction: see there. Called with ``features, weight, bias, labels``
            and, where they are at hand, ``logits``.

    Raises:
        ValueError: a wrong option, when it is made.

    Example:
        >>> body, head = nn.Conv2d(3, 8, 3), nn.Linear(8, 10)
        >>> criterion = HomogeneousNegativeMaps(penalty="kd", keep_top=3)
        >>> images, labels = torch.rand(2, 3, 6, 6), torch.tensor([4, 0])
        >>> features = body(images)
        >>> logits = head(features.mean(dim=(2, 3)))
        >>> loss = F.cross_entropy(logits, labels) + 0.65 * criterion(features, head.weight, head.bias, labels)
        >>> loss.backward()
    """

    trial = (torch.zeros(1, 1, 1, 1), torch.zeros(2, 1), None, torch.zeros(1, dtype=torch.int64))


# --- Eq. 7 and 9: the method ------------------------------------------------------------------------------------------


class HNC(Method):
    r"""Eq. 7 and 9, :math:`L = \mathrm{CE} + \lambda\,\mathrm{HNC}`, with its two controls under the same interface.

    Args:
        net: a network whose logits are one linear layer (``head``) on the spatial mean of ``features``.
        penalty: see `homogeneous_negative_maps`.
        balance: lambda, at least 0. The unit depends on ``penalty`` and ``reduction_k``.
        positive_rate: ``[n]``; turns the classification loss of multi-label data into Eq. 8.
        **options: ``keep_top``, ``target`` and ``reduction_k``, see there.

    Raises:
        ValueError: the network is not GAP + linear, an argument is out of range, or a batch is empty.

    Example:
        >>> from xai_course.nets.convnets import small_cnn
        >>> method = HNC(small_cnn(10, channels=1, width=2), "kd", balance=0.65, keep_top=3)
        >>> batch = Batch(torch.rand(2, 1, 8, 8), torch.tensor([4, 0]), None, torch.arange(2))
        >>> (terms,) = method.losses(batch, Clock())
        >>> bool(terms["total"] == terms["classification"] + 0.65 * terms["hnc"])
        True
    """

    net: GapClassifier
    positive_rate: Tensor | None

    def __init__(
        self,
        net: nn.Module,
        penalty: str = "mse",
        balance: float = 0.1,
        *,
        positive_rate: Tensor | None = None,
        **options: Any,
    ):
        super().__init__(net)
        gap_head(net)
        require(balance >= 0, "balance must be at least 0", balance)
        self.balance = balance
        self.homogeneity = HomogeneousNegativeMaps(penalty, **options)
        self.register_buffer("positive_rate", positive_rate, persistent=False)
        self._checked = False

    def losses(self, batch: Batch, clock: Clock) -> Iterator[Losses]:
        require(len(batch.images), "batch must hold at least one image, got an empty one")
        if not self._checked:  # once: a network with something between pooling and scores has no such maps
            check_gap_linear(self.net, batch.images[:1])
            self._checked = True
        features, head = self.net.features(batch.images), gap_head(self.net)
        logits = head(features.mean(dim=(2, 3)))
        answer = self.classification(logits, batch.labels)
        flatness = self.homogeneity(features, head.weight, head.bias, batch.labels, logits)
        yield {"classification": answer, "hnc": flatness, "total": answer + self.balance * flatness}

    def classification(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Eq. 6 or Eq. 8 (mean binary cross-entropy without ``positive_rate``)."""
        if labels.ndim == 2 and self.positive_rate is not None:
            return weighted_sigmoid_cross_entropy(logits, labels, self.positive_rate)
        return classification_loss(logits, labels)


@torch.no_grad()
def check_gap_linear(net: nn.Module, images: Tensor, tolerance: float = 1e-3) -> None:
    """Compare ``net(images)`` with its head on the spatial mean of its features, in eval mode; modes are put back.

    Raises:
        ValueError: they differ by more than ``tolerance`` of the largest logit: the maps of Eq. 1 do not average to the
            logits of this network.

    Example:
        >>> from xai_course.nets.convnets import small_cnn
        >>> check_gap_linear(small_cnn(3, width=2), torch.rand(1, 3, 8, 8))
    """
    head, seen = gap_head(net), cast(GapClassifier, net)
    with evaluating(net), full_precision(images):
        logits, pooled = net(images), head(seen.features(images).mean(dim=(2, 3)))
    equal = logits.shape == pooled.shape and (logits - pooled).abs().max() <= tolerance * logits.abs().max()
    other = f"{type(net).__name__} returns other logits than head(features.mean((2, 3)))"
    so = "so its class activation maps do not explain them"
    require(equal, f"net must be global average pooling and one linear layer: {other}, {so}")
