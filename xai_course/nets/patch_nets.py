"""Networks of patches: a backbone that keeps its map, one 9x9 convolution that cuts it into patches, one linear layer.

Shi et al., "Loss-Based Attention for Interpreting Image-Level Prediction of Convolutional Neural Networks", IEEE TIP 30
(2021), Sec. IV-A and Fig. 3 (middle). The capsule twin is in `capsules`, the backbones in `patch_backbones`.
"""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor, nn

from .convnets import GapClassifier
from .patch_backbones import (
    BACKBONES,
    RESNET_DEPTHS,
    VGG_WIDTHS,
    Field,
    conv,
    googlenet_body,
    receptive_field,
    resnet_body,
    vgg_body,
)


class PatchGeometry:
    """Where patches lie, for a network with ``backbone`` and the patch layer's ``kernel``, ``step`` and ``padding``."""

    backbone: nn.Module
    kernel: int
    step: int
    padding: int

    @cached_property
    def scale(self) -> int:
        """Pixels per cell of the backbone's map, along one axis."""
        return receptive_field(self.backbone).step

    def map_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of the backbone's map for images of ``size`` (height, width)."""
        return tuple(-(-n // self.scale) for n in size)

    def map_cells(self, size: tuple[int, int]) -> int:
        """Cells of the backbone's map: what the official convolutional code divides the cut-off by."""
        rows, columns = self.map_size(size)
        return rows * columns

    def grid(self, size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of patches in images of ``size``: (6, 6) for 32x32.

        Raises:
            ValueError: the map is smaller than the kernel; says which image size is needed.
        """
        reach = min(self.map_size(size)) + 2 * self.padding
        if reach < self.kernel:
            least = (self.kernel - 2 * self.padding - 1) * self.scale + 1
            raise ValueError(
                f"images must be at least {least}x{least} for a {self.kernel}x{self.kernel} patch layer on a map at "
                f"1/{self.scale} of their size, got {size[0]}x{size[1]} (map {'x'.join(map(str, self.map_size(size)))})"
            )
        return tuple((n + 2 * self.padding - self.kernel) // self.step + 1 for n in self.map_size(size))

    def field(self, geometry: str = "nominal") -> Field:
        """The patch as a field on the image.

        Args:
            geometry: "nominal", the kernel's footprint on the map carried to pixels (what the paper draws as a patch);
                "rf", the theoretical receptive field (what the patch's features really depend on).

        Raises:
            ValueError: another word.
        """
        if geometry == "nominal":
            return (
                Field(1, self.scale, 0)
                .then(self.kernel, self.step, self.padding)
                ._replace(size=self.kernel * self.scale)
            )
        if geometry == "rf":
            return receptive_field(self.backbone).then(self.kernel, self.step, self.padding)
        raise ValueError(f"geometry must be 'nominal' or 'rf', got {geometry!r}")

    def boxes(self, size: tuple[int, int], geometry: str = "nominal") -> Tensor:
        """Pixel boxes of all patches, row by row: ``[M, 4]`` int64 (left, top, right, bottom), the last two excluded.

        Clipped to the image. See `field` for ``geometry``.
        """
        field, (rows, columns) = self.field(geometry), self.grid(size)
        top = (field.start + field.step * torch.arange(rows)).repeat_interleave(columns)
        left = (field.start + field.step * torch.arange(columns)).repeat(rows)
        return torch.stack(
            [
                left.clamp(0, size[1]),
                top.clamp(0, size[0]),
                (left + field.size).clamp(0, size[1]),
                (top + field.size).clamp(0, size[0]),
            ],
            dim=1,
        )

    def paint(self, values: Tensor, size: tuple[int, int]) -> Tensor:
        """Each pixel gets the mean value of the patches over it, 0 where there is none: ``[B, M] -> [B, H, W]``."""
        left, top, right, bottom = self.boxes(size).to(values.device).unsqueeze(2).unbind(1)
        rows = torch.arange(size[0], device=values.device)
        columns = torch.arange(size[1], device=values.device)
        across = ((columns >= left) & (columns < right)).to(values.dtype)
        down = ((rows >= top) & (rows < bottom)).to(values.dtype)
        total = torch.einsum("bm,mh,mw->bhw", values, down, across)
        return total / torch.einsum("mh,mw->hw", down, across).clamp_min(1)


class PatchNet(PatchGeometry, GapClassifier):
    """Backbone, Conv 9x9 stride 4 + BN + ReLU, Conv 1x1 + BN + ReLU, linear layer (Sec. IV-A).

    A `GapClassifier`: its ``forward`` is mean-pooling, and its class activation maps are its patch logits. What weighs
    patches otherwise is a method (`methods.loss_attention`, `methods.patch_heads`).

    Args:
        backbone: ``[B, 3, H, W] -> [B, inputs, h, w]``, readable by `receptive_field`.
        inputs: channels of its map.
        classes, hidden: numbers of logits and of patch features.
        kernel, step, padding: of the patch layer.
        bias: of the linear layer (the paper prints none, its code has one; exact either way, see `loss_attention`).
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
        cut = nn.Conv2d(inputs, hidden, kernel, step, padding, bias=False)
        patches = nn.Sequential(cut, nn.BatchNorm2d(hidden), nn.ReLU(), conv(hidden, hidden, 1))
        super().__init__(nn.Sequential(backbone, patches), nn.Linear(hidden, classes, bias=bias))
        self.kernel, self.step, self.padding = kernel, step, padding

    @property
    def backbone(self) -> nn.Module:
        return self.body[0]

    def features(self, images: Tensor) -> Tensor:
        """Patch features as a map, ``[B, hidden, rows, columns]``."""
        self.grid(images.shape[-2:])
        return super().features(images)

    def patch_features(self, images: Tensor) -> Tensor:
        """Patch features row by row, ``[B, M, hidden]``: the paper's H."""
        return self.features(images).flatten(2).transpose(1, 2)

    def patch_logits(self, images: Tensor) -> Tensor:
        r"""Logits of each patch, :math:`p_m = h_m\theta`: ``[B, M, K]``."""
        return self.head(self.patch_features(images))


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
    """
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        body, inputs = patch_backbone(
            name, image_size=image_size, strides=strides, channels=channels, width=width, official=official
        )
        hidden = hidden or (48 if name == "small" else 512)
        return PatchNet(body, inputs, classes, hidden=hidden, step=step, padding=padding, bias=bias)
