"""Residual and densely connected networks: CIFAR ResNets, DenseNet-BC, ResNeXt-29 and torchvision's ResNets.

Each is a `GapClassifier`, so all of them have class activation maps. The tests hold the size of each network of HNC's
tables.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._require import require
from .convnets import GapClassifier, conv

Statistics = tuple[tuple[float, ...], tuple[float, ...]]
CIFAR: Statistics = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
IMAGENET: Statistics = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def count_parameters(net: nn.Module) -> int:
    """How many numbers training changes.

    Example:
        >>> count_parameters(nn.Linear(3, 2)), count_parameters(nn.Linear(3, 2).requires_grad_(False))
        (8, 0)
    """
    return sum(p.numel() for p in net.parameters() if p.requires_grad)


class Normalise(nn.Module):
    """``(images - mean) / std`` per channel, as the first layer: whoever attacks the network then works in pixels.

    Example:
        >>> Normalise(((0.5,), (0.25,)))(torch.ones(1, 1, 1, 1)).item()
        2.0
    """

    mean: Tensor
    std: Tensor

    def __init__(self, statistics: Statistics):
        super().__init__()
        mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in statistics)
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std


def _classifier(layers: list[tuple[str, nn.Module]], head: nn.Linear, statistics: Statistics | None) -> GapClassifier:
    if statistics is not None:
        layers = [("normalise", Normalise(statistics)), *layers]
    return GapClassifier(nn.Sequential(OrderedDict(layers)), head)


def _kaiming(net: nn.Module) -> None:
    """Kaiming fan-out for convolutions, as the CIFAR recipes do; linear layers keep torch's default."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


# --- CIFAR ResNet-(6m+2), He et al. 2016, Sec. 4.2 --------------------------------------------------------------------


class PadShortcut(nn.Module):
    """Option A of He et al.: every second pixel, new channels zero; no parameters.

    Example:
        >>> PadShortcut(16, 32, stride=2)(torch.rand(1, 16, 8, 8)).shape
        torch.Size([1, 32, 4, 4])
    """

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.extra, self.stride = outputs - inputs, stride

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.extra))


class Residual(nn.Module):
    """``relu(branch(x) + shortcut(x))``.

    Example:
        >>> Residual(nn.Identity(), nn.Identity())(torch.tensor([-1.0, 2.0])).tolist()
        [0.0, 4.0]
    """

    def __init__(self, branch: nn.Module, shortcut: nn.Module):
        super().__init__()
        self.branch, self.shortcut = branch, shortcut

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.branch(x) + self.shortcut(x))


def _basic_block(inputs: int, outputs: int, stride: int, shortcut: str) -> Residual:
    first, second = conv(inputs, outputs, stride=stride, relu=False), conv(outputs, outputs, relu=False)
    branch = nn.Sequential(first, nn.ReLU(), second)
    if inputs == outputs:
        return Residual(branch, nn.Identity())
    if shortcut == "pad":
        return Residual(branch, PadShortcut(inputs, outputs, stride))
    return Residual(branch, conv(inputs, outputs, 1, stride=stride, relu=False))


def cifar_resnet(
    depth: int, classes: int, *, channels: int = 3, shortcut: str = "project", statistics: Statistics | None = None
) -> GapClassifier:
    """ResNet-``depth`` for 32x32 images: 3x3 stem, 3 stages of (depth - 2) / 6 blocks with 16, 32, 64 channels.

    Last maps ``[B, 64, 8, 8]``. Children of ``body``: ``stem``, ``stage1``, ``stage2``, ``stage3``.

    Args:
        depth: 20, 56, 110 ... (6m + 2).
        shortcut: ``"project"`` (1x1 convolution, the usual PyTorch recipe) or ``"pad"`` (zeros, He et al.), where the
            width changes.
        statistics: mean and std of the images, subtracted inside the network; None takes images as they are.

    Raises:
        ValueError: depth is not 6m + 2, or an unknown shortcut.

    Example:
        >>> net = cifar_resnet(20, 100)
        >>> count_parameters(net), net.features(torch.rand(1, 3, 32, 32)).shape
        (278324, torch.Size([1, 64, 8, 8]))
    """
    require(depth >= 8 and (depth - 2) % 6 == 0, "depth must be 6m + 2 with m >= 1", depth)
    require(shortcut in ("project", "pad"), "shortcut must be 'project' or 'pad'", repr(shortcut))
    layers: list[tuple[str, nn.Module]] = [("stem", nn.Sequential(conv(channels, 16, relu=False), nn.ReLU()))]
    for stage, (inputs, width) in enumerate(((16, 16), (16, 32), (32, 64)), start=1):
        blocks = [_basic_block(inputs, width, 1 if stage == 1 else 2, shortcut)]
        blocks += [_basic_block(width, width, 1, shortcut) for _ in range((depth - 8) // 6)]
        layers.append((f"stage{stage}", nn.Sequential(*blocks)))
    net = _classifier(layers, nn.Linear(64, classes), statistics)
    _kaiming(net)
    return net


# --- DenseNet-BC, Huang et al. 2017 -----------------------------------------------------------------------------------


def _bn_relu_conv(inputs: int, outputs: int, size: int) -> nn.Sequential:
    layer = nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=False)
    return nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU(), layer)


