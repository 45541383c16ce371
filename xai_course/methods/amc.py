r"""AMC-Loss: cross-entropy plus a contrastive term measured in angles (Choi, Som and Turaga, 2020, arXiv:2004.09805).

In the paper's order: the angle, the hinge that Eq. 1 and 2 share, the pair labels (Eq. 3), the half-batch pairing
(Algorithm 1), and last the thin `Method` classes. Every function works alone in anybody's training loop.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from math import isfinite, pi

import torch
from torch import Tensor

from ..data.batch import Batch
from ..preset import Clock, gaussian_ramp_up
from .base import Losses, Method, classification_loss

SHORTEST = 1e-6  # a shorter feature vector has no direction worth normalising: its gradient would grow as 1 / length


def unit_rows(features: Tensor) -> tuple[Tensor, Tensor]:
    r"""Points on the unit sphere, :math:`z_i = x_i / \|x_i\|` (Sec. 3).

    Args:
        features: ``[n, p]`` float32 or float64.

    Returns:
        ``z [n, p]`` and ``dead [n]`` bool. A row with :math:`\|x_i\| < 10^{-6}` has no direction: it is dead, its ``z``
        is exactly 0 and so is the gradient it gets.
    """
    squares = features.square().sum(dim=1, keepdim=True)
    dead = squares < SHORTEST**2
    if _any(dead):
        squares = squares.masked_fill(dead, torch.inf)
    return features * squares.rsqrt(), dead.squeeze(1)


def _any(flags: Tensor) -> bool:
    """Whether some flag is set; on an accelerator always True, since looking would make the host wait."""
    return flags.device.type != "cpu" or bool(flags.any())


def angle(u: Tensor, v: Tensor, *, form: str = "atan2", clip: float = 1e-7) -> Tensor:
    r"""Geodesic distance :math:`\theta = \cos^{-1}\langle u, v\rangle` of unit rows, in radians (Sec. 3).

    ``atan2`` computes :math:`2\,\mathrm{atan2}(\|u - v\|, \|u + v\|)`, the same number, accurate at both ends.
    ``arccos`` is the official code's form: its slope is infinite at :math:`\pm1`, so it needs a clip, and below
    :math:`\cos^{-1}(1 - \mathrm{clip})` it returns a constant without gradient.

    Args:
        u, v: ``[P, p]``, unit rows (zero rows are allowed and give a finite angle).
        form: ``"atan2"`` or ``"arccos"``.
        clip: distance kept from :math:`\pm1` in the arccos form (official code 1e-7, a PyTorch port 1e-5; 0 for none).

    Returns:
        ``[P]`` in :math:`[0, \pi]`. Where ``u == v`` or ``u == -v`` the direction is undefined and the gradient is 0.

    Raises:
        ValueError: different shapes or an unknown form.
    """
    if u.shape != v.shape or u.ndim != 2:
        raise ValueError(f"u and v must both be [P, p], got {tuple(u.shape)} and {tuple(v.shape)}")
    if form == "atan2":
        apart, together = torch.linalg.vector_norm(u - v, dim=1), torch.linalg.vector_norm(u + v, dim=1)
        return 2 * torch.atan2(apart, together + 1e-15)  # + 1e-15 only matters for two zero rows: no 0/0 behind it
    if form == "arccos":
        return _clipped_arccos((u * v).sum(dim=1), clip)
    raise ValueError(f"form must be 'atan2' or 'arccos', got {form!r}")


def _clipped_arccos(cosine: Tensor, clip: float) -> Tensor:
    return torch.acos(cosine.clamp(-1 + clip, 1 - clip) if clip else cosine)


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
    """
    if same.shape != distance.shape or same.dtype != torch.bool:
        raise ValueError(f"same must be {tuple(distance.shape)} bool, got {tuple(same.shape)} {same.dtype}")
    if not margin > 0:
        raise ValueError(f"margin must be positive, got {margin}")
    return torch.where(same, distance, (margin - distance).clamp_min(0)).square()


