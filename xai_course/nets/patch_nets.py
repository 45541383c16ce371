"""Networks of patches: a backbone that keeps its map, one 9x9 convolution that cuts it into patches, one linear layer.

Shi et al., "Loss-Based Attention for Interpreting Image-Level Prediction of Convolutional Neural Networks", IEEE TIP 30
(2021), Sec. IV-A and Fig. 3 (middle). The capsule twin is in `capsules`, the backbones in `patch_backbones`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import cast

import torch
from torch import Tensor, nn

from .._require import require
from .convnets import GapClassifier, conv
from .modes import evaluating, seeded
from .patch_backbones import (
    BACKBONES,
    RESNET_DEPTHS,
    VGG_WIDTHS,
    Field,
    field_of,
    googlenet_body,
    resnet_body,
    vgg_body,
)


class PatchGeometry:
    """Where patches lie, for a network with ``backbone`` and the patch layer's ``kernel``, ``step`` and ``padding``.

    Example:
        >>> net = patch_net("small", 4)
        >>> net.grid((32, 32)), net.field().size, net.field("rf").size, net.boxes((32, 32))[1]
        ((6, 6), 9, 15, tensor([ 4,  0, 13,  9]))
    """

    backbone: nn.Module
    kernel: int
    step: int
    padding: int

    @cached_property
    def scale(self) -> int:
        """Pixels per cell of the backbone's map, along one axis."""
        return field_of(self.backbone).step

    def map_size(self, size: Sequence[int]) -> tuple[int, int]:
        """Rows and columns of the backbone's map for images of ``size`` (height, width)."""
        height, width = size
        return -(-height // self.scale), -(-width // self.scale)

    def map_cells(self, size: Sequence[int]) -> int:
        """Cells of the backbone's map: what the official convolutional code divides the cut-off by."""
        rows, columns = self.map_size(size)
        return rows * columns

    def grid(self, size: Sequence[int]) -> tuple[int, int]:
        """Rows and columns of patches in images of ``size``: (6, 6) for 32x32.

        Raises:
            ValueError: the map is smaller than the kernel; says which image size is needed.
        """
        rows, columns = self.map_size(size)
        room = 2 * self.padding - self.kernel
        if min(rows, columns) + room < 0:
            least = (-room - 1) * self.scale + 1
            raise ValueError(
                f"images must be at least {least}x{least} for a {self.kernel}x{self.kernel} patch layer on a map at "
                f"1/{self.scale} of their size, got {size[0]}x{size[1]} (map {rows}x{columns})"
            )
        return (rows + room) // self.step + 1, (columns + room) // self.step + 1

    def field(self, geometry: str = "nominal") -> Field:
        """The patch as a field on the image.

        Args:
            geometry: "nominal", the kernel's footprint on the map carried to pixels (what the paper draws as a patch);
                "rf", the theoretical receptive field (what the patch's features really depend on).

        Raises:
            ValueError: another word.
        """
        if geometry == "nominal":
            field = Field(1, self.scale).then(self.kernel, self.step, self.padding)
            return field._replace(size=self.kernel * self.scale)
        if geometry == "rf":
            return field_of(self.backbone).then(self.kernel, self.step, self.padding)
        raise ValueError(f"geometry must be 'nominal' or 'rf', got {geometry!r}")

    def boxes(self, size: Sequence[int], geometry: str = "nominal") -> Tensor:
        """Pixel boxes of all patches, row by row: ``[M, 4]`` int64 (left, top, right, bottom), the last two excluded.

        Clipped to the image. See `field` for ``geometry``.
        """
        field, (rows, columns) = self.field(geometry), self.grid(size)
        top = (field.start + field.step * torch.arange(rows)).repeat_interleave(columns)
        left = (field.start + field.step * torch.arange(columns)).repeat(rows)
        corners = torch.stack([left, top, left + field.size, top + field.size], dim=1)
        return corners.clamp(torch.tensor(0), torch.tensor([size[1], size[0]] * 2))

    def paint(self, values: Tensor, size: Sequence[int]) -> Tensor:
        """Each pixel gets the mean value of the patches over it, 0 where there is none: ``[B, M] -> [B, H, W]``."""
        left, top, right, bottom = self.boxes(size).to(values.device).unsqueeze(2).unbind(1)
        rows = torch.arange(size[0], device=values.device)
        columns = torch.arange(size[1], device=values.device)
        across = ((columns >= left) & (columns < right)).to(values.dtype)
        down = ((rows >= top) & (rows < bottom)).to(values.dtype)
        total = torch.einsum("bm,mh,mw->bhw", values, down, across)
        return total / torch.einsum("mh,mw->hw", down, across).clamp_min(1)


class PatchConv2d(nn.Conv2d):
    """A convolution that, on a CPU, is one unfold and one matrix product where an output needs ``WIDE`` inputs or more.

    Twice as fast at the paper's 512 channels and 9x9 (forward and backward), slower below; the same numbers to 1e-5.

    Example:
        >>> layer, maps = PatchConv2d(128, 2, 9, stride=4), torch.rand(1, 128, 13, 13)
        >>> plain = nn.functional.conv2d(maps, layer.weight, layer.bias, 4)
        >>> torch.allclose(layer(maps), plain, atol=1e-5)
        True
    """

    WIDE = 10_000  # inputs times kernel area

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if input.device.type != "cpu" or weight[0].numel() < self.WIDE:
            return super()._conv_forward(input, weight, bias)
        kernel, padding, stride = self.kernel_size, cast("tuple[int, int]", self.padding), self.stride
        columns = nn.functional.unfold(input, kernel, padding=padding, stride=stride)
        maps = weight.flatten(1) @ columns
        maps = maps if bias is None else maps + bias.to(maps.dtype)[:, None]
        sides = zip(input.shape[-2:], kernel, padding, stride, strict=True)
        return maps.unflatten(2, [(side + 2 * p - k) // s + 1 for side, k, p, s in sides])


class PatchLogits(PatchGeometry, nn.Module):
    """What a network with ``features`` as a map and a linear ``head`` says of each patch.

    Example:
        >>> patch_net("small", 4).patch_features(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 36, 48])
    """

    def patch_features(self, images: Tensor) -> Tensor:
        """Patch features row by row, ``[B, M, hidden]``: the paper's H."""
        return cast("GapClassifier", self).features(images).flatten(2).transpose(1, 2)

    def patch_logits(self, images: Tensor) -> Tensor:
        r"""Logits of each patch, :math:`p_m = h_m\theta`: ``[B, M, K]``; their mean is the network's own answer."""
        return cast("GapClassifier", self).head(self.patch_features(images))


class PatchNet(PatchLogits, GapClassifier):
    """Backbone, Conv 9x9 stride 4 + BN + ReLU, Conv 1x1 + BN + ReLU, linear layer (Sec. IV-A).

    A `GapClassifier`: its ``forward`` is mean-pooling, and its class activation maps are its patch logits. What weighs
    patches otherwise is a method (`methods.loss_attention`, `methods.patch_heads`).

    Args:
        backbone: ``[B, 3, H, W] -> [B, inputs, h, w]``, readable by `field_of`.
        inputs: channels of its map.
        classes, hidden: numbers of logits and of patch features.
        kernel, step, padding: of the patch layer.
        bias: of the linear layer (the paper prints none, its code has one; exact either way, see `loss_attention`).

    Example:
        >>> net = PatchNet(nn.Conv2d(3, 8, 3, padding=1), 8, classes=5, hidden=16)
        >>> net.patch_logits(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 36, 5])
    """

    def __init__(
        self,
        backbone: nn.Module,
        inputs: int,
        classes: int,
        *,
        hidden: int = 512,
        kernel: int = 9,
        step: int = 4,
        padding: int = 0,
        bias: bool = True,
    ):
        cut = PatchConv2d(inputs, hidden, kernel, step, padding, bias=False)
        patches = nn.Sequential(cut, nn.BatchNorm2d(hidden), nn.ReLU(), conv(hidden, hidden, 1))
        super().__init__(nn.Sequential(backbone, patches), nn.Linear(hidden, classes, bias=bias))
        self.kernel, self.step, self.padding = kernel, step, padding

    @property
    def backbone(self) -> nn.Module:  # type: ignore[override]  # it is a part of ``body``
        return cast(nn.Sequential, self.body)[0]

    def features(self, images: Tensor) -> Tensor:
        """Patch features as a map, ``[B, hidden, rows, columns]``."""
        self.grid(images.shape[-2:])
        return super().features(images)


class MapPatches(PatchLogits):
    """A classifier with global average pooling read as a network of patches: each cell of its last map is one.

    The patch of a cell is its tile of the image, as where a class activation map is enlarged. What the cell depends on
    is wider and not known for a foreign network.

    Args:
        net: has ``features``, ``[B, C, H, W] -> [B, D, h, w]``, and ``head``, linear from D.

    Example:
        >>> from xai_course.nets.convnets import small_cnn
        >>> net = small_cnn(4, seed=0)
        >>> patches, images = MapPatches(net), torch.rand(2, 3, 32, 32)
        >>> patches.patch_logits(images).shape, patches.boxes((32, 32))[9]
        (torch.Size([2, 64, 4]), tensor([4, 4, 8, 8]))
        >>> torch.allclose(patches.patch_logits(images).mean(1), net(images), atol=1e-5)
        True
    """

    kernel, step, padding = 1, 1, 0

    def __init__(self, net: GapClassifier):
        super().__init__()
        self.net = net

    @property
    def head(self) -> nn.Linear:
        return self.net.head

    def features(self, images: Tensor) -> Tensor:
        """``[B, D, h, w]``.

        Raises:
            ValueError: maps of another layout, as those with channels last.
        """
        maps = self.net.features(images)
        if maps.ndim != 4 or maps.shape[1] != self.head.in_features:
            raise ValueError(f"features must be [B, {self.head.in_features}, h, w], got {tuple(maps.shape)}")
        return maps

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images)

    def map_size(self, size: Sequence[int]) -> tuple[int, int]:
        """Rows and columns of the map, seen on a blank image."""
        channels = next((m.in_channels for m in self.modules() if isinstance(m, nn.Conv2d)), 3)
        with torch.no_grad(), evaluating(self):
            rows, columns = self.features(self.head.weight.new_zeros(1, channels, *size)).shape[-2:]
        return rows, columns

    def boxes(self, size: Sequence[int], geometry: str = "nominal") -> Tensor:
        """Tiles ``[M, 4]`` int64 (left, top, right, bottom; the last two excluded) that cover the image.

        Raises:
            ValueError: "rf", which cannot be read off a foreign network, or another word.
        """
        require(geometry == "nominal", "geometry must be 'nominal' for a classifier read as patches", repr(geometry))
        (rows, columns), (height, width) = self.map_size(size), size
        y, x = ((torch.arange(n + 1) * side / n).round().long() for n, side in ((rows, height), (columns, width)))
        corners = (x[:-1].repeat(rows), y[:-1].repeat_interleave(columns))
        return torch.stack([*corners, x[1:].repeat(rows), y[1:].repeat_interleave(columns)], dim=1)


def patches_of(net: nn.Module) -> nn.Module:
    """A network of patches as it is; a classifier with ``features`` and a linear ``head`` as `MapPatches`.

    Raises:
        ValueError: neither; says how to get one.

    Example:
        >>> trunk = nn.Sequential(nn.Conv2d(3, 8, 3, stride=8), nn.ReLU())  # list(resnet18().children())[:-2], say
        >>> patches_of(GapClassifier(trunk, nn.Linear(8, 5))).patch_logits(torch.rand(2, 3, 64, 64)).shape
        torch.Size([2, 64, 5])
        >>> patches_of(trunk)
        Traceback (most recent call last):
        ValueError: net must have patch_logits (patch_net, capsule_net), or features and a linear head \
(xai_course.nets.adapters.gap_classifier(net)), got Sequential
    """
    if hasattr(net, "patch_logits"):
        return net
    if isinstance(getattr(net, "head", None), nn.Linear) and callable(getattr(net, "features", None)):
        return MapPatches(cast(GapClassifier, net))
    raise ValueError(
        "net must have patch_logits (patch_net, capsule_net), or features and a linear head "
        f"(xai_course.nets.adapters.gap_classifier(net)), got {type(net).__name__}"
    )


def patch_backbone(
    name: str,
    *,
    image_size: int = 32,
    strides: int | None = None,
    channels: int = 3,
    width: int = 8,
    official: bool = False,
) -> tuple[nn.Sequential, int]:
    """A backbone without pools, and its number of channels; 512 except for "small".

    Args:
        name: one of `BACKBONES`. ResNet-50 and GoogLeNet end in a 1x1 convolution to 512 channels; "small" has three
            full-size 3x3 stages of ``width * (1, 2, 2)`` channels, for a CPU.
        image_size: decides ``strides`` where that is None: 0 up to 32 pixels, 1 above (Sec. V-D).
        strides: number of stride-2 stages. The first is VGG11's fourth convolution or ResNet's second stage, shortcut
            included; more of them are Table VII.
        official: the released code's stem and bottleneck (see `resnet_body`).

    Raises:
        ValueError: an unknown name, or more strides than stages to carry them.

    Example:
        >>> body, channels = patch_backbone("small", image_size=64)
        >>> body(torch.rand(1, 3, 64, 64)).shape, channels  # one stride above 32 pixels
        (torch.Size([1, 16, 32, 32]), 16)
    """
    strides = (0 if image_size <= 32 else 1) if strides is None else strides
    most = {"googlenet": 1, "small": 1}.get(name, 3)
    if name not in BACKBONES or not 0 <= strides <= most:
        raise ValueError(f"name must be one of {BACKBONES} with 0..{most} strides, got {name!r} and {strides}")
    if name == "small":
        first = conv(channels, width, stride=1 + strides)
        return nn.Sequential(first, conv(width, 2 * width), conv(2 * width, 2 * width)), 2 * width
    if name in VGG_WIDTHS:
        return vgg_body(name, pools=False, strides=strides, channels=channels), 512
    if name in RESNET_DEPTHS:
        steps = (1, *[2] * strides, *[1] * (3 - strides))
        body = resnet_body(name, strides=steps, channels=channels, official_stem=official, official_bottleneck=official)
        return (body, 512) if name == "resnet18" else (body.append(conv(2048, 512, 1)), 512)
    return googlenet_body(pools=False, strides=strides, channels=channels).append(conv(1024, 512, 1)), 512


def patch_net(
    name: str,
    classes: int = 10,
    *,
    image_size: int = 32,
    strides: int | None = None,
    channels: int = 3,
    step: int = 4,
    padding: int = 0,
    hidden: int | None = None,
    width: int = 8,
    bias: bool = True,
    official: bool = False,
    seed: int | None = None,
) -> PatchNet:
    """The convolutional architecture of the paper on one of its backbones, or ``"small"``.

    Args:
        hidden: patch features; default 512, for "small" 48.
        seed: initialises from this seed without touching the global generator; None uses the global one.
        Others: see `patch_backbone` and `PatchNet`.

    Example:
        >>> patch_net("small", 4, seed=0).patch_features(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 36, 48])
    """
    with seeded(seed):
        body, inputs = patch_backbone(
            name, image_size=image_size, strides=strides, channels=channels, width=width, official=official
        )
        hidden = hidden or (48 if name == "small" else 512)
        return PatchNet(body, inputs, classes, hidden=hidden, step=step, padding=padding, bias=bias)
