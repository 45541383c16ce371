"""U-Net: sizes, the parameter count in closed form, the copies across, and clear errors."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from xai_course.nets.unet import UNet


def counted(channels: int, outputs: int, width: int, levels: int) -> int:
    """Parameters by hand: 3x3 convolutions without bias, two numbers per BatchNorm channel, 2x2 up-convolutions."""
    w = [width * 2**i for i in range(levels + 1)]
    double = lambda i, o: 9 * i * o + 9 * o * o + 4 * o  # noqa: E731
    pairs = list(pairwise(w))
    down = double(channels, width) + sum(double(a, b) for a, b in pairs)
    up = sum(4 * b * a + a + double(2 * a, a) for a, b in pairs)
    return down + up + width * outputs + outputs


@pytest.mark.parametrize("shape", [(3, 1, 4, 1), (1, 2, 6, 3), (3, 1, 64, 4)])
def test_parameter_count_closed_form(shape):
    with torch.device("meta"):
        net = UNet(*shape)
    assert sum(p.numel() for p in net.parameters()) == counted(*shape)


def test_original_widths_have_31_million():
    assert counted(3, 1, 64, 4) == 31_037_633


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_mask_at_image_size(levels):
    net = UNet(3, 2, width=2, levels=levels).eval()
    assert net(torch.rand(2, 3, 16, 24)).shape == (2, 2, 16, 24)


def test_every_parameter_learns():
    net = UNet(3, 1, width=2, levels=2)
    net(torch.rand(2, 3, 8, 8)).square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    assert all(p.grad.abs().sum() > 0 for p in net.up.parameters())


def test_copy_across_keeps_pixel_detail():
    """Without the way down (its features zeroed) the output still depends on single pixels."""
    net = UNet(1, 1, width=2, levels=1).eval()
    torch.nn.init.zeros_(net.up[0].weight)
    torch.nn.init.zeros_(net.up[0].bias)
    images = torch.rand(1, 1, 8, 8, requires_grad=True)
    net(images).sum().backward()
    assert images.grad.abs().sum() > 0


@pytest.mark.parametrize("bad", [(2, 3, 8, 10), (2, 1, 8, 8), (3, 8, 8)])
def test_bad_images(bad):
    with pytest.raises(ValueError, match="images must be"):
        UNet(3, 1, width=2, levels=2)(torch.rand(bad))


def test_bad_arguments():
    with pytest.raises(ValueError, match="levels"):
        UNet(levels=0)
