"""VGG, ResNet and GoogLeNet for small images: as classifiers, and as backbones that keep the map at full size.

Shi et al. (IEEE TIP 2021, Sec. IV, Fig. 3) remove pooling and strides so that a patch stays where it is. All networks
here are trees of `nn.Sequential`, `Parallel` and plain layers, so `field_of` can read the geometry off them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .convnets import GapClassifier, conv

VGG_WIDTHS = {
    "vgg11": (64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"),
    "vgg16": (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M"),
}
RESNET_DEPTHS = {"resnet18": (2, 2, 2, 2), "resnet50": (3, 4, 6, 3)}
INCEPTIONS = {  # inputs, 1x1, 3x3 reduced, 3x3, double 3x3 reduced, double 3x3, pooled
    "a3": (192, 64, 96, 128, 16, 32, 32),
    "b3": (256, 128, 128, 192, 32, 96, 64),
    "a4": (480, 192, 96, 208, 16, 48, 64),
    "b4": (512, 160, 112, 224, 24, 64, 64),
    "c4": (512, 128, 128, 256, 24, 64, 64),
    "d4": (512, 112, 144, 288, 32, 64, 64),
    "e4": (528, 256, 160, 320, 32, 128, 128),
    "a5": (832, 256, 160, 320, 32, 128, 128),
    "b5": (832, 384, 192, 384, 48, 128, 128),
}
BACKBONES = ("vgg11", "vgg16", "resnet18", "resnet50", "googlenet", "small")


class Parallel(nn.Module):
    """Branches over one input, added or concatenated along the channels.

    Example:
        >>> Parallel(nn.Identity(), nn.Identity())(torch.ones(1, 2))
        tensor([[2., 2.]])
        >>> Parallel(nn.Identity(), nn.Identity(), join="cat")(torch.ones(1, 2)).shape
        torch.Size([1, 4])
    """

    def __init__(self, *branches: nn.Module, join: str = "add"):
        super().__init__()
        self.branches, self.join = nn.ModuleList(branches), join

    def forward(self, x: Tensor) -> Tensor:
        outputs = [branch(x) for branch in self.branches]
        return torch.cat(outputs, 1) if self.join == "cat" else sum(outputs[1:], outputs[0])


class Idle(nn.Module):
    """Modules that are counted and never used, as the official stem's BatchNorm: passes its input on.

    Example:
        >>> Idle(nn.BatchNorm2d(8))(torch.ones(2))
        tensor([1., 1.])
    """

    def __init__(self, *modules: nn.Module):
        super().__init__()
        self.unused = nn.ModuleList(modules)

    def forward(self, x: Tensor) -> Tensor:
        return x


def vgg_body(name: str, *, pools: bool = True, strides: int = 0, channels: int = 3) -> nn.Sequential:
    """The convolutions of VGG11_bn or VGG16_bn, with biases as in torchvision; 512 channels out.

    Args:
        name: "vgg11" or "vgg16".
        pools: keep the five max-pools; without them the map keeps its size.
        strides: without pools, the number of stride-2 convolutions: the last ones of the stages of width 256, 512, 512
            (the paper's rule at 64 pixels, stride 2 in VGG11's fourth convolution, is ``strides=1``).

    Example:
        >>> with torch.device("meta"):  # shapes only
        ...     vgg_body("vgg11", pools=False, strides=1)(torch.rand(1, 3, 64, 64)).shape
        torch.Size([1, 512, 32, 32])
    """
    widths = VGG_WIDTHS[name]
    stops = [i - 1 for i, width in enumerate(widths) if width == "M"][2:]
    strided = set() if pools else set(stops[:strides])
    layers: list[nn.Module] = []
    for i, width in enumerate(widths):
        if isinstance(width, int):
            layers.append(conv(channels, width, stride=2 if i in strided else 1, bias=True))
            channels = width
        elif pools:
            layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers)


def basic_block(inputs: int, planes: int, stride: int = 1) -> nn.Sequential:
    """Two 3x3 convolutions beside the identity (a strided 1x1 where size or width change), then ReLU.

    Example:
        >>> basic_block(4, 8, stride=2)(torch.rand(1, 4, 8, 8)).shape
        torch.Size([1, 8, 4, 4])
    """
    main = nn.Sequential(conv(inputs, planes, stride=stride), conv(planes, planes, relu=False))
    return nn.Sequential(Parallel(main, _shortcut(inputs, planes, stride)), nn.ReLU())


def bottleneck(inputs: int, planes: int, stride: int = 1, *, official: bool = False) -> nn.Sequential:
    """1x1, 3x3, 1x1 beside the identity. ``official`` as released: 3x3, 3x3, 1x1, and a ReLU before the sum.

    Example:
        >>> bottleneck(4, 2)(torch.rand(1, 4, 8, 8)).shape
        torch.Size([1, 8, 8, 8])
    """
    first = conv(inputs, planes, 3, stride=stride) if official else conv(inputs, planes, 1)
    second = conv(planes, planes, 3, stride=1 if official else stride)
    main = nn.Sequential(first, second, conv(planes, 4 * planes, 1, relu=official))
    return nn.Sequential(Parallel(main, _shortcut(inputs, 4 * planes, stride)), nn.ReLU())


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    if inputs == outputs and stride == 1:
        return nn.Identity()
    return conv(inputs, outputs, 1, stride=stride, relu=False)


def resnet_body(
    name: str,
    *,
    strides: Sequence[int] = (1, 2, 2, 2),
    channels: int = 3,
    official_stem: bool = False,
    official_bottleneck: bool = False,
) -> nn.Sequential:
    """ResNet for 32-pixel images: 3x3 stem without pool, four stages; 512 (ResNet-18) or 2048 channels out.

    Args:
        name: "resnet18" or "resnet50".
        strides: of the stages' first blocks; (1, 2, 2, 2) is the classifier, (1, 1, 1, 1) keeps the size.
        official_stem: BatchNorm and ReLU after the first convolution exist but are skipped, as in the released code.
        official_bottleneck: see `bottleneck`; only with it "ResNet50" has the 58.16 M parameters of Table II.

    Example:
        >>> with torch.device("meta"):  # shapes only
        ...     resnet_body("resnet18", strides=(1, 1, 1, 1))(torch.rand(1, 3, 32, 32)).shape
        torch.Size([1, 512, 32, 32])
    """
    if official_stem:
        layers = [nn.Conv2d(channels, 64, 3, padding=1, bias=False), Idle(nn.BatchNorm2d(64))]
    else:
        layers = [conv(channels, 64)]
    inputs = 64
    for depth, planes, stride in zip(RESNET_DEPTHS[name], (64, 128, 256, 512), strides):
        for step in (stride, *[1] * (depth - 1)):
            if name == "resnet18":
                layers.append(basic_block(inputs, planes, step))
                inputs = planes
            else:
                layers.append(bottleneck(inputs, planes, step, official=official_bottleneck))
                inputs = 4 * planes
    return nn.Sequential(*layers)


def inception(name: str) -> Parallel:
    """One Inception module in its CIFAR form (a double 3x3 for the 5x5), convolutions with biases.

    Example:
        >>> inception("a3")(torch.rand(1, 192, 4, 4)).shape
        torch.Size([1, 256, 4, 4])
    """
    inputs, one, three_in, three, five_in, five, pooled = INCEPTIONS[name]
    last = conv(inputs, pooled, 1, bias=True)  # drawn first: seeded networks rest on the order
    return Parallel(
        conv(inputs, one, 1, bias=True),
        nn.Sequential(conv(inputs, three_in, 1, bias=True), conv(three_in, three, bias=True)),
        nn.Sequential(conv(inputs, five_in, 1, bias=True), conv(five_in, five, bias=True), conv(five, five, bias=True)),
        nn.Sequential(nn.MaxPool2d(3, 1, 1), last),
        join="cat",
    )


def googlenet_body(*, pools: bool = True, strides: int = 0, channels: int = 3) -> nn.Sequential:
    """GoogLeNet for 32-pixel images; 1024 channels out. The paper's own variant is unreleased: this one is a reading.

    Args:
        pools: keep the two stride-2 max-pools.
        strides: without pools, 1 gives the stem stride 2 (ours; the paper uses GoogLeNet at 32 pixels only).

    Example:
        >>> with torch.device("meta"):  # shapes only
        ...     googlenet_body()(torch.rand(1, 3, 32, 32)).shape
        torch.Size([1, 1024, 8, 8])
    """
    layers: list[nn.Module] = [conv(channels, 192, stride=2 if strides and not pools else 1, bias=True)]
    for name in INCEPTIONS:
        if pools and name in ("a4", "a5"):
            layers.append(nn.MaxPool2d(3, 2, 1))
        layers.append(inception(name))
    return nn.Sequential(*layers)


def plain_net(
    name: str, classes: int = 10, *, channels: int = 3, dropout: float = 0.5, official_bottleneck: bool = False
) -> GapClassifier:
    """The backbone as a classifier, pools and strides kept: the first rows of Tables II-V.

    VGG has two fully connected layers of 4096 units before the last one; they sit inside ``body`` as 1x1 convolutions
    (same parameters, same function on the 1x1 map of a 32-pixel image; larger images are averaged down to it).

    Example:
        >>> with torch.device("meta"):  # shapes only
        ...     plain_net("vgg11", 10)(torch.rand(1, 3, 32, 32)).shape
        torch.Size([1, 10])
    """
    if name in VGG_WIDTHS:
        hidden = []
        for inputs in (512, 4096):
            hidden += [nn.Conv2d(inputs, 4096, 1), nn.ReLU(), nn.Dropout(dropout)]
        body = nn.Sequential(vgg_body(name, channels=channels), nn.AdaptiveAvgPool2d(1), *hidden)
        return GapClassifier(body, nn.Linear(4096, classes))
    if name in RESNET_DEPTHS:
        body = resnet_body(name, channels=channels, official_bottleneck=official_bottleneck)
        return GapClassifier(body, nn.Linear(512 if name == "resnet18" else 2048, classes))
    if name == "googlenet":
        return GapClassifier(googlenet_body(channels=channels), nn.Linear(1024, classes))
    raise ValueError(f"name must be one of {BACKBONES[:-1]}, got {name!r}")


class Field(NamedTuple):
    """Which inputs an output cell reads, along one axis: number i reads ``size`` cells from ``start + i * step`` on.

    Example:
        >>> Field().then(3).then(3, stride=2)  # two 3x3 convolutions see 5 pixels
        Field(size=5, step=2, start=0)
    """

    size: int = 1
    step: int = 1
    start: int = 0

    def then(self, kernel: int, stride: int = 1, padding: int = 0) -> Field:
        """The field behind one more convolution or pooling."""
        return Field(self.size + (kernel - 1) * self.step, self.step * stride, self.start - padding * self.step)


def field_of(module: nn.Module, before: Field | None = None) -> Field:
    """Theoretical receptive field of a tree of `nn.Sequential`, `Parallel`, convolutions, pools and pointwise layers.

    Raises:
        ValueError: a layer whose geometry it cannot read.

    Example:
        >>> field_of(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)))
        Field(size=4, step=2, start=-1)
    """
    field = before or Field()
    if isinstance(module, nn.Sequential):
        for child in module:
            field = field_of(child, field)
        return field
    if isinstance(module, Parallel):
        fields = [field_of(branch, field) for branch in module.branches]
        start = min(f.start for f in fields)
        return Field(max(f.start + f.size for f in fields) - start, fields[0].step, start)
    if isinstance(module, (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)):
        kernel, stride, padding, dilation = (
            _single(getattr(module, name, 1)) for name in ("kernel_size", "stride", "padding", "dilation")
        )
        return field.then(dilation * (kernel - 1) + 1, stride, padding)
    if isinstance(module, (nn.BatchNorm2d, nn.ReLU, nn.LeakyReLU, nn.Identity, nn.Dropout, Idle)):
        return field
    raise ValueError(f"module must be built of convolutions, pools and pointwise layers, got {type(module).__name__}")


def _single(value: int | tuple[int, int]) -> int:
    return value if isinstance(value, int) else value[0]
