"""What Min-Max entropy's Table 1 compares with, behind the same interface: pooled class maps, U-Net, trivial masks."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._require import require
from ..data.batch import Batch
from ..measure.looking import masks_of
from ..measure.trivial import centre_box, coin, whole_image
from ..nets.unet import UNet
from ..nets.wildcat import Localiser
from ..preset import Clock
from .base import Losses, Method
from .minmax import decided_loss, rescaled, scaled, upsample


class PooledMaps(Method):
    """CAM-Avg, CAM-Max, CAM-LSE, WILDCAT and Deep MIL: cross-entropy on the pooled scores, nothing else.

    The mask is the map of the class (Deep MIL: its attention), scaled to [0, 1] by its own extremes and enlarged, to be
    cut at 0.5. The paper does not say how its compared methods were cut; this gives all of them the same treatment.

    Args:
        net: `nets.wildcat.Localiser`; its head decides which method it is.

    Raises:
        ValueError: a network that gives no class maps.

    Example:
        >>> from xai_course.nets.wildcat import HEADS
        >>> trunk = nn.Conv2d(3, 8, 3, stride=4)  # or nn.Sequential(*list(torchvision_resnet.children())[:-2])
        >>> method = PooledMaps(Localiser(trunk, HEADS["cam_max"](8, 2)))
        >>> method.explain(torch.rand(2, 3, 32, 32), torch.tensor([0, 1])).shape
        torch.Size([2, 32, 32])
    """

    net: Localiser
    needs, cure = ("locate",), ": Localiser(trunk, HEADS[...](D, K))"

    def losses(self, batch: Batch, clock: Clock) -> Iterator[Losses]:
        yield {"total": decided_loss(self.logits(batch.images), batch.labels, "mean")}

    def logits(self, images: Tensor) -> Tensor:
        return self.net(scaled(images))

    def explain(self, images: Tensor, classes: Tensor) -> Tensor:
        maps = self.net.locate(scaled(images))[0]
        own = maps[torch.arange(len(maps), device=maps.device), classes].unsqueeze(1)
        return rescaled(upsample(own, images.shape[-2:]))[:, 0]


class FullSupervision(Method):
    """U-Net with the masks themselves, the upper bound: mean binary cross-entropy over the pixels.

    Example:
        >>> batch = Batch(torch.rand(2, 3, 8, 8), torch.tensor([0, 1]), torch.zeros(2, 8, 8) > 0, torch.arange(2))
        >>> [list(terms) for terms in FullSupervision(UNet(width=2, levels=1)).losses(batch, Clock())]
        [['total']]
    """

    net: UNet
    classifies = False

    def losses(self, batch: Batch, clock: Clock) -> Iterator[Losses]:
        logits, masks = self.net(scaled(batch.images))[:, 0], masks_of(batch)
        require(masks.shape == logits.shape, f"masks must be {tuple(logits.shape)}", tuple(masks.shape))
        yield {"total": F.binary_cross_entropy_with_logits(logits, masks.to(logits.dtype))}

    def explain(self, images: Tensor, classes: Tensor) -> Tensor:
        return self.net(scaled(images)).sigmoid()[:, 0]


MASKS = {"all_ones": whole_image, "random": coin, "centre": centre_box}


class TrivialMask(Method):
    """A mask that knows nothing, as a method, so that it stands in every table.

    Args:
        net: ignored; any module.
        kind: one of `MASKS`.

    Example:
        >>> TrivialMask(nn.Identity(), "centre").explain(torch.zeros(1, 3, 4, 4), torch.tensor([0]))[0, 1]
        tensor([0., 1., 1., 0.])
    """

    classifies = False

    def __init__(self, net: nn.Module, kind: str = "all_ones"):
        super().__init__(net)
        require(kind in MASKS, f"kind must be one of {', '.join(MASKS)}", repr(kind))
        self.kind = kind
        self.nothing = nn.Parameter(torch.zeros(()))  # a trainer wants something to train

    def losses(self, batch: Batch, clock: Clock) -> Iterator[Losses]:
        yield {"total": 0 * self.nothing}

    def explain(self, images: Tensor, classes: Tensor) -> Tensor:
        return MASKS[self.kind](images)
