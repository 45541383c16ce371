r"""Capsule networks of patches (Shi et al., IEEE TIP 30, 2021, Sec. IV-B and Fig. 3, right) and of dynamic routing.

A capsule is a vector at a place; its entries are called units. The official code runs one convolution per unit, 16 and
then 128 of them. All units read the same input, so they are one convolution with more channels: the same numbers, also
through BatchNorm, from one call, which on a CPU is one matrix product where the layer is wide (`PatchConv2d`).
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from .modes import seeded
from .patch_nets import PatchConv2d, PatchGeometry, patch_backbone


class CapsuleLayer(nn.Module):
    """``dim`` units, each Conv (with bias) + BN + ReLU to ``channels`` channels, computed as one convolution.

    Args:
        inputs, channels, dim: channels in, capsules per place, units per capsule.
        kernel, stride, padding: of the convolution.
        norm, relu: with BatchNorm, with ReLU.

    Example:
        >>> CapsuleLayer(4, channels=3, dim=2, kernel=3, stride=2)(torch.rand(1, 4, 7, 7)).shape
        torch.Size([1, 2, 3, 3, 3])
    """

    def __init__(
        self,
        inputs: int,
        channels: int,
        dim: int,
        kernel: int = 1,
        stride: int = 1,
        padding: int = 0,
        *,
        norm: bool = True,
        relu: bool = True,
    ):
        super().__init__()
        self.channels, self.dim, self.geometry = channels, dim, (kernel, stride, padding)
        self.conv = PatchConv2d(inputs, dim * channels, kernel, stride, padding)
        self.norm = nn.BatchNorm2d(dim * channels) if norm else nn.Identity()
        self.activation = nn.ReLU() if relu else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """``[B, inputs, h, w] -> [B, dim, channels, h', w']``."""
        return self.activation(self.norm(self.conv(x))).unflatten(1, (self.dim, self.channels))


def split_units(layer: CapsuleLayer) -> nn.ModuleList:
    """The same layer as one module per unit, as the official code has it: for comparison, weights copied.

    Example:
        >>> layer, maps = CapsuleLayer(4, channels=3, dim=2).eval(), torch.rand(1, 4, 5, 5)
        >>> units = torch.stack([unit(maps) for unit in split_units(layer)], dim=1)
        >>> torch.allclose(units, layer(maps), atol=1e-6)
        True
    """
    units = nn.ModuleList()
    for d in range(layer.dim):
        rows = slice(d * layer.channels, (d + 1) * layer.channels)
        one = CapsuleLayer(
            layer.conv.in_channels, layer.channels, 1, *layer.geometry, norm=isinstance(layer.norm, nn.BatchNorm2d)
        ).to(layer.conv.weight)
        states = {key: v[rows] if v.ndim else v for key, v in copy.deepcopy(layer.state_dict()).items()}
        one.load_state_dict(states)
        one.activation = layer.activation
        conv = nn.Conv2d(layer.conv.in_channels, layer.channels, *layer.geometry).to(layer.conv.weight)
        conv.load_state_dict(one.conv.state_dict())
        units.append(nn.Sequential(conv, one.norm, one.activation))
    return units.train(layer.training)


def capsule_lengths(units: Tensor, trim: Tensor) -> Tensor:
    r"""Lengths of capsules, less a learnt threshold (Eq. 11, squares and bracket restored from the code).

    .. math:: \tilde H \leftarrow \max\Bigl(\sqrt{\textstyle\sum_d \tilde H_d^2} - b\,\mathbf 1, 0\Bigr)

    Args:
        units: ``[B, D, C, h, w]``.
        trim: ``[C]``, the paper's :math:`b`.

    Returns:
        ``[B, C, h, w]`` >= 0, in float32 or better. The gradient is 0 where all units are 0, as happens behind a ReLU;
        a written-out square root has nan there.

    Raises:
        ValueError: shapes that do not belong together.

    Example:
        >>> capsule_lengths(torch.tensor([3.0, 4.0]).view(1, 2, 1, 1, 1), trim=torch.tensor([1.0])).flatten()
        tensor([4.])
    """
    if units.ndim != 5 or trim.shape != units.shape[2:3]:
        raise ValueError(f"expected units [B, D, C, h, w] and trim [C], got {tuple(units.shape)}, {tuple(trim.shape)}")
    units = units.float() if units.dtype in (torch.float16, torch.bfloat16) else units
    return (torch.linalg.vector_norm(units, dim=1) - trim.view(-1, 1, 1)).relu()


class CapsuleNet(PatchGeometry, nn.Module):
    """Backbone, 32 capsules of 16 units (9x9, stride 4), their lengths, 64 capsules of 128 units (1x1), linear layer.

    Args:
        backbone, inputs, classes: as for `PatchNet`.
        first, second: (capsules, units) of the two layers.
        kernel, step, padding: of the first layer.

    Example:
        >>> net = CapsuleNet(nn.Conv2d(3, 4, 3, padding=1), 4, classes=5, first=(3, 2), second=(6, 8))
        >>> net.patch_logits(torch.rand(1, 3, 32, 32)).shape  # 6 capsules in each of 36 patches
        torch.Size([1, 6, 36, 5])
    """

    def __init__(
        self,
        backbone: nn.Module,
        inputs: int,
        classes: int,
        *,
        first: tuple[int, int] = (32, 16),
        second: tuple[int, int] = (64, 128),
        kernel: int = 9,
        step: int = 4,
        padding: int = 0,
    ):
        super().__init__()
        self.backbone = backbone
        self.kernel, self.step, self.padding = kernel, step, padding
        self.first = CapsuleLayer(inputs, *first, kernel, step, padding)
        self.trim = nn.Parameter(torch.randn(first[0]))
        self.second = CapsuleLayer(first[0], *second)
        self.head = nn.Linear(second[1], classes)

    def capsules(self, images: Tensor) -> Tensor:
        """Second-layer capsules ``[B, C, M, D]``: the paper's H."""
        self.grid(images.shape[-2:])
        lengths = capsule_lengths(self.first(self.backbone(images)), self.trim)
        return self.second(lengths).flatten(3).permute(0, 2, 3, 1)

    def patch_logits(self, images: Tensor) -> Tensor:
        r"""Logits of each capsule of each patch, :math:`p_{cm} = h_{cm}\theta`: ``[B, C, M, K]``."""
        return self.head(self.capsules(images))

    def forward(self, images: Tensor) -> Tensor:
        """Every capsule weighs the same: ``[B, K]``."""
        return self.patch_logits(images).mean(dim=(1, 2))


