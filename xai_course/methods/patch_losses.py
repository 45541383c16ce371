r"""The losses of Loss-Attention (Eqs. 1-3, 9, 10), what Propositions 1 and 2 promise (Eqs. 7, 8), and their `Method`.

Shi et al., IEEE TIP 30 (2021). Everything here takes patch logits and weights; where the weights come from is the
business of `loss_attention` and `patch_heads`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data.batch import Batch
from ..maps import normalise
from ..preset import Clock, gaussian_ramp_up
from .base import Losses, Method, wide


def image_loss(logits: Tensor, labels: Tensor) -> Tensor:
    r"""Loss of the image's logits: :math:`-\log s(z)[t]` (Eqs. 1 and 2), or for multi-hot labels Eq. 3.

    .. math:: L_{bce} = -[y\cdot\log\sigma(z) + (1-y)\cdot\log(1-\sigma(z))]

    Eq. 3 is a dot product: a **sum** over classes, where many libraries take the mean.

    Args:
        logits: ``[B, K]``.
        labels: ``[B]`` int64, or ``[B, K]`` float in {0, 1}.

    Returns:
        Mean over images, scalar >= 0.

    Raises:
        ValueError: labels of neither kind.
    """
    if _one_label_each(labels, len(logits), logits.shape[-1]):
        return F.cross_entropy(logits, labels)
    return F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), reduction="none").sum(-1).mean()


def cross_entropy_bound(weights: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    r"""Right-hand side of Proposition 1 (Eq. 7), with :math:`q_{mk} = s(p_m)[k]`.

    .. math:: L_{ce} \ge \frac{R}{1+R}, \qquad R = \sum_{k\ne t}\prod_m \Bigl(\frac{q_{mk}}{q_{mt}}\Bigr)^{\alpha_m}

    The normalisers of the patches cancel: :math:`R = \sum_{k\ne t} e^{z_k - z_t}`, so the bound is
    :math:`1 - s(z)[t]` and the proposition is :math:`-\log u \ge 1-u`. The literal product overflows from logits of
    about 1e3 on; here it is a sigmoid of a log-sum-exp.

    Args:
        weights: ``[B, M]`` summing to 1; logits: ``[B, M, K]`` with K >= 2; labels: ``[B]`` int64.

    Returns:
        ``[B]`` in [0, 1].
    """
    image = (weights.unsqueeze(-1) * logits).sum(-2)
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
    """
    image = (weights.unsqueeze(-1) * logits).sum(-2)
    return torch.where(labels > 0, -image, image).sigmoid().sum(1)


def patch_loss(weights: Tensor, logits: Tensor, labels: Tensor, *, detach: bool = False) -> Tensor:
    r"""The second term of Eq. 9, or with multi-hot labels of Eq. 10: weighty patches must be right on their own.

    .. math:: -\sum_m \alpha_m \log s(p_m)[t] \qquad\text{or}\qquad -\sum_m \alpha_m \max_{k:y_k=1}\log\sigma(p_{mk})

    By convexity the first is at least the image's own loss; the excess is what the patches disagree on.

    Args:
        weights: ``[B, M]`` summing to 1. They carry gradient, which lengthens right patches, unless ``detach``.
        logits: ``[B, M, K]``.
        labels: ``[B]`` int64, or ``[B, K]`` float in {0, 1}; an image without labels contributes 0 in Eq. 10.

    Returns:
        Sum over patches, mean over images: scalar >= 0.

    Raises:
        ValueError: shapes that do not belong together, labels of neither kind.
    """
    if logits.ndim != 3 or weights.shape != logits.shape[:2]:
        raise ValueError(
            f"expected weights [B, M] for logits [B, M, K], got {tuple(weights.shape)}, {tuple(logits.shape)}"
        )
    logits = wide(logits)
    if _one_label_each(labels, len(logits), logits.shape[-1]):
        each = F.cross_entropy(logits.transpose(1, 2), labels.unsqueeze(1).expand(weights.shape), reduction="none")
    else:
        absent = (labels == 0).unsqueeze(1)
        best = F.logsigmoid(logits).masked_fill(absent, -torch.inf).amax(-1)
        each = -best.masked_fill(absent.all(-1), 0)
    return ((weights.detach() if detach else weights) * each).sum(1).mean()


