"""Plain convolutional classifiers: a small one for CPU labs, and AMC-Loss's Table 2."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class GapClassifier(nn.Module):
    """Any body that ends in maps, then global average pooling, then one linear layer: the network a CAM explains.

    Args:
        body: ``[B, C, H, W] -> [B, D, h, w]``; its direct children are the layers Grad-CAM can name ("body.2").
        head: linear layer ``D -> K``.
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


def conv_block(inputs: int, outputs: int, *, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    """3x3 convolution without bias, BatchNorm, ReLU (not in place: a hook may hold its input)."""
    conv = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=dilation, dilation=dilation, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU())


def small_cnn(classes: int = 10, *, channels: int = 3, width: int = 16, seed: int | None = None) -> GapClassifier:
    """Five 3x3 stages (strides 1, 2, 2, 1, 1; the last one dilated) for 32x32 images on a CPU; maps at a quarter size.

    Receptive field of the last maps: 33 pixels, wide enough to see a whole digit. Children of ``body``, the valid
    Grad-CAM layers: ``body.0`` .. ``body.4``.

    Args:
        classes, channels: number of logits and of image channels.
        width: channels of the first stage; the stages have ``width * (1, 2, 4, 4, 4)``.
        seed: initialises from this seed without touching the global generator; None uses the global one.
    """
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        body = nn.Sequential(
            conv_block(channels, width),
            conv_block(width, 2 * width, stride=2),
            conv_block(2 * width, 4 * width, stride=2),
            conv_block(4 * width, 4 * width),
            conv_block(4 * width, 4 * width, dilation=2),
        )
        return GapClassifier(body, nn.Linear(4 * width, classes))
