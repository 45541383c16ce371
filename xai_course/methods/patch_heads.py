r"""The heads that Loss-Attention is compared with: mean-pooling, Attention, Gated-Attention, dynamic routing.

Shi et al., IEEE TIP 30 (2021), Sec. V-B. They weigh the same patches by another rule, which decides who receives
gradient: everybody alike (mean), whom a separate little network points at (Ilse, Tomczak and Welling 2018), or whom the
output capsules agree with (Sabour, Frosst and Hinton 2017).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data.batch import Batch
from ..preset import Clock
from .base import Losses, Method, wide
from .patch_losses import Attended, PatchMethod


class MeanPooling(PatchMethod):
    r"""Every patch weighs :math:`\alpha_m = 1/M`, so :math:`z` is the mean of the patch logits. No parameters."""

    def attend(self, images: Tensor) -> Attended:
        logits = wide(self.net.patch_logits(images))
        weights = logits.new_full(logits.shape[:2], 1 / logits.shape[1])
        return Attended(logits.mean(1), weights, logits)


class AttentionScores(nn.Module):
    r"""Scores of patches from their features, :math:`w^T\tanh(Vh_m)` or gated
    :math:`w^T(\tanh(Vh_m)\odot\sigma(Uh_m))` (Ilse et al. 2018, Eqs. 8 and 9), with biases.

    Args:
        width: size of the features :math:`h`; hidden: rows of V and U; gated: with U.
    """

    def __init__(self, width: int, hidden: int = 128, *, gated: bool = False):
        super().__init__()
        self.view = nn.Linear(width, hidden)
        self.gate = nn.Linear(width, hidden) if gated else None
        self.score = nn.Linear(hidden, 1)

    def forward(self, features: Tensor) -> Tensor:
        """``[B, M, C] -> [B, M]``."""
        seen = self.view(features).tanh()
        if self.gate is not None:
            seen = seen * self.gate(features).sigmoid()
        return self.score(seen).squeeze(-1)


class AttentionPooling(PatchMethod):
    r"""Softmax attention over patches: :math:`\alpha = s(\text{scores})`, :math:`z = \sum_m\alpha_m p_m`.

    The patch term of Eq. 9 is off (``balance=0``): the paper gives these heads "the same training procedure" without
    saying whether that includes the loss. ``balance=0.1`` is the other reading. A patch counts as selected when its
    weight exceeds :math:`\xi/M` with :math:`\xi` = 0.1 (Sec. V-D).

    Args:
        net: a `PatchNet`; gated: Gated-Attention; hidden: see `AttentionScores`; further keywords of `PatchMethod`.
    """

    def __init__(
        self, net: nn.Module, *, gated: bool = False, hidden: int = 128, select_above: float = 0.1, **keywords
    ):
        super().__init__(net, select_above=select_above, **keywords)
        self.scores = AttentionScores(net.head.in_features, hidden, gated=gated)

    def attend(self, images: Tensor) -> Attended:
        features = self.net.patch_features(images)
        weights = wide(self.scores(features)).softmax(-1)
        logits = wide(self.net.head(features))
        return Attended((weights.unsqueeze(-1) * logits).sum(1), weights, logits)


def squash(vectors: Tensor) -> Tensor:
    r"""Shrink to a length below 1, :math:`\frac{\lVert s\rVert^2}{1+\lVert s\rVert^2}\frac{s}{\lVert s\rVert}`.

    Sabour et al. 2017, Eq. 1, over the last axis. Written as :math:`s\,\lVert s\rVert/(1+\lVert s\rVert^2)`: no
    division by a length that may be 0.
    """
    length = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    return vectors * (length / (1 + length.square()))


def dynamic_routing(votes: Tensor, iterations: int = 3) -> Tensor:
    """Routing by agreement (Sabour et al. 2017, Procedure 1), each example on its own.

    Only the last iteration carries gradient; the earlier ones find the coupling coefficients.

    Args:
        votes: ``[B, N, K, D]``, what each of N input capsules predicts for each of K output capsules.
        iterations: at least 1.

    Returns:
        Output capsules ``[B, K, D]``, shorter than 1.

    Raises:
        ValueError: votes of another rank, or no iteration.
    """
    if votes.ndim != 4 or iterations < 1:
        raise ValueError(f"votes must be [B, N, K, D] and iterations >= 1, got {tuple(votes.shape)} and {iterations}")
    votes = wide(votes)
    fixed = votes.detach()
    agreement = votes.new_zeros(votes.shape[:3])
    for _ in range(iterations - 1):
        outputs = squash(torch.einsum("bnk,bnkd->bkd", agreement.softmax(2), fixed))
        agreement = agreement + torch.einsum("bkd,bnkd->bnk", outputs, fixed)
    return squash(torch.einsum("bnk,bnkd->bkd", agreement.softmax(2), votes))


def margin_loss(
    lengths: Tensor, labels: Tensor, *, above: float = 0.9, below: float = 0.1, absent: float = 0.5
) -> Tensor:
    r"""Loss of capsule lengths (Sabour et al. 2017, Eq. 4), one or several classes present.

    .. math:: \sum_k y_k\max(0, m^+ - \ell_k)^2 + \lambda(1-y_k)\max(0, \ell_k - m^-)^2

    Args:
        lengths: ``[B, K]`` in [0, 1); labels: ``[B]`` int64 or ``[B, K]`` in {0, 1}.
        above, below, absent: :math:`m^+`, :math:`m^-`, :math:`\lambda`.

    Returns:
        Sum over classes, mean over images.
    """
    present = F.one_hot(labels, lengths.shape[1]) if labels.ndim == 1 else labels
    present = present.to(lengths.dtype)
    missed, false = (above - lengths).relu().square(), (lengths - below).relu().square()
    return (present * missed + absent * (1 - present) * false).sum(1).mean()


class DynamicRouting(Method):
    """The capsule baseline: the lengths of routed capsules are the scores, trained by the margin loss.

    Args:
        net: `nets.capsules.RoutingNet`, ``votes(images) -> [B, N, K, D]``.
        iterations: of `dynamic_routing`.
    """

    def __init__(self, net: nn.Module, iterations: int = 3):
        super().__init__(net)
        self.iterations = iterations

    def logits(self, images: Tensor) -> Tensor:
        """Lengths ``[B, K]`` of the output capsules in [0, 1)."""
        return torch.linalg.vector_norm(dynamic_routing(self.net.votes(images), self.iterations), dim=-1)

    def losses(self, batch: Batch, clock: Clock) -> Iterator[Losses]:
        yield {"total": margin_loss(self.logits(batch.images), batch.labels)}
