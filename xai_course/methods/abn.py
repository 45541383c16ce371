"""The attention branch network with its map loss, the system that ReFF is compared with (supplement B)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from ..data.batch import Batch
from ..maps import enlarge, normalise
from ..nets.abn import AttentionBranchNetwork
from ..preset import Clock
from .base import Losses, Method, classification_loss
from .reff import check_relevant, own_masks


def map_loss(attention: Tensor, relevant: Tensor, reduction: str = "mean") -> Tensor:
    r"""Distance of the attention map to the annotation, :math:`\|M(x) - s\|_2^2` (supplement B, Mitsuhara et al. 2021).

    Args:
        attention: ``[B, h, w]`` in (0, 1).
        relevant: ``[B, H, W]`` in [0, 1], brought to (h, w) by averaging areas.
        reduction: over the cells of one map, "mean" or "sum" (the paper does not say; mean does not depend on h, w).

    Returns:
        Scalar, mean over the batch.

    Raises:
        ValueError: shapes or values that do not fit, or an unknown reduction.
    """
    if reduction not in ("mean", "sum"):
        raise ValueError(f'reduction must be "mean" or "sum", got {reduction!r}')
    check_relevant(relevant, len(attention))
    target = F.adaptive_avg_pool2d(relevant.to(attention.dtype).unsqueeze(1), attention.shape[1:])[:, 0]
    return getattr((attention - target).square(), reduction)(dim=(1, 2)).mean()


class ABN(Method):
    r"""Both heads' classification losses, weight 1 each, plus ``balance`` (:math:`\gamma`) times the map loss.

    Args:
        net: an `AttentionBranchNetwork`.
        balance: :math:`\gamma`; 0 is plain ABN, which needs no annotations.
        annotations: ``batch -> [B, H, W]`` in [0, 1]; default the data set's masks, `MixedAnnotations` for
            pseudo-annotations.
        reduction: see `map_loss`.

    Raises:
        ValueError: negative balance, or a network without attention branch.
    """

    def __init__(
        self,
        net: AttentionBranchNetwork,
        balance: float = 10.0,
        *,
        annotations: Callable[[Batch], Tensor] = own_masks,
        reduction: str = "mean",
    ):
        super().__init__(net)
        if not hasattr(net, "attend"):
            raise ValueError(f"net must be an AttentionBranchNetwork, got {type(net).__name__}")
        if not balance >= 0:
            raise ValueError(f"balance must be >= 0, got {balance}")
        self.balance, self.annotations, self.reduction = balance, annotations, reduction

    def losses(self, batch: Batch, clock: Clock) -> Iterator[Losses]:
        out = self.net.attend(batch.images)
        attention = classification_loss(out.attention, batch.labels)
        perception = classification_loss(out.perception, batch.labels)
        terms = {"attention": attention.detach(), "classification": perception.detach()}
        total = attention + perception
        if self.balance:
            drawn = map_loss(out.map.float(), self.annotations(batch), self.reduction)
            terms["map"] = drawn.detach()
            total = total + self.balance * drawn
        yield {"total": total, **terms}

    @torch.no_grad()
    def explain(self, images: Tensor, classes: Tensor) -> Tensor:
        """The attention map, the same for every class: ``[B, H, W]`` in [0, 1]."""
        return normalise(enlarge(self.net.attend(images).map, images.shape[-2:]))
