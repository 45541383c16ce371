"""Pairs of a batch, for any pair loss: the hinge, the class of each row, which rows meet, and training with them.

From AMC-Loss (Choi, Som and Turaga, 2020, arXiv:2004.09805), in its order: what Eq. 1 and 2 share, Eq. 3, Algorithm 1.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from .._require import require
from ..data.batch import Batch
from ..nets.convnets import GapClassifier
from ..preset import Clock, gaussian_ramp_up
from .base import Criterion, Losses, Method, check_labels, classification_loss, reduced

SHORTEST = 1e-6  # a shorter feature vector has no direction worth normalising: its gradient would grow as 1 / length


def contrastive(distance: Tensor, same: Tensor, margin: float) -> Tensor:
    r"""What Eq. 1 and Eq. 2 share: :math:`d^2` for a same-class pair, :math:`\max(0, m - d)^2` for any other.

    Args:
        distance: ``[P]``, non-negative.
        same: ``[P]`` bool, the paper's :math:`S_{ij}`.
        margin: :math:`m > 0` in the unit of ``distance``.

    Returns:
        ``[P]``, non-negative; exactly 0 for different classes at ``distance >= margin``.

    Raises:
        ValueError: shapes that differ (they would broadcast to P x P pairs), ``same`` not bool, or margin <= 0.

    Example:
        >>> contrastive(torch.tensor([2.0, 2.0, 0.5]), torch.tensor([True, False, False]), margin=1.0)
        tensor([4.0000, 0.0000, 0.2500])
    """
    fit = same.shape == distance.shape and same.dtype == torch.bool
    require(fit, f"same must be {tuple(distance.shape)} bool", same)
    require(margin > 0, "margin must be positive", margin)
    return torch.where(same, distance, (margin - distance).clamp_min(0)).square()


def pair_classes(logits: Tensor, labels: Tensor, source: str = "pred") -> Tensor:
    r"""The class of each image that Eq. 3 compares, :math:`\tilde y_i = \arg\max_k [f_i]_k`, without a gradient.

    Args:
        logits: ``[n, K]`` of the same forward pass.
        labels: ``[n]`` int64 in [0, K).
        source: ``"pred"`` (the paper and its training script) or ``"true"`` (the labels themselves).

    Returns:
        ``[n]`` int64.

    Raises:
        ValueError: wrong shapes, unknown source, or (checked on the CPU only) a label outside [0, K).

    Example:
        >>> logits, labels = torch.tensor([[2.0, 1.0], [0.0, 3.0]]), torch.tensor([1, 1])
        >>> pair_classes(logits, labels), pair_classes(logits, labels, "true")
        (tensor([0, 1]), tensor([1, 1]))
    """
    require(logits.ndim == 2, "logits must be [n, K]", tuple(logits.shape))
    check_labels(labels, *logits.shape)
    require(source in ("pred", "true"), "source must be 'pred' or 'true'", repr(source))
    return labels if source == "true" else logits.detach().argmax(dim=1)


def pair_up(rows: Tensor, pairing: str | int = "halves") -> tuple[Tensor, Tensor]:
    r"""Left and right members of the pairs of a shuffled batch; the same call pairs features, classes and masks alike.

    Args:
        rows: ``[n, ...]``.
        pairing: ``"halves"``: row i with row i + n//2, n//2 pairs, an odd last row is dropped (Sec. 3.1, Algorithm 1).
            ``"all"``: every unordered pair once, n(n-1)/2. An int r: row i with row i + s mod n for s = 1..r, r n
            pairs; r is cut to (n-1)//2, from where on pairs would repeat (so the pairs i, i + n/2 of an even n never
            occur).

    Returns:
        Two tensors ``[P, ...]``.

    Raises:
        ValueError: unknown pairing.

    Example:
        >>> pair_up(torch.arange(5)), pair_up(torch.arange(3), "all")
        ((tensor([0, 1]), tensor([2, 3])), (tensor([0, 0, 1]), tensor([1, 2, 2])))
    """
    n = len(rows)
    if pairing == "halves":
        if n < 2:
            return rows[:0], rows[:0]
        left, right, *_ = rows.split(n // 2)  # split: one backward, not one per slice
        return left, right
    if pairing == "all":
        i, j = torch.triu_indices(n, n, offset=1, device=rows.device)
        return rows[i], rows[j]
    steps = pairing if isinstance(pairing, int) else 0
    require(steps >= 1, "pairing must be 'halves', 'all' or a positive int", repr(pairing))
    shifts = range(1, 1 + min(steps, max(0, n - 1) // 2))
    left = rows.repeat(len(shifts), *[1] * (rows.ndim - 1))
    return left, torch.cat([rows[:0]] + [rows.roll(-s, 0) for s in shifts])


def upper_triangle(table: Tensor) -> Tensor:
    """The pairs of ``pair_up(rows, "all")``, in its order, out of a table ``[n, n]`` of all distances. ``[n(n-1)/2]``.

    Example:
        >>> upper_triangle(torch.arange(9).view(3, 3))
        tensor([1, 2, 5])
    """
    i, j = torch.triu_indices(len(table), len(table), offset=1, device=table.device)
    return table[i, j]


def reduced_pairs(losses: Tensor, rows: Tensor, reduction: str = "mean") -> Tensor:
    """The losses ``[P]`` of the pairs of ``rows [n, p]`` as one number, or as they are.

    Args:
        reduction: ``"mean"`` over the pairs (the official code), ``"sum"``, ``"none"``, or ``"batch"``, the sum divided
            by n, which is what Algorithm 1 prints: half the mean where the pairs are halves.

    Returns:
        A scalar, 0 without pairs (n < 2), with a graph to ``rows``; ``[P]`` for ``"none"``.

    Raises:
        ValueError: another reduction, or (checked on the CPU only: elsewhere the host would wait) a loss that is NaN or
            infinite, since then the features were.

    Example:
        >>> losses, rows = torch.tensor([1.0, 3.0]), torch.zeros(4, 2)
        >>> [reduced_pairs(losses, rows, how).tolist() for how in ("mean", "sum", "none", "batch")]
        [2.0, 4.0, [1.0, 3.0], 1.0]
    """
    total = losses.sum() / max(1, len(rows)) if reduction == "batch" else reduced(losses, reduction)
    if not len(losses) and reduction != "none":
        total = 0 * rows.sum()
    sound = total.device.type != "cpu" or total.isfinite().all()
    require(sound, "features must be finite and shorter than the root of the largest number, got NaN or infinity")
    return total


class PairMethod(Method):
    r"""Cross-entropy plus a weighted pair loss on the pooled features (Algorithm 1, lines 6 and 7).

    .. math:: L = L_C + w(t)\, w_{\max}\, \lambda\, \overline{L}_{\mathrm{pairs}}, \qquad w(t) = e^{-5(1 - t/T)^2}

    Args:
        net: a network with ``embed`` and ``head`` (`GapClassifier`).
        balance: :math:`\lambda`.
        w_max: peak of the weight. 1 is what the paper prints; the released code multiplies by 100.
        pair_labels: ``"pred"`` (Eq. 3) or ``"true"``.
        ramp: :math:`T` as a share of all epochs, so that a short run ramps in proportion (paper: 80 of 300, 40 of 150).
        start_epoch: no pair term before this epoch (official code: 1).
        **options: of the criterion, ``margin`` and ``pairing`` for example.

    Example:
        >>> class Closer(Criterion):  # any criterion on features and classes
        ...     def forward(self, features, classes):
        ...         left, right = pair_up(features)
        ...         return reduced_pairs((left - right).square().sum(1), features)
        >>> class CloserMethod(PairMethod):
        ...     name, criterion = "closer", Closer
        >>> from xai_course.nets.convnets import small_cnn
        >>> method = CloserMethod(small_cnn(3, channels=1, width=2), balance=0.01)
        >>> batch = Batch(torch.rand(4, 1, 8, 8), torch.tensor([0, 0, 2, 2]), None, torch.arange(4))
        >>> [list(terms) for terms in method.losses(batch, Clock())]
        [['classification', 'closer', 'zero_features', 'total']]
    """

    name: str  # of the pair term
    criterion: type[Criterion]
    net: GapClassifier
    needs, cure = ("embed", "head"), ": xai_course.nets.adapters.gap_classifier(net) gives a foreign network both"

    def __init__(
        self,
        net: nn.Module,
        *,
        balance: float = 0.1,
        w_max: float = 1.0,
        pair_labels: str = "pred",
        ramp: float = 80 / 300,
        start_epoch: int = 0,
        **options: Any,
    ):
        super().__init__(net)
        require(pair_labels in ("pred", "true"), "pair_labels must be 'pred' or 'true'", repr(pair_labels))
        scalar = options.get("reduction") != "none"
        require(scalar, "reduction must give a scalar to train with ('mean', 'sum' or 'batch'), got 'none'")
        require(balance >= 0 and w_max >= 0, "balance and w_max must not be negative", balance, w_max)
        self.balance, self.w_max, self.pair_labels = balance, w_max, pair_labels
        self.ramp, self.start_epoch = ramp, start_epoch
        self.pair_loss = self.criterion(**options)

    def weight(self, clock: Clock) -> float:
        r""":math:`w(t)\, w_{\max}\, \lambda` in this epoch."""
        ramped = gaussian_ramp_up(clock.epoch, self.ramp * clock.epochs)
        return self.balance * self.w_max * ramped * (clock.epoch >= self.start_epoch)

    def losses(self, batch: Batch, clock: Clock) -> Iterator[Losses]:
        require(len(batch.images), "batch must hold at least one image, got 0")
        features = self.net.embed(batch.images)
        logits = self.net.head(features)
        classes = pair_classes(logits, batch.labels, self.pair_labels)
        answer = classification_loss(logits, batch.labels)
        pairs = self.pair_loss(features, classes)
        dead = (features.detach().norm(dim=1) < SHORTEST).sum().float()
        total = answer + self.weight(clock) * pairs
        yield {"classification": answer, self.name: pairs, "zero_features": dead, "total": total}
