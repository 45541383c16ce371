"""U-Net for full supervision: the upper bound of Min-Max entropy's Table 1, trained with the masks themselves."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from .convnets import conv


def double_conv(inputs: int, outputs: int) -> nn.Sequential:
    """Twice 3x3 convolution (same padding, no bias), BatchNorm, ReLU.

    Example:
        >>> double_conv(3, 4)(torch.rand(1, 3, 8, 8)).shape
        torch.Size([1, 4, 8, 8])
    """
    return nn.Sequential(*conv(inputs, outputs), *conv(outputs, outputs))


class UNet(nn.Module):
    """Contracting path, expanding path, and a copy of the features across at every scale (Ronneberger et al. 2015).

    Same-size convolutions with BatchNorm where the original crops and has none, so a mask comes out at the size of the
    image. With ``width=64, levels=4`` the channels are the original's 64, 128, 256, 512, 1024.

    Args:
        channels: of the image.
        outputs: maps that come out; 1 for foreground against background.
        width: channels at full size; each of the ``levels`` halvings doubles them.
        levels: number of halvings >= 1.

    Raises:
        ValueError: an argument below 1; in `forward`, a side that ``2**levels`` does not divide.

    Example:
        >>> UNet(width=2, levels=2)(torch.rand(1, 3, 8, 8)).shape
        torch.Size([1, 1, 8, 8])
    """

    def __init__(self, channels: int = 3, outputs: int = 1, width: int = 64, levels: int = 4):
        super().__init__()
        if min(channels, outputs, width, levels) < 1:
            raise ValueError(f"channels, outputs, width, levels must be >= 1, got {channels, outputs, width, levels}")
        widths = [width * 2**i for i in range(levels + 1)]
        self.first = double_conv(channels, width)
        self.down = nn.ModuleList(double_conv(a, b) for a, b in pairwise(widths))
        self.up = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, stride=2) for a, b in pairwise(widths))
        self.merge = nn.ModuleList(double_conv(2 * a, a) for a in widths[:-1])
        self.pool, self.last = nn.MaxPool2d(2), nn.Conv2d(width, outputs, 1)
        self.levels, self.channels = levels, channels

    def forward(self, images: Tensor) -> Tensor:
        """``[B, C, H, W]`` to pixel logits ``[B, outputs, H, W]``."""
        step = 2**self.levels
        if images.ndim != 4 or images.shape[1] != self.channels or images.shape[2] % step or images.shape[3] % step:
            wanted = f"[B, {self.channels}, H, W] with H and W multiples of {step}"
            raise ValueError(f"images must be {wanted}, got {tuple(images.shape)}")
        skips = [self.first(images)]
        for block in self.down:
            skips.append(block(self.pool(skips[-1])))
        x = skips.pop()
        for up, merge in zip(reversed(self.up), reversed(self.merge)):
            x = merge(torch.cat([skips.pop(), up(x)], dim=1))
        return self.last(x)
