"""The size and the unit of a map: enlarged to the image, divided by its peak or by its sum."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class UnitMass(NamedTuple):
    """Maps ``[..., h, w]`` that sum to one, and which of them, ``[...]`` bool, had no mass and were left all zero."""

    maps: Tensor
    dead: Tensor


def normalise(maps: Tensor) -> Tensor:
    """Each map ``[..., h, w]``, non-negative, divided by its maximum; a map without positive entry stays as it is.

    Example:
        >>> normalise(torch.tensor([[[1.0, 4.0]], [[0.0, 0.0]]]))
        tensor([[[0.2500, 1.0000]],
        <BLANKLINE>
                [[0.0000, 0.0000]]])
    """
    peak = maps.amax(dim=(-2, -1), keepdim=True)
    return maps / torch.where(peak <= 0, torch.ones_like(peak), peak)  # a NaN stays visible


def enlarge(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Maps ``[B, h, w]`` at the size ``(H, W)`` of the images, bilinear between the centres of the cells.

    Example:
        >>> enlarge(torch.tensor([[[0.0, 1.0]]]), (1, 4))
        tensor([[[0.0000, 0.2500, 0.7500, 1.0000]]])
    """
    return F.interpolate(maps.unsqueeze(1), tuple(size), mode="bilinear", align_corners=False)[:, 0]


def unit_mass(maps: Tensor, floor: float = 1e-20) -> UnitMass:
    """Each map ``[..., h, w]``, non-negative, divided by its sum; value and gradient are zero where the sum <= floor.

    Dividing, not adding an epsilon, keeps the result independent of the scale of the logits. Watch the share of
    ``dead`` maps: a penalty on normalised maps is also satisfied by maps that are zero everywhere.

    Example:
        >>> maps, dead = unit_mass(torch.tensor([[[1.0, 3.0]], [[0.0, 0.0]]]))
        >>> maps.flatten(1), dead
        (tensor([[0.2500, 0.7500],
                [0.0000, 0.0000]]), tensor([False,  True]))
    """
    held = torch.promote_types(maps.dtype, torch.float32)  # float16 ends at 65504
    total = maps.sum(dim=(-2, -1), keepdim=True, dtype=held)
    dead = total <= floor
    scaled = (maps / torch.where(dead, torch.ones_like(total), total)).to(maps.dtype)
    return UnitMass(torch.where(dead, torch.zeros_like(scaled), scaled), dead[..., 0, 0])
