r"""Loss-based attention in equations: a patch weighs as much as its logits are long, and the weighted logits decide.

Shi et al., "Loss-Based Attention for Interpreting Image-Level Prediction of Convolutional Neural Networks", IEEE TIP 30
(2021). One linear layer reads every patch, :math:`p_m = h_m\theta`; its weight is its share of all lengths
:math:`\lVert p\rVert_2`; the image's logits are :math:`z = \sum_m \alpha_m p_m`. In the paper's order: the image's loss
(Eqs. 1-3), weights of patches and capsules (4-6), two bounds (7, 8), the patches' loss (9, 10), and the criterion that
joins them. Networks trained with it, and the heads it is compared with, are in `patch_heads`.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .._require import require
from .base import Criterion, reduced, wide

NORMS: dict[str, Callable[[Tensor], Tensor]] = {  # what is done to logits before their length is taken
    "l2": lambda logits: logits,
    "relu": F.relu,
    "softplus": F.softplus,
    "centred": lambda logits: logits - logits.mean(-1, keepdim=True),
}

# --- Eqs. 1-3: the image's loss --------------------------------------------------------------------------------------


def image_loss(logits: Tensor, labels: Tensor, reduction: str = "mean") -> Tensor:
    r"""Loss of the image's logits: :math:`-\log s(z)[t]` (Eqs. 1 and 2), or for multi-hot labels Eq. 3.

    .. math:: L_{bce} = -[y\cdot\log\sigma(z) + (1-y)\cdot\log(1-\sigma(z))]

    Eq. 3 is a dot product: a **sum** over classes, where many libraries take the mean.

    Args:
        logits: ``[B, K]``.
        labels: ``[B]`` int64, or ``[B, K]`` float in {0, 1}.
        reduction: over images, see `base.reduced`.

    Returns:
        Mean over images, scalar >= 0; ``[B]`` for "none".

    Raises:
        ValueError: labels of neither kind, an unknown ``reduction``.

    Example:
        >>> z = torch.zeros(1, 4)
        >>> image_loss(z, torch.tensor([2])), image_loss(z, torch.tensor([[0.0, 1, 1, 0]]))  # log 4 and 4 log 2
        (tensor(1.3863), tensor(2.7726))
    """
    if _one_label_each(labels, len(logits), logits.shape[-1]):
        if reduction == "mean" and len(labels):
            return F.cross_entropy(logits, labels)  # its own mean: the last bit of another order of summation differs
        return reduced(F.cross_entropy(logits, labels, reduction="none"), reduction)
    each = F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), reduction="none")
    return reduced(each.sum(-1), reduction)


def _one_label_each(labels: Tensor, images: int, classes: int) -> bool:
    one = labels.shape == (images,) and labels.dtype == torch.int64
    several = labels.shape == (images, classes) and labels.is_floating_point()
    wanted = f"[{images}] int64 (one class each) or [{images}, {classes}] float (multi-hot)"
    require(one or several, f"labels must be {wanted}", labels)
    return one


# --- Eqs. 4-6: weights -----------------------------------------------------------------------------------------------


def patch_lengths(logits: Tensor, norm: str = "l2") -> Tensor:
    r"""Length of each patch's logits, :math:`\sqrt{\sum_k p_{mk}^2}`: the summands of Eq. 4.

    Args:
        logits: ``[..., M, K]``. Half precision is widened first: float16 squares overflow from 256 on.
        norm: "l2" as printed; ours, for comparison: "relu" and "softplus" measure those of the logits, so that a
            confident "no" is short; "centred" subtracts the mean over classes, which makes the length shift-invariant.

    Returns:
        ``[..., M]`` >= 0, float32 (float64 for float64). The gradient at a zero row is 0, where a written-out root of
        a sum of squares has nan. Rows with nan or infinite logits are nan.

    Raises:
        ValueError: fewer than two dimensions, or an unknown ``norm``.

    Example:
        >>> patch_lengths(torch.tensor([[3.0, -4.0], [0.0, 1.0]])), patch_lengths(torch.tensor([[3.0, -4.0]]), "relu")
        (tensor([5., 1.]), tensor([3.]))
    """
    known = logits.ndim >= 2 and norm in NORMS
    require(known, f"expected logits [..., M, K] and norm in {tuple(NORMS)}", tuple(logits.shape), repr(norm))
    values = NORMS[norm](wide(logits))
    unit = _unit(values)
    return torch.linalg.vector_norm(values / unit, dim=-1) * unit.squeeze(-1)


def _unit(values: Tensor) -> Tensor:
    """What to divide the last axis by before squares and sums: 1, or its largest size where those would overflow."""
    peak = values.detach().abs().amax(-1, keepdim=True)
    return torch.where(peak > torch.finfo(values.dtype).max ** 0.5 / values.shape[-1], peak, 1)


def patch_shares(lengths: Tensor) -> Tensor:
    r"""Each patch's share of all lengths, :math:`\alpha_j = \lVert p_j\rVert / \sum_m \lVert p_m\rVert` (Eq. 5a).

    Args:
        lengths: ``[..., M]`` >= 0.

    Returns:
        ``[..., M]`` >= 0, summing to 1; uniform where all lengths are 0, nan where one is nan. No epsilon joins a
        length (that would break :math:`\alpha(cP) = \alpha(P)`); only an all-zero sum is replaced.

    Example:
        >>> patch_shares(torch.tensor([[5.0, 3.0, 2.0], [0.0, 0.0, 0.0]]))
        tensor([[0.5000, 0.3000, 0.2000],
                [0.3333, 0.3333, 0.3333]])
    """
    lengths = lengths / _unit(lengths)
    total = lengths.sum(-1, keepdim=True)
    part = lengths / total.clamp_min(torch.finfo(lengths.dtype).tiny)
    return torch.where(total == 0, 1 / lengths.shape[-1], part)


def cut_off(weights: Tensor, cutoff: float = 0.1, *, cells: int | None = None) -> Tensor:
    r"""Cut weights below :math:`\xi/M` to zero and renormalise (Eq. 5b).

    .. math:: \alpha_j \leftarrow \frac{\max(\alpha_j - \xi/M, 0)}{\sum_m \max(\alpha_m - \xi/M, 0)}

    Args:
        weights: ``[..., M]``, non-negative, summing to 1; cutoff: :math:`\xi` in [0, 1].
        cells: what divides :math:`\xi`; default M. The official code has the cells before the 9x9 kernel, 1024 for 36.

    Returns:
        ``[..., M]``: exact zeros for cut patches, sum 1. The denominator lies in :math:`[1-\xi, 1-\xi/M]`, so one patch
        survives if :math:`\xi < 1`. Where it is at most 1e-6 (equal weights, :math:`\xi = 1`) weights stay as they are.

    Raises:
        ValueError: ``cutoff`` outside [0, 1].

    Example:
        >>> cut_off(torch.tensor([0.5, 0.3, 0.2]), 0.75)  # below 0.25 nothing is left
        tensor([0.8333, 0.1667, 0.0000])
    """
    require(0 <= cutoff <= 1, f"cutoff (xi) must lie in [0, 1], got {cutoff}: above 1 every patch may be cut")
    kept = (weights - cutoff / (cells or weights.shape[-1])).clamp_min(0)
    total = kept.sum(-1, keepdim=True)
    enough = total > 1e-6
    return torch.where(enough, kept / torch.where(enough, total, 1), weights)


def loss_attention(
    logits: Tensor, cutoff: float = 0.1, *, norm: str = "l2", cells: int | None = None
) -> tuple[Tensor, Tensor]:
    r"""Weights of patches from their own logits: Eq. 5a, then 5b. Gradients flow through the weights.

    Args:
        logits: ``[..., M, K]``, :math:`p_m = h_m\theta` with the bias already in (exact, since the weights sum to 1).
        cutoff, cells: see `cut_off`; ``norm``: see `patch_lengths`.

    Returns:
        ``(alpha, before)``, both ``[..., M]``: after and before the cut. ``alpha > 0`` are the selected patches.

    Example:
        >>> alpha, before = loss_attention(torch.tensor([[3.0, -4.0], [0.0, 3.0], [2.0, 0.0]]), 0.75)
        >>> before, alpha
        (tensor([0.5000, 0.3000, 0.2000]), tensor([0.8333, 0.1667, 0.0000]))
    """
    before = patch_shares(patch_lengths(logits, norm))
    return cut_off(before, cutoff, cells=cells), before


def attended_logits(weights: Tensor, logits: Tensor) -> Tensor:
    r"""Image logits :math:`z = \sum_m \alpha_m p_m` (Eqs. 5c and 5d with one product by :math:`\theta` instead of two).

    Args:
        weights: ``[..., M]``; logits: ``[..., M, K]``.

    Returns:
        ``[..., K]`` in the dtype of ``weights``; a sum, not a matrix product, so autocast leaves it in float32.

    Example:
        >>> attended_logits(torch.tensor([0.75, 0.25]), torch.tensor([[4.0, 0.0], [0.0, 8.0]]))
        tensor([3., 2.])
    """
    return (weights.unsqueeze(-1) * logits).sum(-2)


def capsule_attention(logits: Tensor, cutoff: float = 0.1, *, norm: str = "l2") -> tuple[Tensor, Tensor]:
    r"""Weights of capsules and of patches (Eqs. 6a, 6b, 6c).

    Eq. 6b subtracts from a patch's weight (soft cut), Eq. 6c only drops the capsules of cut patches and rescales the
    others (hard cut): two weightings, both used.

    Args:
        logits: ``[B, C, M, K]``, :math:`p_{cm} = h_{cm}\theta` for C capsules in each of M patches.
        cutoff, norm: as in `loss_attention`.

    Returns:
        ``w [B, C, M]`` (6c), sums to 1, weighs the decision :math:`z = \sum_{cm} w_{cm} p_{cm}`; ``alpha [B, M]`` (6b),
        sums to 1, weighs the patch loss and selects patches.

    Raises:
        ValueError: not four dimensions, or a bad ``cutoff``.

    Example:
        >>> capsule_attention(torch.tensor([[[[4.0], [1.0]], [[4.0], [1.0]]]]), 0.9)  # 2 capsules in each of 2 patches
        (tensor([[[0.5000, 0.0000],
                 [0.5000, 0.0000]]]), tensor([[1., 0.]]))
    """
    require(logits.ndim == 4, "logits must be [B, C, M, K] (capsules, patches, classes)", tuple(logits.shape))
    each = patch_shares(patch_lengths(logits, norm).flatten(1)).view(logits.shape[:3])  # 6a
    alpha = cut_off(each.sum(1), cutoff)  # 6b
    alive = each * (alpha > 0).unsqueeze(1)  # 6c: sgn is a mask and has no gradient
    return alive / alive.sum((1, 2), keepdim=True), alpha


# --- Eqs. 7, 8: what Propositions 1 and 2 promise --------------------------------------------------------------------


def cross_entropy_bound(weights: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    r"""Right-hand side of Proposition 1 (Eq. 7), with :math:`q_{mk} = s(p_m)[k]`.

    .. math:: L_{ce} \ge \frac{R}{1+R}, \qquad R = \sum_{k\ne t}\prod_m \Bigl(\frac{q_{mk}}{q_{mt}}\Bigr)^{\alpha_m}

    The patches' normalisers cancel: :math:`R = \sum_{k\ne t} e^{z_k - z_t}`, so the bound is :math:`1 - s(z)[t]`, the
    proposition :math:`-\log u \ge 1-u`. A product would overflow at logits of 1e3; here it is a log-sum-exp's sigmoid.

    Args:
        weights: ``[B, M]`` summing to 1; logits: ``[B, M, K]`` with K >= 2; labels: ``[B]`` int64.

    Returns:
        ``[B]`` in [0, 1].

    Example:
        >>> p, t = torch.tensor([[[2.0, 0.0], [0.0, 0.0]]]), torch.tensor([0])  # two patches of equal weight
        >>> cross_entropy_bound(torch.full((1, 2), 0.5), p, t), image_loss(p.mean(1), t)
        (tensor([0.2689]), tensor(0.3133))
    """
    image = attended_logits(weights, logits)
    gap = image - image.gather(1, labels.unsqueeze(1))
    others = gap.scatter(1, labels.unsqueeze(1), -torch.inf)
    return others.logsumexp(1).sigmoid()


def binary_cross_entropy_bound(weights: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    r"""Right-hand side of Proposition 2 (Eq. 8).

    .. math:: L_{bce} \ge \sum_{k:y_k=1}\frac{r_k}{1+r_k} + \sum_{k:y_k=0}\frac{1}{1+r_k},
              \qquad r_k = \prod_m (e^{-p_{mk}})^{\alpha_m}

    Since :math:`r_k = e^{-z_k}`, it is :math:`\sum_{y=1}\sigma(-z_k) + \sum_{y=0}\sigma(z_k)`: the same
    :math:`-\log u \ge 1-u`, once per class.

    Args:
        weights: ``[B, M]`` summing to 1; logits: ``[B, M, K]``; labels: ``[B, K]`` float in {0, 1}.

    Returns:
        ``[B]`` in [0, K].

    Example:
        >>> p, y = torch.tensor([[[2.0, 0.0], [0.0, 0.0]]]), torch.tensor([[1.0, 0.0]])
        >>> binary_cross_entropy_bound(torch.full((1, 2), 0.5), p, y), image_loss(p.mean(1), y)
        (tensor([0.7689]), tensor(1.0064))
    """
    image = attended_logits(weights, logits)
    return torch.where(labels > 0, -image, image).sigmoid().sum(1)


# --- Eqs. 9, 10: the patches' loss, and the whole --------------------------------------------------------------------


def patch_loss(
    weights: Tensor, logits: Tensor, labels: Tensor, *, detach: bool = False, reduction: str = "mean"
) -> Tensor:
    r"""The second term of Eq. 9, or with multi-hot labels of Eq. 10: weighty patches must be right on their own.

    .. math:: -\sum_m \alpha_m \log s(p_m)[t] \qquad\text{or}\qquad -\sum_m \alpha_m \max_{k:y_k=1}\log\sigma(p_{mk})

    By convexity the first is at least the image's own loss; the excess is what the patches disagree on.

    Args:
        weights: ``[B, M]`` summing to 1. They carry gradient, which lengthens right patches, unless ``detach``.
        logits: ``[B, M, K]``.
        labels: ``[B]`` int64, or ``[B, K]`` float in {0, 1}; an image without labels contributes 0 in Eq. 10.
        reduction: over images, see `base.reduced`.

    Returns:
        Sum over patches, mean over images: scalar >= 0; ``[B]`` for "none".

    Raises:
        ValueError: shapes that do not belong together, labels of neither kind, an unknown ``reduction``.

    Example:
        >>> p, t = torch.tensor([[[2.0, 0.0], [0.0, 2.0]]]), torch.tensor([0])  # the second patch is wrong
        >>> patch_loss(torch.full((1, 2), 0.5), p, t), patch_loss(torch.tensor([[1.0, 0.0]]), p, t)
        (tensor(1.1269), tensor(0.1269))
    """
    fit = logits.ndim == 3 and weights.shape == logits.shape[:2]
    require(fit, "expected weights [B, M] for logits [B, M, K]", tuple(weights.shape), tuple(logits.shape))
    logits = wide(logits)
    if _one_label_each(labels, len(logits), logits.shape[-1]):
        each = F.cross_entropy(logits.transpose(1, 2), labels.unsqueeze(1).expand(weights.shape), reduction="none")
    else:
        absent = (labels == 0).unsqueeze(1)
        best = F.logsigmoid(logits).masked_fill(absent, -torch.inf).amax(-1)
        each = -best.masked_fill(absent.all(-1), 0)
    return reduced(((weights.detach() if detach else weights) * each).sum(1), reduction)


class Attended(NamedTuple):
    """One look at a batch: image logits ``[B, K]``, weights ``[B, M]`` that sum to 1, patch logits ``[B, M, K]``."""

    image: Tensor
    weights: Tensor
    patches: Tensor


class LossBasedAttention(Criterion):
    r"""Eq. 9, or with multi-hot labels Eq. 10, on patch logits: :math:`L = L_{image} + \gamma L_{patch}`.

    Args:
        cutoff: :math:`\xi` in [0, 1]; norm: see `patch_lengths`; reduction: over images, see `base.reduced`.
        balance: :math:`\gamma \ge 0`. The paper ramps it up during training (`preset.gaussian_ramp_up`).
        detach: no gradient from the patch term into the weights.
        capsules: a patch's logits from its capsules': "sum" (official code) or "attended", :math:`\sum_c w_{cm}p_{cm} /
            \sum_c w_{cm}` (ours), of which the image's logits are again a mean.

    Example:
        >>> patch_logits = torch.tensor([[[3.0, -4.0], [0.0, 3.0], [2.0, 0.0]]])  # an image of three patches
        >>> criterion = LossBasedAttention(cutoff=0.75, balance=0.1)
        >>> criterion(patch_logits, torch.tensor([1])), criterion.attend(patch_logits).image
        (tensor(5.9224), tensor([[ 2.5000, -2.8333]]))
    """

    def __init__(
        self,
        cutoff: float = 0.1,
        balance: float = 0.1,
        norm: str = "l2",
        detach: bool = False,
        reduction: str = "mean",
        capsules: str = "sum",
    ):
        inside, known = 0 <= cutoff <= 1 and balance >= 0, capsules in ("sum", "attended") and norm in NORMS
        require(inside, "cutoff (xi) must lie in [0, 1] and balance be >= 0", cutoff, balance)
        require(known, f"expected capsules sum|attended and norm in {tuple(NORMS)}", repr(capsules), repr(norm))
        super().__init__(
            cutoff=cutoff, balance=balance, norm=norm, detach=detach, reduction=reduction, capsules=capsules
        )

    def attend(self, patch_logits: Tensor, cells: int | None = None) -> Attended:
        """Weigh ``[B, M, K]`` (Eq. 5; ``cells`` as for `cut_off`) or ``[B, C, M, K]`` (Eq. 6)."""
        logits, cutoff, norm = wide(patch_logits), self.options["cutoff"], self.options["norm"]
        if logits.ndim == 3:
            alpha, _ = loss_attention(logits, cutoff, norm=norm, cells=cells)
            return Attended(attended_logits(alpha, logits), alpha, logits)
        each, alpha = capsule_attention(logits, cutoff, norm=norm)
        image = attended_logits(each.flatten(1), logits.flatten(1, 2))
        if self.options["capsules"] == "sum":
            return Attended(image, alpha, logits.sum(1))
        share = each / each.sum(1, keepdim=True).clamp_min(torch.finfo(each.dtype).tiny)
        return Attended(image, alpha, (share.unsqueeze(-1) * logits).sum(1))

    def forward(self, patch_logits: Tensor, labels: Tensor) -> Tensor:
        """``[B, M, K]`` or ``[B, C, M, K]`` and labels ``[B]`` int64 or ``[B, K]`` float: scalar, or ``[B]``."""
        image, weights, patches = self.attend(patch_logits)
        detach, how = self.options["detach"], self.options["reduction"]
        term = patch_loss(weights, patches, labels, detach=detach, reduction=how)
        return image_loss(image, labels, how) + self.options["balance"] * term
