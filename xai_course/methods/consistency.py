"""Attention consistency under flips: the class activation maps of a mirrored image should be the mirrored maps.

Guo, Zheng, Fan, Li and Wu, "Visual Attention Consistency under Image Transforms for Multi-Label Image Classification",
CVPR 2019.
"""

from torch import Tensor

from .._require import require
from .base import FunctionCriterion, reduced, wide


def attention_consistency(maps: Tensor, flipped_maps: Tensor, reduction: str = "mean") -> Tensor:
    r"""Squared distance of the maps of flipped images from the flipped maps, :math:`\|M(\bar I)-\overline{M(I)}\|^2`.

    Args:
        maps: ``[B, K, h, w]`` (or ``[B, h, w]``) of the images as they are.
        flipped_maps: the same of the images flipped left to right.
        reduction: over the images, see `reduced`; the value of an image is the mean over its maps and cells.

    Raises:
        ValueError: shapes that differ or are no maps, or an empty batch.

    Example:
        >>> import torch
        >>> maps = torch.tensor([[[1.0, 2.0, 4.0]]])
        >>> attention_consistency(maps, maps.flip(-1)), attention_consistency(maps, maps)
        (tensor(0.), tensor(6.))
    """
    fit, wanted = maps.shape == flipped_maps.shape and maps.ndim in (3, 4) and len(maps), "[B, K, h, w] or [B, h, w]"
    got = tuple(maps.shape), tuple(flipped_maps.shape)
    require(fit, f"maps and flipped_maps must both be {wanted} with B > 0", *got)
    return reduced((wide(flipped_maps) - wide(maps).flip(-1)).square(), reduction)


class AttentionConsistencyLoss(FunctionCriterion, of=attention_consistency):
    """`attention_consistency` as a criterion, called with ``maps, flipped_maps``.

    Example:
        >>> import torch
        >>> from xai_course.maps import class_activation_map
        >>> body, weight = torch.nn.Conv2d(3, 8, 3), torch.rand(10, 8)
        >>> criterion, images = AttentionConsistencyLoss(), torch.rand(2, 3, 6, 6)
        >>> maps, flipped = (class_activation_map(body(x), weight) for x in (images, images.flip(-1)))
        >>> criterion(maps, flipped).backward()
    """
