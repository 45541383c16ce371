r"""Loss-based attention: a patch weighs as much as its logits are long, and the weighted logits are the decision.

Shi et al., "Loss-Based Attention for Interpreting Image-Level Prediction of Convolutional Neural Networks", IEEE TIP 30
(2021). One linear layer reads every patch, :math:`p_m = h_m\theta`; its weight is its share of all lengths
:math:`\lVert p\rVert_2`; the image's logits are :math:`z = \sum_m \alpha_m p_m`. The losses (Eqs. 1-3,
9, 10) and Propositions 1 and 2 are in `patch_losses`, the compared heads in `patch_heads`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .base import wide
from .patch_losses import Attended, PatchMethod

NORMS = ("l2", "relu", "softplus", "centred")
OFFICIAL = {"cut_by": "map", "ramp_steepness": 5.0, "zero_first": True}
"""Arguments of `LossAttention` as in the released convolutional code (its capsules share the ramp, not the cut)."""


def patch_lengths(logits: Tensor, norm: str = "l2") -> Tensor:
    r"""Length of each patch's logits, :math:`\sqrt{\sum_k p_{mk}^2}`: the summands of Eq. 4.

    Args:
        logits: ``[..., M, K]``. Half precision is widened first: float16 squares overflow from 256 on.
        norm: "l2" as printed; ours, for comparison: "relu" and "softplus" measure those of the logits, so that a
            confident "no" is short; "centred" subtracts the mean over classes, which makes the length shift-invariant.

    Returns:
        ``[..., M]`` >= 0, float32 (float64 for float64). The gradient at a zero row is 0, where a written-out
        ``sqrt(sum of squares)`` has nan.

    Raises:
        ValueError: fewer than two dimensions, or an unknown ``norm``.
    """
    if logits.ndim < 2 or norm not in NORMS:
        raise ValueError(f"expected logits [..., M, K] and norm in {NORMS}, got {tuple(logits.shape)} and {norm!r}")
    values = wide(logits)
    if norm == "relu":
        values = values.relu()
    elif norm == "softplus":
        values = F.softplus(values)
    elif norm == "centred":
        values = values - values.mean(-1, keepdim=True)
    return torch.linalg.vector_norm(values, dim=-1)


def shares(lengths: Tensor) -> Tensor:
    r"""Each patch's share of all lengths, :math:`\alpha_j = \lVert p_j\rVert / \sum_m \lVert p_m\rVert` (Eq. 5a).

    Args:
        lengths: ``[..., M]`` >= 0.

    Returns:
        ``[..., M]`` >= 0, summing to 1; uniform where all lengths are 0. No epsilon joins a length (that would break
        :math:`\alpha(cP) = \alpha(P)`); only an all-zero sum is replaced.
    """
    total = lengths.sum(-1, keepdim=True)
    part = lengths / total.clamp_min(torch.finfo(lengths.dtype).tiny)
    return torch.where(total > 0, part, 1 / lengths.shape[-1])


def cut_off(weights: Tensor, cutoff: float = 0.1, *, cells: int | None = None, allow_above_one: bool = False) -> Tensor:
    r"""Cut weights below :math:`\xi/M` to zero and renormalise (Eq. 5b).

    .. math:: \alpha_j \leftarrow \frac{\max(\alpha_j - \xi/M, 0)}{\sum_m \max(\alpha_m - \xi/M, 0)}

    Args:
        weights: ``[..., M]``, non-negative, summing to 1.
        cutoff: :math:`\xi` in [0, 1].
        cells: what divides :math:`\xi`; default M. The official convolutional code divides by the cells of the map
            before the 9x9 kernel, 1024 instead of 36.
        allow_above_one: admit :math:`\xi > 1` (sweeps on a trained network).

    Returns:
        ``[..., M]``: exact zeros for cut patches, sum 1. The denominator lies in :math:`[1-\xi, 1-\xi/M]`, so at
        least one patch survives whenever :math:`\xi < 1`. At :math:`\xi = 1` equal weights would give 0/0 (for M = 1
        always): where the denominator is at most 1e-6 the weights return unchanged.

    Raises:
        ValueError: ``cutoff`` outside [0, 1] (or negative, with ``allow_above_one``).
    """
    if not cutoff >= 0 or (cutoff > 1 and not allow_above_one):
        raise ValueError(f"cutoff (xi) must lie in [0, 1], got {cutoff}; above 1 every patch may be cut")
    kept = (weights - cutoff / (cells or weights.shape[-1])).clamp_min(0)
    total = kept.sum(-1, keepdim=True)
    enough = total > 1e-6
    return torch.where(enough, kept / torch.where(enough, total, 1), weights)


def loss_attention(
    logits: Tensor,
    cutoff: float = 0.1,
    *,
    norm: str = "l2",
    cells: int | None = None,
    allow_above_one: bool = False,
) -> tuple[Tensor, Tensor]:
    r"""Weights of patches from their own logits: Eq. 5a, then 5b. Gradients flow through the weights.

    Args:
        logits: ``[..., M, K]``, :math:`p_m = h_m\theta` with the bias already in (exact, since the weights sum to 1).
        cutoff, cells, allow_above_one: see `cut_off`; ``norm``: see `patch_lengths`.

    Returns:
        ``(alpha, before)``, both ``[..., M]``: after and before the cut. ``alpha > 0`` are the selected patches.
    """
    before = shares(patch_lengths(logits, norm))
    return cut_off(before, cutoff, cells=cells, allow_above_one=allow_above_one), before


def attended_logits(weights: Tensor, logits: Tensor) -> Tensor:
    r"""Image logits :math:`z = \sum_m \alpha_m p_m` (Eqs. 5c and 5d with one product by :math:`\theta` instead of two).

    Args:
        weights: ``[..., M]``.
        logits: ``[..., M, K]``.

    Returns:
        ``[..., K]`` in the dtype of ``weights``; a sum, not a matrix product, so autocast leaves it in float32.
    """
    return (weights.unsqueeze(-1) * logits).sum(-2)


def capsule_attention(
    logits: Tensor, cutoff: float = 0.1, *, norm: str = "l2", allow_above_one: bool = False
) -> tuple[Tensor, Tensor]:
    r"""Weights of capsules and of patches (Eqs. 6a, 6b, 6c).

    Eq. 6b subtracts from a patch's weight (soft cut), Eq. 6c only drops the capsules of cut patches and rescales the
    others (hard cut): two weightings, both used.

    Args:
        logits: ``[B, C, M, K]``, :math:`p_{cm} = h_{cm}\theta` for C capsules in each of M patches.
        cutoff, norm, allow_above_one: as in `loss_attention`.

    Returns:
        ``w [B, C, M]`` (6c), sums to 1, weighs the decision :math:`z = \sum_{cm} w_{cm} p_{cm}`; ``alpha [B, M]`` (6b),
        sums to 1, weighs the patch loss and selects patches.

    Raises:
        ValueError: not four dimensions, or a bad ``cutoff``.
    """
    if logits.ndim != 4:
        raise ValueError(f"logits must be [B, C, M, K] (capsules, patches, classes), got {tuple(logits.shape)}")
    each = shares(patch_lengths(logits, norm).flatten(1)).view(logits.shape[:3])  # 6a
    alpha = cut_off(each.sum(1), cutoff, allow_above_one=allow_above_one)  # 6b
    alive = each * (alpha > 0).unsqueeze(1)  # 6c: sgn is a mask and has no gradient
    return alive / alive.sum((1, 2), keepdim=True), alpha


class LossAttention(PatchMethod):
    r"""Loss-Attention on a convolutional (Eq. 5) or capsule network (Eq. 6), trained by Eq. 9 or 10.

    Args:
        net: `PatchNet` (patch logits ``[B, M, K]``) or `CapsuleNet` (``[B, C, M, K]``).
        cutoff: :math:`\xi` in [0, 1].
        balance: :math:`\gamma_{max}`; further keywords of `PatchMethod` (`OFFICIAL` holds the official code's).
        norm: see `patch_lengths`.
        cut_by: "patches" (:math:`\xi/M`, the paper) or "map" (the official convolutional code, 28 times weaker).
        patch_logits: a capsule network's patch logits: "sum" over capsules (official code) or "attended",
            :math:`\sum_c w_{cm}p_{cm} / \sum_c w_{cm}` (ours), of which the image's logits are again a mean.

    Raises:
        ValueError: ``cutoff`` outside [0, 1], or an unknown choice.
    """

    def __init__(
        self,
        net: nn.Module,
        *,
        cutoff: float = 0.1,
        balance: float = 0.1,
        norm: str = "l2",
        cut_by: str = "patches",
        patch_logits: str = "sum",
        **keywords,
    ):
        super().__init__(net, balance=balance, **keywords)
        if not 0 <= cutoff <= 1:
            raise ValueError(f"cutoff (xi) must lie in [0, 1], got {cutoff}")
        if cut_by not in ("patches", "map") or patch_logits not in ("sum", "attended") or norm not in NORMS:
            raise ValueError(
                f"expected cut_by patches|map, patch_logits sum|attended, norm in {NORMS}, "
                f"got {cut_by!r}, {patch_logits!r}, {norm!r}"
            )
        self.cutoff, self.norm, self.cut_by, self.patch_logits = cutoff, norm, cut_by, patch_logits

    def attend(self, images: Tensor) -> Attended:
        logits = wide(self.net.patch_logits(images))
        if logits.ndim == 3:
            cells = self.net.map_cells(images.shape[-2:]) if self.cut_by == "map" else None
            alpha, _ = loss_attention(logits, self.cutoff, norm=self.norm, cells=cells)
            return Attended(attended_logits(alpha, logits), alpha, logits)
        each, alpha = capsule_attention(logits, self.cutoff, norm=self.norm)
        image = attended_logits(each.flatten(1), logits.flatten(1, 2))
        if self.patch_logits == "sum":
            return Attended(image, alpha, logits.sum(1))
        share = each / each.sum(1, keepdim=True).clamp_min(torch.finfo(each.dtype).tiny)
        return Attended(image, alpha, (share.unsqueeze(-1) * logits).sum(1))