class DenseLayer(nn.Module):
    """Bottleneck to 4 x growth channels, 3x3 to ``growth``, appended to what came in.

    Example:
        >>> DenseLayer(24, growth=12)(torch.rand(1, 24, 8, 8)).shape
        torch.Size([1, 36, 8, 8])
    """

    def __init__(self, inputs: int, growth: int):
        super().__init__()
        self.branch = nn.Sequential(_bn_relu_conv(inputs, 4 * growth, 1), _bn_relu_conv(4 * growth, growth, 3))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.branch(x)], dim=1)


def densenet_bc(
    classes: int, *, depth: int = 100, growth: int = 12, channels: int = 3, statistics: Statistics | None = None
) -> GapClassifier:
    """DenseNet-BC for 32x32 images with compression 1/2; L = 100, k = 12 is the row of HNC's Table 7.

    Last maps ``[B, 342, 8, 8]`` at the defaults. Children of ``body``: ``stem``, ``dense1``, ``down1``, ``dense2``,
    ``down2``, ``dense3``, ``norm``.

    Raises:
        ValueError: depth is not 6m + 4.

    Example:
        >>> densenet_bc(10, depth=10).features(torch.rand(1, 3, 32, 32)).shape
        torch.Size([1, 27, 8, 8])
    """
    require(depth >= 10 and (depth - 4) % 6 == 0, "depth must be 6m + 4 with m >= 1", depth)
    width = 2 * growth
    layers: list[tuple[str, nn.Module]] = [("stem", nn.Conv2d(channels, width, 3, padding=1, bias=False))]
    for stage in (1, 2, 3):
        block = nn.Sequential(*(DenseLayer(width + i * growth, growth) for i in range((depth - 4) // 6)))
        layers.append((f"dense{stage}", block))
        width += (depth - 4) // 6 * growth
        if stage < 3:
            layers.append((f"down{stage}", nn.Sequential(_bn_relu_conv(width, width // 2, 1), nn.AvgPool2d(2))))
            width //= 2
    layers.append(("norm", nn.Sequential(nn.BatchNorm2d(width), nn.ReLU())))
    net = _classifier(layers, nn.Linear(width, classes), statistics)
    _kaiming(net)
    return net


# --- ResNeXt-29, Xie et al. 2017 --------------------------------------------------------------------------------------


def resnext29(
    cardinality: int, classes: int, *, base_width: int = 64, channels: int = 3, statistics: Statistics | None = None
) -> GapClassifier:
    """ResNeXt-29, ``cardinality`` groups of ``base_width`` channels, for 32x32 images: 8 x 64 and 16 x 64 in Table 7.

    Last maps ``[B, 1024, 8, 8]``. Children of ``body``: ``stem``, ``stage1``, ``stage2``, ``stage3``.

    Example:
        >>> resnext29(2, 10, base_width=4).features(torch.rand(1, 3, 32, 32)).shape
        torch.Size([1, 1024, 8, 8])
    """
    layers: list[tuple[str, nn.Module]] = [("stem", nn.Sequential(conv(channels, 64, relu=False), nn.ReLU()))]
    inputs = 64
    for stage in (1, 2, 3):
        outputs, inner, blocks = 128 * 2**stage, cardinality * base_width * 2 ** (stage - 1), []
        for block in range(3):
            stride = 2 if stage > 1 and block == 0 else 1
            branch = nn.Sequential(
                conv(inputs, inner, 1, relu=False),
                nn.ReLU(),
                conv(inner, inner, stride=stride, groups=cardinality, relu=False),
                nn.ReLU(),
                conv(inner, outputs, 1, relu=False),
            )
            project = conv(inputs, outputs, 1, stride=stride, relu=False) if block == 0 else nn.Identity()
            blocks.append(Residual(branch, project))
            inputs = outputs
        layers.append((f"stage{stage}", nn.Sequential(*blocks)))
    net = _classifier(layers, nn.Linear(1024, classes), statistics)
    _kaiming(net)
    return net


# --- torchvision ------------------------------------------------------------------------------------------------------


def torchvision_resnet(
    name: str, classes: int, pretrained: bool = False, *, statistics: Statistics | None = IMAGENET
) -> GapClassifier:
    """A ResNet of torchvision (``"resnet18"`` ... ``"resnet152"``, ResNeXt too) as a `GapClassifier`.

    Takes images in [0, 1]; children of ``body``: ``normalise``, ``conv1``, ``bn1``, ``relu``, ``maxpool``, ``layer1``,
    ``layer2``, ``layer3``, ``layer4``. Last maps at 1/32 of the image: 7x7 at 224, 9x9 at 288, 14x14 at 448.

    Args:
        name: a function of ``torchvision.models`` that returns a ResNet.
        classes: number of logits; the pretrained head is kept only where this is 1000.
        pretrained: ImageNet weights of the papers' time (``IMAGENET1K_V1``), downloaded by torchvision.
        statistics: mean and std subtracted inside the network; None takes images as they are.

    Raises:
        ValueError: torchvision has no such ResNet.

    Example:
        >>> with torch.device("meta"):  # the architecture without its numbers
        ...     net = torchvision_resnet("resnet50", classes=200)
        >>> count_parameters(net)
        23917832
    """
    from torchvision import models

    if not name.startswith(("resnet", "resnext", "wide_resnet")) or name not in models.list_models(models):
        raise ValueError(f"name must be a ResNet of torchvision such as 'resnet50', got {name!r}")
    source = models.get_model(name, weights="IMAGENET1K_V1" if pretrained else None)
    layers = [(child, module) for child, module in source.named_children() if child not in ("avgpool", "fc")]
    head = source.fc if classes == source.fc.out_features else nn.Linear(source.fc.in_features, classes)
    return _classifier(layers, head, statistics)