class RoutingNet(PatchGeometry, nn.Module):
    """Backbone, primary capsules (9x9, stride 4), and what each of them votes for: the network of dynamic routing.

    Args:
        backbone, inputs, classes: as for `PatchNet`.
        image_size: fixes the number of primary capsules, and with it the size of the votes' weights.
        capsules: (capsules per place, units) of the primary layer.
        dim: units of an output capsule.
        norm: BatchNorm behind the convolution.

    Example:
        >>> net = RoutingNet(nn.Conv2d(3, 4, 3, padding=1), 4, classes=5, capsules=(3, 2), dim=8)
        >>> net.votes(torch.rand(1, 3, 32, 32)).shape  # 3 capsules in each of 36 places
        torch.Size([1, 108, 5, 8])
    """

    def __init__(
        self,
        backbone: nn.Module,
        inputs: int,
        classes: int,
        *,
        image_size: int = 32,
        capsules: tuple[int, int] = (32, 16),
        dim: int = 16,
        norm: bool = True,
        kernel: int = 9,
        step: int = 4,
        padding: int = 0,
    ):
        super().__init__()
        self.backbone = backbone
        self.kernel, self.step, self.padding = kernel, step, padding
        self.primary = CapsuleLayer(inputs, *capsules, kernel, step, padding, norm=norm, relu=False)
        rows, columns = self.grid((image_size, image_size))
        self.transform = nn.Parameter(0.01 * torch.randn(rows * columns * capsules[0], classes, dim, capsules[1]))

    def votes(self, images: Tensor) -> Tensor:
        """What each primary capsule predicts for each output capsule: ``[B, N, K, D]``.

        Raises:
            ValueError: images of another size than the network was built for.
        """
        rows, columns = self.grid(images.shape[-2:])
        units = self.primary(self.backbone(images)).flatten(2).transpose(1, 2)  # [B, N, units]
        if units.shape[1] != len(self.transform):
            found = f"{units.shape[1]} ({rows}x{columns})"
            raise ValueError(f"images must give {len(self.transform)} capsules, got {found}")
        length = torch.linalg.vector_norm(units, dim=-1, keepdim=True)
        return torch.einsum("nkoi,bni->bnko", self.transform, units * (length / (1 + length.square())))


def capsule_net(
    name: str,
    classes: int = 10,
    *,
    image_size: int = 32,
    routing: bool = False,
    official: bool = False,
    seed: int | None = None,
    **keywords: Any,
) -> CapsuleNet | RoutingNet:
    """The capsule architecture of the paper on one of its backbones, or a `RoutingNet`; ``"small"`` for a CPU.

    Args:
        name, image_size, official: see `patch_nets.patch_backbone`.
        seed: initialises from this seed without touching the global generator; None uses the global one.
        keywords: for the class.

    Example:
        >>> capsule_net("small", 5, seed=0)(torch.rand(1, 3, 32, 32)).shape
        torch.Size([1, 5])
    """
    with seeded(seed):
        body, inputs = patch_backbone(name, image_size=image_size, official=official)
        if name == "small":
            small = {"capsules": (4, 8), "dim": 8} if routing else {"first": (8, 8), "second": (8, 24)}
            keywords = {**small, **keywords}
        if routing:
            return RoutingNet(body, inputs, classes, image_size=image_size, **keywords)
        return CapsuleNet(body, inputs, classes, **keywords)
