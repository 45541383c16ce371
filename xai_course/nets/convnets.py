"""Plain convolutional classifiers: a small one for CPU labs, and AMC-Loss's Table 2."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .modes import seeded


class GapClassifier(nn.Module):
    """Any body that ends in maps, then global average pooling, then one linear layer: the network a CAM explains.

    Args:
        body: ``[B, C, H, W] -> [B, D, h, w]``; its direct children are the layers Grad-CAM can name ("body.2").
        head: linear layer ``D -> K``.

    Example:
        >>> net = GapClassifier(conv(3, 8, stride=2), nn.Linear(8, 5))
        >>> images = torch.rand(2, 3, 16, 16)
        >>> net.features(images).shape, net.embed(images).shape, net(images).shape
        (torch.Size([2, 8, 8, 8]), torch.Size([2, 8]), torch.Size([2, 5]))
    """

    def __init__(self, body: nn.Module, head: nn.Linear):
        super().__init__()
        self.body, self.head = body, head

    def features(self, images: Tensor) -> Tensor:
        """Last maps ``[B, D, h, w]``."""
        return self.body(images)

    def embed(self, images: Tensor) -> Tensor:
        """Pooled deep features ``[B, D]``, what the linear layer reads."""
        return self.features(images).mean(dim=(2, 3))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.embed(images))


def conv(
    inputs: int,
    outputs: int,
    kernel: int = 3,
    *,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
    bias: bool = False,
    relu: bool = True,
) -> nn.Sequential:
    """Convolution that keeps the size (up to its stride), BatchNorm, and ReLU unless ``relu=False``.

    The ReLU does not work in place: a hook may hold its input.

    Example:
        >>> conv(3, 8, stride=2)(torch.rand(2, 3, 16, 16)).shape
        torch.Size([2, 8, 8, 8])
    """
    padding = dilation * (kernel // 2)
    layers = [nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, groups, bias), nn.BatchNorm2d(outputs)]
    return nn.Sequential(*layers, *([nn.ReLU()] if relu else []))


def small_cnn(classes: int = 10, *, channels: int = 3, width: int = 16, seed: int | None = None) -> GapClassifier:
    """Five 3x3 stages (strides 1, 2, 2, 1, 1; the last one dilated) for 32x32 images on a CPU; maps at a quarter size.

    Receptive field of the last maps: 33 pixels, wide enough to see a whole digit. Children of ``body``, the valid
    Grad-CAM layers: ``body.0`` .. ``body.4``.

    Args:
        classes, channels: number of logits and of image channels.
        width: channels of the first stage; the stages have ``width * (1, 2, 4, 4, 4)``.
        seed: initialises from this seed without touching the global generator; None uses the global one.

    Example:
        >>> net = small_cnn(classes=10, seed=0)
        >>> net.features(torch.rand(1, 3, 32, 32)).shape
        torch.Size([1, 64, 8, 8])
    """
    with seeded(seed):
        body = nn.Sequential(
            conv(channels, width),
            conv(width, 2 * width, stride=2),
            conv(2 * width, 4 * width, stride=2),
            conv(4 * width, 4 * width),
            conv(4 * width, 4 * width, dilation=2),
        )
        return GapClassifier(body, nn.Linear(4 * width, classes))


class GaussianNoise(nn.Module):
    """Adds N(0, sigma^2) to every pixel while training; the identity in eval mode (AMC-Loss, Table 2, first line).

    Example:
        >>> black = torch.zeros(1, 1, 8, 8)
        >>> bool(GaussianNoise()(black).any()), bool(GaussianNoise().eval()(black).any())
        (True, False)
    """

    def __init__(self, sigma: float = 0.15):
        super().__init__()
        self.sigma = sigma

    def forward(self, images: Tensor) -> Tensor:
        return images + self.sigma * torch.randn_like(images) if self.training else images


def leaky_block(
    inputs: int, outputs: int, kernel: int = 3, padding: str = "same", *, slope: float = 0.1
) -> nn.Sequential:
    """Convolution without bias, BatchNorm, LeakyReLU: one line of AMC-Loss's Table 2. ``slope`` 1 leaves it linear.

    Example:
        >>> leaky_block(3, 8, padding="valid")(torch.rand(2, 3, 16, 16)).shape
        torch.Size([2, 8, 14, 14])
    """
    layers = [nn.Conv2d(inputs, outputs, kernel, padding=padding, bias=False), nn.BatchNorm2d(outputs)]
    return nn.Sequential(*layers, nn.Identity() if slope == 1 else nn.LeakyReLU(slope))


def _pool_and_drop() -> nn.Sequential:
    return nn.Sequential(nn.MaxPool2d(2), nn.Dropout(0.5))


def amc_net(
    classes: int = 10, *, channels: int = 3, features: int = 128, noise: float = 0.15, released: bool = False
) -> GapClassifier:
    """AMC-Loss, Table 2 top: nine convolutions for 32x32 images, deep feature of 128 numbers.

    Maps ``[B, features, 6, 6]`` (5x5 for 28x28 images). Parameters with 10 classes: 3,121,802 (3 channels), 3,119,498
    (1 channel); 20 classes 3,123,092. BatchNorm counts scale and shift; the TensorFlow original trains the shift only.

    Args:
        classes, channels: number of logits and of image channels.
        features: width of the last 1x1 convolution; 128 in the paper.
        noise: standard deviation of the training noise on the pixels.
        released: the network of the released code and checkpoint instead, which is not Table 2: half the widths and no
            256-wide 1x1 layer, 774,986 parameters.

    Example:
        >>> net = amc_net(released=True)
        >>> sum(p.numel() for p in net.parameters()), net.features(torch.rand(1, 3, 32, 32)).shape
        (774986, torch.Size([1, 128, 6, 6]))
    """
    a, b, c = (64, 128, 256) if released else (128, 256, 512)
    between = [] if released else [leaky_block(c, b, 1)]
    body = nn.Sequential(
        GaussianNoise(noise),
        leaky_block(channels, a),
        leaky_block(a, a),
        leaky_block(a, a),
        _pool_and_drop(),
        leaky_block(a, b),
        leaky_block(b, b),
        leaky_block(b, b),
        _pool_and_drop(),
        leaky_block(b, c, padding="valid"),
        *between,
        leaky_block(b if between else c, features, 1),
    )
    return GapClassifier(body, nn.Linear(features, classes))


def amc_figure_net(
    classes: int = 10, *, channels: int = 1, features: int = 3, noise: float = 0.15, linear: bool = False
) -> GapClassifier:
    """AMC-Loss, Table 2 bottom: the small network of Figs. 1 and 4 for 28x28 images, maps ``[B, features, 5, 5]``.

    Parameters: 112,110 with 3 features, 111,970 with 2, 120,650 with the 64 that Table 2 prints. Those 64 cannot feed
    its "3 -> 10" linear layer, so here the last 1x1 convolution has ``features`` filters.

    Args:
        classes, channels: number of logits and of image channels.
        features: width of the deep feature: 2 (Fig. 1), 3 (Fig. 4) or 64.
        noise: standard deviation of the training noise on the pixels.
        linear: no LeakyReLU behind the last 1x1 convolution, so that features can point anywhere on the sphere; with it
            (the paper) they crowd into the positive corner.

    Example:
        >>> net = amc_figure_net(features=2)
        >>> sum(p.numel() for p in net.parameters()), net.embed(torch.rand(4, 1, 28, 28)).shape
        (111970, torch.Size([4, 2]))
    """
    body = nn.Sequential(
        GaussianNoise(noise),
        leaky_block(channels, 64),
        _pool_and_drop(),
        leaky_block(64, 64),
        _pool_and_drop(),
        leaky_block(64, 128, padding="valid"),
        leaky_block(128, features, 1, slope=1 if linear else 0.1),
    )
    return GapClassifier(body, nn.Linear(features, classes))