def amc_pair_loss(za: Tensor, zb: Tensor, same: Tensor, margin: float = 0.5) -> Tensor:
    r"""Angular margin contrastive loss of each pair (Eq. 2), :math:`L_A(z_i, z_j, S_{ij})`.

    Args:
        za, zb: ``[P, p]`` unit rows.
        same: ``[P]`` bool.
        margin: :math:`m_g` in radians, in :math:`(0, \pi]`; 0.5 is 28.6 degrees.

    Returns:
        ``[P]``, in :math:`[0, \pi^2]` for same-class pairs and :math:`[0, m_g^2]` for the others.
    """
    if not 0 < margin <= pi:
        raise ValueError(f"margin must be an angle in (0, pi] radians, got {margin}")
    return contrastive(angle(za, zb), same, margin)


def euclidean_pair_loss(xa: Tensor, xb: Tensor, same: Tensor, margin: float = 1.0) -> Tensor:
    r"""Euclidean contrastive loss of each pair (Eq. 1) on the raw features, with :math:`m_e` = ``margin``. ``[P]``.

    The distance is the root of the *sum* of squares, as printed; where two rows coincide its gradient is taken as 0.
    """
    return contrastive(_euclidean_distance(xa, xb), same, margin)


def _euclidean_distance(xa: Tensor, xb: Tensor) -> Tensor:
    if xa.shape != xb.shape or xa.ndim != 2:
        raise ValueError(f"xa and xb must both be [P, p], got {tuple(xa.shape)} and {tuple(xb.shape)}")
    return torch.linalg.vector_norm(xa - xb, dim=1)


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
    """
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or labels.dtype != torch.int64:
        raise ValueError(
            f"logits must be [n, K] and labels [n] int64, "
            f"got {tuple(logits.shape)} and {tuple(labels.shape)} {labels.dtype}"
        )
    if source not in ("pred", "true"):
        raise ValueError(f"source must be 'pred' or 'true', got {source!r}")
    if (
        labels.device.type == "cpu"
        and len(labels)
        and not 0 <= int(labels.min()) <= int(labels.max()) < logits.shape[1]
    ):
        raise ValueError(f"labels must lie in [0, {logits.shape[1]}), got {int(labels.min())}..{int(labels.max())}")
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
    """
    n = len(rows)
    if pairing == "halves":
        return rows.split(n // 2)[:2] if n > 1 else (rows[:0], rows[:0])  # split: one backward, not one per slice
    if pairing == "all":
        i, j = torch.triu_indices(n, n, offset=1, device=rows.device)
        return rows[i], rows[j]
    if isinstance(pairing, int) and pairing >= 1:
        shifts = range(1, 1 + min(pairing, max(0, n - 1) // 2))
        left = rows.repeat(len(shifts), *[1] * (rows.ndim - 1))
        return left, torch.cat([rows[:0]] + [rows.roll(-s, 0) for s in shifts])
    raise ValueError(f"pairing must be 'halves', 'all' or a positive int, got {pairing!r}")


def angular_margin_contrastive(
    features: Tensor,
    classes: Tensor,
    *,
    margin: float = 0.5,
    pairing: str | int = "halves",
    reduction: str = "pairs",
    form: str = "atan2",
    clip: float = 1e-7,
) -> Tensor:
    r"""AMC-Loss of a batch: Eq. 2 over the pairs of Algorithm 1.

    .. math:: \frac1h \sum_{i=1}^{h} L_A(z_i,\, z_{i+h},\, S_{i,\,i+h}), \qquad h = \lfloor n/2 \rfloor

    Args:
        features: ``[n, p]`` deep features x, not normalised; half precision is computed in float32, float64 is kept.
        classes: ``[n]`` integer, from `pair_classes`.
        margin: :math:`m_g` in radians.
        pairing: see `pair_up`. ``"all"`` is one matrix product, which has no accurate small-angle form: clipped arccos.
        reduction: ``"pairs"`` mean over the pairs (official code); ``"batch"`` sum divided by n (Algorithm 1 as
            printed, half as large); ``"none"`` the pairs themselves ``[P]``.
        form, clip: see `angle`.

    Returns:
        Scalar, float32 or float64. A pair with a dead row (see `unit_rows`) counts as 0; n < 2 gives 0, with a graph.

    Raises:
        ValueError: wrong shapes or arguments, or (checked on the CPU only: elsewhere the host would wait) NaN features.
    """
    if not 0 < margin <= pi:
        raise ValueError(f"margin must be an angle in (0, pi] radians, got {margin}")
    with _full_precision(features):
        z, dead = unit_rows(_checked(features, classes))
        between = partial(angle, form=form, clip=clip)
        return _over_pairs(
            z, dead, classes, between, lambda z: _clipped_arccos(z @ z.T, clip), margin, pairing, reduction
        )


def euclidean_contrastive(
    features: Tensor,
    classes: Tensor,
    *,
    margin: float = 1.0,
    pairing: str | int = "halves",
    reduction: str = "pairs",
    normalised: bool = False,
) -> Tensor:
    r"""The paper's ``+Euclid`` baseline: Eq. 1 over the same pairs, with the same reduction, as the angular loss.

    Args:
        normalised: measure between the unit rows z instead of x; then ``margin`` is a chord, and :math:`2\sin(m_g/2)`
            matches the angle :math:`m_g`. All else as in `angular_margin_contrastive`.
    """
    with _full_precision(features):
        rows = _checked(features, classes)
        rows, dead = unit_rows(rows) if normalised else (rows, torch.zeros_like(classes, dtype=torch.bool))
        table = partial(torch.cdist, compute_mode="donot_use_mm_for_euclid_dist")
        return _over_pairs(rows, dead, classes, _euclidean_distance, lambda x: table(x, x), margin, pairing, reduction)


def _full_precision(features: Tensor):
    kind = features.device.type
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()


def _checked(features: Tensor, classes: Tensor) -> Tensor:
    if features.ndim != 2 or classes.shape != features.shape[:1] or classes.is_floating_point():
        raise ValueError(
            f"features must be [n, p] and classes [n] integer, "
            f"got {tuple(features.shape)} and {tuple(classes.shape)} {classes.dtype}"
        )
    return features if features.dtype == torch.float64 else features.float()


def _over_pairs(rows, dead, classes, between, table, margin, pairing, reduction) -> Tensor:
    """Hinge of the distances of all pairs, dead ones 0, reduced; ``table`` gives the whole matrix in one go."""
    if pairing == "all":
        i, j = torch.triu_indices(len(rows), len(rows), offset=1, device=rows.device)
        distance = table(rows)[i, j]
    else:
        distance = between(*pair_up(rows, pairing))
    same = torch.eq(*pair_up(classes, pairing))
    losses = contrastive(distance, same, margin)
    if _any(dead):
        losses = losses.masked_fill(torch.logical_or(*pair_up(dead, pairing)), 0)
    if reduction == "none":
        return losses
    if reduction not in ("pairs", "batch"):
        raise ValueError(f"reduction must be 'pairs', 'batch' or 'none', got {reduction!r}")
    if not len(losses):
        return 0 * rows.sum()
    total = losses.mean() if reduction == "pairs" else losses.sum() / len(rows)
    if total.device.type == "cpu" and not isfinite(total.item()):
        raise ValueError("features must be finite, got NaN or infinity: the step before this one diverged")
    return total


class PairMethod(Method):
    r"""Cross-entropy plus a weighted pair loss on the pooled features (Algorithm 1, lines 6 and 7).

    .. math:: L = L_C + w(t)\, w_{\max}\, \lambda\, \overline{L}_{\mathrm{pairs}}, \qquad w(t) = e^{-5(1 - t/T)^2}

    Args:
        net: a network with ``embed`` and ``head`` (`GapClassifier`).
        margin: :math:`m_g` (radians) or :math:`m_e`.
        balance: :math:`\lambda`.
        w_max: peak of the weight. 1 is what the paper prints; the released code multiplies by 100.
        pair_labels: ``"pred"`` (Eq. 3) or ``"true"``.
        pairing, reduction: see `angular_margin_contrastive`.
        ramp: :math:`T` as a share of all epochs, so that a short run ramps in proportion (paper: 80 of 300, 40 of 150).
        start_epoch: no pair term before this epoch (official code: 1).
        **options: passed on to the pair loss.
    """

    name = "pairs"

    def __init__(
        self,
        net,
        *,
        margin: float,
        balance: float = 0.1,
        w_max: float = 1.0,
        pair_labels: str = "pred",
        pairing: str | int = "halves",
        reduction: str = "pairs",
        ramp: float = 80 / 300,
        start_epoch: int = 0,
        **options,
    ):
        super().__init__(net)
        if not (callable(getattr(net, "embed", None)) and callable(getattr(net, "head", None))):
            raise ValueError(f"net must offer embed(images) and head(features), got {type(net).__name__}")
        if pair_labels not in ("pred", "true"):
            raise ValueError(f"pair_labels must be 'pred' or 'true', got {pair_labels!r}")
        if reduction == "none":
            raise ValueError("reduction must give a scalar to train with ('pairs' or 'batch'), got 'none'")
        if not (balance >= 0 and w_max >= 0):
            raise ValueError(f"balance and w_max must not be negative, got {balance} and {w_max}")
        self.balance, self.w_max, self.pair_labels = balance, w_max, pair_labels
        self.ramp, self.start_epoch = ramp, start_epoch
        self.options = {"margin": margin, "pairing": pairing, "reduction": reduction, **options}
        self.pair_loss(torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64))  # refuses a wrong option before step 1

    def pair_loss(self, features: Tensor, classes: Tensor) -> Tensor:
        raise TypeError(f"{type(self).__name__} defines no pair_loss")

    def weight(self, clock: Clock) -> float:
        r""":math:`w(t)\, w_{\max}\, \lambda` in this epoch."""
        ramped = gaussian_ramp_up(clock.epoch, self.ramp * clock.epochs)
        return self.balance * self.w_max * ramped * (clock.epoch >= self.start_epoch)

    def losses(self, batch: Batch, clock: Clock) -> Iterator[Losses]:
        if not len(batch.images):
            raise ValueError("batch must hold at least one image, got 0")
        features = self.net.embed(batch.images)
        logits = self.net.head(features)
        classes = pair_classes(logits, batch.labels, self.pair_labels)
        answer = classification_loss(logits, batch.labels)
        pairs = self.pair_loss(features, classes)
        dead = (features.detach().norm(dim=1) < SHORTEST).sum().float()
        yield {
            "classification": answer,
            self.name: pairs,
            "zero_features": dead,
            "total": answer + self.weight(clock) * pairs,
        }


class AmcLoss(PairMethod):
    """Cross-entropy plus AMC-Loss: `PairMethod` with Eq. 2. Defaults are the paper's."""

    name = "amc"

    def __init__(self, net, *, margin: float = 0.5, **arguments):
        super().__init__(net, margin=margin, **arguments)

    def pair_loss(self, features: Tensor, classes: Tensor) -> Tensor:
        return angular_margin_contrastive(features, classes, **self.options)


class EuclideanContrastive(PairMethod):
    """Cross-entropy plus the Euclidean contrastive loss: `PairMethod` with Eq. 1. Defaults are the paper's."""

    name = "euclid"

    def __init__(self, net, *, margin: float = 1.0, **arguments):
        super().__init__(net, margin=margin, **arguments)

    def pair_loss(self, features: Tensor, classes: Tensor) -> Tensor:
        return euclidean_contrastive(features, classes, **self.options)
