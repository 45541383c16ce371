"""pix2pix's two networks: sizes as in the authors' release, and what their shapes allow."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from xai_course.nets.patch_backbones import field_of
from xai_course.nets.pix2pix import UNetGenerator, initialise, patch_discriminator


def count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize("downs, expected", [(8, 54_409_857), (7, 41_824_897), (6, 29_239_937), (5, 16_654_977)])
def test_generator_sizes(downs, expected):
    with torch.device("meta"):
        assert count(UNetGenerator(3, 1, downs=downs)) == expected


def test_generator_three_to_three():
    with torch.device("meta"):
        assert count(UNetGenerator(3, 3, downs=8)) == 54_413_955


@pytest.mark.parametrize("channels, expected", [(4, 2_766_657), (6, 2_768_705)])
def test_discriminator_sizes(channels, expected):
    assert count(patch_discriminator(channels)) == expected


@pytest.mark.parametrize("side, patches", [(256, 30), (224, 26), (128, 14), (64, 6)])
def test_discriminator_sees_seventy_pixels(side, patches):
    with torch.device("meta"):
        net = patch_discriminator(4)
        assert net(torch.zeros(1, 4, side, side)).shape == (1, 1, patches, patches)
    assert field_of(net).size == 70


@pytest.mark.parametrize("downs", [6, 7, 8])
def test_224_pixels_cannot_be_halved_more_than_five_times(downs):
    with torch.device("meta"), pytest.raises(ValueError, match=f"multiples of {2**downs}"):
        UNetGenerator(downs=downs)(torch.zeros(1, 3, 224, 224))


def test_224_pixels_can_be_halved_five_times():
    with torch.device("meta"):
        assert UNetGenerator(downs=5)(torch.zeros(1, 3, 224, 224)).shape == (1, 1, 224, 224)


@pytest.mark.parametrize("batch", [1, 3])
def test_generator_trains_on_a_single_image(batch):
    net = UNetGenerator(downs=5, width=2)
    out = net(torch.randn(batch, 3, 32, 64))
    out.sum().backward()
    assert out.shape == (batch, 1, 32, 64) and out.abs().max() < 1
    assert all(p.grad is not None for p in net.parameters())


def test_every_skip_reaches_the_output():
    """Silencing the path below a step must not silence the steps above it: the skips carry them."""
    torch.manual_seed(0)
    net = UNetGenerator(downs=3, width=2).eval()
    x = torch.randn(1, 3, 8, 8, requires_grad=True)
    nn.init.zeros_(net.up[-1][1].weight)  # nothing comes back from the bottleneck
    assert torch.autograd.grad(net(x).sum(), x)[0].abs().sum() > 0


def test_dropout_sits_in_the_inner_steps_only():
    with_dropout = [any(isinstance(m, nn.Dropout) for m in step) for step in UNetGenerator(downs=8, width=1).up]
    assert with_dropout == [False, False, False, False, True, True, True, False]


def test_initialisation():
    torch.manual_seed(0)
    net = initialise(UNetGenerator(downs=6, width=16))
    weights = torch.cat([m.weight.flatten() for m in net.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)])
    scales = torch.cat([m.weight for m in net.modules() if isinstance(m, nn.BatchNorm2d)])
    assert abs(weights.mean()) < 1e-4 and abs(weights.std() - 0.02) < 1e-4
    assert abs(scales.mean() - 1) < 0.01 and net.up[0][1].bias.item() == 0


def test_too_few_downs():
    with pytest.raises(ValueError, match="downs must be at least 2, got 1"):
        UNetGenerator(downs=1)