class Attended(NamedTuple):
    """One look at a batch: image logits ``[B, K]``, weights ``[B, M]`` that sum to 1, patch logits ``[B, M, K]``."""

    image: Tensor
    weights: Tensor
    patches: Tensor


class PatchMethod(Method):
    r"""A network of patches, a rule that weighs them, and :math:`L = L_{image} + \gamma(\tau) L_{patch}` (Eqs. 9, 10).

    Args:
        net: has ``patch_logits(images)`` and ``paint``: `nets.patch_nets.PatchNet` or `nets.capsules.CapsuleNet`.
        balance: :math:`\gamma_{max} \ge 0`; 0 leaves the patch term out, as the compared heads do.
        ramp: share of the run until gamma is full, the paper's 80 of 200 epochs; 0 switches the ramp off.
        ramp_steepness: 1 as printed (Sec. V-A: gamma starts at 0.368 of its maximum); the official code has 5 (0.0067)
            and, with ``zero_first``, 0 in epoch 0.
        detach_alpha: no gradient from the patch term into the weights.
        select_above: :math:`\xi`; a patch counts as selected when its weight exceeds ``select_above / M``.

    Raises:
        ValueError: a negative ``balance``.
    """

    def __init__(
        self,
        net: nn.Module,
        *,
        balance: float = 0.0,
        ramp: float = 80 / 200,
        ramp_steepness: float = 1.0,
        zero_first: bool = False,
        detach_alpha: bool = False,
        select_above: float = 0.0,
    ):
        super().__init__(net)
        if not (balance >= 0 and 0 <= ramp <= 1):
            raise ValueError(f"balance must not be negative and ramp lie in [0, 1], got {balance} and {ramp}")
        self.balance, self.ramp, self.ramp_steepness, self.zero_first = balance, ramp, ramp_steepness, zero_first
        self.detach_alpha, self.select_above = detach_alpha, select_above

    def attend(self, images: Tensor) -> Attended:
        raise TypeError(f"{type(self).__name__} weighs nothing: override PatchMethod.attend")

    def gamma(self, clock: Clock) -> float:
        r""":math:`\gamma(\tau)` in the clock's epoch."""
        if self.zero_first and clock.epoch == 0:
            return 0.0
        return self.balance * gaussian_ramp_up(clock.epoch, self.ramp * clock.epochs, self.ramp_steepness)

    def losses(self, batch: Batch, clock: Clock) -> Iterator[Losses]:
        seen = self.attend(batch.images)
        image = image_loss(seen.image, batch.labels)
        if not self.balance:
            yield {"classification": image, "total": image}
            return
        patches = patch_loss(seen.weights, seen.patches, batch.labels, detach=self.detach_alpha)
        yield {"classification": image, "patches": patches, "total": image + self.gamma(clock) * patches}

    def logits(self, images: Tensor) -> Tensor:
        return self.attend(images).image

    def selected(self, weights: Tensor) -> Tensor:
        """Which patches count as selected: ``[B, M]`` bool."""
        return weights > self.select_above / weights.shape[-1]

    def explain(self, images: Tensor, classes: Tensor, *, values: str = "weights") -> Tensor:
        r"""Heat map ``[B, H, W]`` in [0, 1]: a pixel has the mean value of the patches over it, divided by the maximum.

        Args:
            classes: ``[B]``; the paper's map ("weights", Fig. 4) does not depend on it: alpha is blind to the class.
            values: "weights" or "contributions", :math:`\alpha_m \max(p_{mk}, 0)`, ours.
        """
        seen = self.attend(images)
        value = seen.weights
        if values == "contributions":
            at = classes.view(-1, 1, 1).expand(-1, seen.patches.shape[1], 1)
            value = value * seen.patches.gather(2, at).squeeze(2).relu()
        return normalise(self.net.paint(value, images.shape[-2:]))


def _one_label_each(labels: Tensor, images: int, classes: int) -> bool:
    if labels.shape == (images,) and labels.dtype == torch.int64:
        return True
    if labels.shape == (images, classes) and labels.is_floating_point():
        return False
    raise ValueError(
        f"labels must be [{images}] int64 (one class each) or [{images}, {classes}] float (multi-hot), "
        f"got {tuple(labels.shape)} {labels.dtype}"
    )
