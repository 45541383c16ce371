"""The two networks of pix2pix (Isola et al. 2017), with which ReFF's pseudo-annotator is built.

Layer by layer as in the authors' PyTorch release: a U-Net generator of 4x4 convolutions with stride 2, and the "70x70"
PatchGAN discriminator, whose every output sees 70x70 pixels of the input.
"""

import torch
from torch import Tensor, nn

from .._require import require


class UNetGenerator(nn.Module):
    """Encoder and decoder of ``downs`` steps with a skip connection at every size.

    A skip carries the encoder's output; the decoder applies a ReLU to it first, so it makes no difference whether it
    was taken before or after the encoder's leaky ReLU.

    Args:
        inputs, outputs: image channels.
        downs: halvings, 5 to 8 in the release's family (fewer for small images); the image sides must be multiples
            of ``2 ** downs``.
        width: channels of the first step; the steps have ``width * (1, 2, 4, 8, 8, ...)``.
        dropout: probability in the decoder steps at 8 times the width, as in the release.

    Raises:
        ValueError: fewer than two downs, or (in forward) an image that cannot be halved that often.

    Example:
        >>> UNetGenerator(downs=2, width=2)(torch.zeros(1, 3, 8, 8)).shape
        torch.Size([1, 1, 8, 8])
    """

    def __init__(self, inputs: int = 3, outputs: int = 1, *, downs: int = 8, width: int = 64, dropout: float = 0.5):
        super().__init__()
        require(downs >= 2, "downs must be at least 2", downs)
        self.factor = 2**downs
        sizes = [width * min(2**i, 8) for i in range(downs)]
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for i, (before, after) in enumerate(zip([inputs, *sizes], sizes)):
            outer, inner = i == 0, i == downs - 1
            step: list[nn.Module] = [] if outer else [nn.LeakyReLU(0.2)]
            step.append(nn.Conv2d(before, after, 4, 2, 1, bias=False))
            # no norm at the innermost step: BatchNorm over one value per channel is undefined for a single image
            step += [] if outer or inner else [nn.BatchNorm2d(after)]
            self.down.append(nn.Sequential(*step))
            target = outputs if outer else before
            rise = nn.ConvTranspose2d(after if inner else 2 * after, target, 4, 2, 1, bias=outer)
            tail: list[nn.Module] = [nn.Tanh()] if outer else [nn.BatchNorm2d(target)]
            tail += [nn.Dropout(dropout)] if 4 <= i < downs - 1 and dropout else []
            self.up.append(nn.Sequential(nn.ReLU(), rise, *tail))

    def forward(self, images: Tensor) -> Tensor:
        """``[B, 3, H, W]`` in [-1, 1] -> ``[B, 1, H, W]`` in (-1, 1)."""
        if images.shape[-2] % self.factor or images.shape[-1] % self.factor:
            raise ValueError(
                f"image sides must be multiples of {self.factor} for {len(self.down)} halvings, "
                f"got {tuple(images.shape[-2:])}: resize them, or use fewer downs"
            )
        kept, x = [], images
        for step in self.down:
            x = step(x)
            kept.append(x)
        x = self.up[-1](kept.pop())
        for rise in reversed(self.up[:-1]):
            x = rise(torch.cat([kept.pop(), x], dim=1))
        return x


def patch_discriminator(channels: int = 4, *, width: int = 64, layers: int = 3) -> nn.Sequential:
    """PatchGAN: ``[B, channels, H, W]`` (image and annotation stacked) -> one logit per patch ``[B, 1, h, w]``.

    Three strided 4x4 convolutions and two with stride 1: 64, 128, 256, 512 and 1 channels, receptive field 70 pixels.

    Example:
        >>> patch_discriminator()(torch.zeros(1, 4, 256, 256)).shape
        torch.Size([1, 1, 30, 30])
    """
    steps: list[nn.Module] = [nn.Conv2d(channels, width, 4, 2, 1), nn.LeakyReLU(0.2)]
    size = width
    for i in range(1, layers + 1):
        wider = width * min(2**i, 8)
        stride = 1 if i == layers else 2
        steps += [nn.Conv2d(size, wider, 4, stride, 1, bias=False), nn.BatchNorm2d(wider), nn.LeakyReLU(0.2)]
        size = wider
    return nn.Sequential(*steps, nn.Conv2d(size, 1, 4, 1, 1))


@torch.no_grad()
def initialise(net: nn.Module, gain: float = 0.02) -> nn.Module:
    """pix2pix's start in place: weights N(0, 0.02), BatchNorm scales N(1, 0.02), biases zero."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, 0.0, gain)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, gain)
        if isinstance(bias := getattr(module, "bias", None), Tensor):
            nn.init.zeros_(bias)
    return net
