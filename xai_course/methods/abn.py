"""The attention branch network with its map loss, the system that ReFF is compared with (supplement B)."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from .._require import require
from ..data.batch import Batch
from ..maps import enlarge, normalise
from ..nets.abn import AttentionBranchNetwork
from ..preset import Clock
from .base import Losses, Method, classification_loss
from .guidance import AttentionDistance
from .reff import own_masks


class ABN(Method):
    r"""Both heads' classification losses, weight 1 each, plus ``balance`` (:math:`\gamma`) times `AttentionDistance`.

    Args:
        net: an `AttentionBranchNetwork`.
        balance: :math:`\gamma`; 0 is plain ABN, which needs no annotations.
        annotations: ``batch -> [B, H, W]`` in [0, 1]; default the data set's masks, `MixedAnnotations` for
            pseudo-annotations.

    Raises:
        ValueError: negative balance, or a network without attention branch.

    Example:
        >>> from xai_course.nets.abn import abn_from
        >>> from xai_course.nets.convnets import small_cnn
        >>> masks = torch.zeros(2, 32, 32, dtype=torch.bool)
        >>> batch = Batch(torch.rand(2, 3, 32, 32), torch.tensor([0, 2]), masks, torch.arange(2))
        >>> sorted(next(ABN(abn_from(small_cnn(3, width=2))).losses(batch, Clock())))
        ['attention', 'classification', 'map', 'total']
    """

    net: AttentionBranchNetwork
    needs, cure = ("attend",), ", as nets.abn.AttentionBranchNetwork has"

    def __init__(
        self,
        net: AttentionBranchNetwork,
        balance: float = 10.0,
        *,
        annotations: Callable[[Batch], Tensor] = own_masks,
    ):
        super().__init__(net)

        require(balance >= 0, "balance must be >= 0", balance)
        self.balance, self.annotations, self.distance = balance, annotations, AttentionDistance()

    def losses(self, batch: Batch, clock: Clock) -> Iterator[Losses]:
        out = self.net.attend(batch.images)
        attention = classification_loss(out.attention, batch.labels)
        perception = classification_loss(out.perception, batch.labels)
        terms = {"attention": attention.detach(), "classification": perception.detach()}
        total = attention + perception
        if self.balance:
            drawn = self.distance(out.map, self.annotations(batch))
            terms["map"] = drawn.detach()
            total = total + self.balance * drawn
        yield {"total": total, **terms}

    @torch.no_grad()
    def explain(self, images: Tensor, classes: Tensor) -> Tensor:
        """The attention map, the same for every class: ``[B, H, W]`` in [0, 1]."""
        return normalise(enlarge(self.net.attend(images).map, images.shape[-2:]))
