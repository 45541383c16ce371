"""Explanations that know nothing of the network: every score is read beside theirs."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

CENTRE_AREA = 0.25  # share of the image that the centre box covers


def whole_image(images: Tensor) -> Tensor:
    """Ones everywhere, ``[B, H, W]``. Energy, pointing and IoU all equal the object's share of the area."""
    return images.new_ones(len(images), *images.shape[-2:])


def centre_box(images: Tensor, area: float = CENTRE_AREA) -> Tensor:
    """One inside a centred box with the image's proportions that covers about ``area`` of it, else zero."""
    height, width = images.shape[-2:]
    rows, columns = (_central(n, area**0.5, images.device) for n in (height, width))
    return (rows[:, None] & columns).to(images.dtype).expand(len(images), height, width)


def gaussian_centre(images: Tensor, sigma: float = 0.25) -> Tensor:
    """A round bell around the middle, ``sigma`` as a share of the shorter side; its peak is one on odd sides."""
    height, width = images.shape[-2:]
    y, x = (
        (torch.arange(n, device=images.device) - (n - 1) / 2) / (sigma * min(height, width)) for n in (height, width)
    )
    bell = torch.exp(-0.5 * (y[:, None].square() + x.square())).to(images.dtype)
    return bell.expand(len(images), height, width)


def random_map(images: Tensor, seed: int = 0) -> Tensor:
    """Independent uniform values; the same for the same ``seed`` and shape."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(len(images), *images.shape[-2:], generator=generator).to(images)


def edges(images: Tensor) -> Tensor:
    """Length of the Sobel gradient of the channel mean: what stands out in the image, whatever the network uses."""
    grey = F.pad(images.mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    sobel = images.new_tensor([[1.0, 0.0, -1.0], [2.0, 0.0, -2.0], [1.0, 0.0, -1.0]])
    return F.conv2d(grey, torch.stack([sobel, sobel.T]).unsqueeze(1)).square().sum(1).sqrt()


TRIVIAL: dict[str, Callable[[Tensor], Tensor]] = {
    "whole": whole_image,
    "centre": centre_box,
    "gaussian": gaussian_centre,
    "random": random_map,
    "edges": edges,
}


def _central(length: int, share: float, device) -> Tensor:
    inside = max(1, round(length * share))
    start = (length - inside) // 2
    place = torch.arange(length, device=device)
    return (place >= start) & (place < start + inside)
