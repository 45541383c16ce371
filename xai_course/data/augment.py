"""Augmentations: ``(batch, generator) -> batch`` on the batch's device, masks moving along with the images."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .batch import Batch


def crop_and_flip(
    batch: Batch, generator: torch.Generator, *, pad: int = 4, flip: bool = True, reflect: bool = False
) -> Batch:
    """Each image moved by up to ``pad`` pixels and mirrored half of the time; masks move along.

    What comes in is zero, or with ``reflect`` the border's mirror image (AMC-Loss's released code: 2 pixels, no flip).

    Example:
        >>> white = Batch(torch.ones(1, 1, 4, 4), torch.zeros(1), None, torch.zeros(1))
        >>> moved = crop_and_flip(white, torch.Generator().manual_seed(0), pad=2)
        >>> moved.images[0, 0].int().tolist()
        [[0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 0, 0], [0, 0, 0, 0]]
    """
    n, _, height, width = batch.images.shape

    def draw(values: int) -> Tensor:
        return torch.randint(values, (n, 1), generator=generator, device=batch.images.device)

    rows = draw(2 * pad + 1) + torch.arange(height, device=batch.images.device)
    columns = draw(2 * pad + 1) + torch.arange(width, device=batch.images.device)
    if reflect:  # what the mirror shows, in the middle of the padded image
        rows = pad + height - 1 - (height - 1 - (rows - pad).abs()).abs()
        columns = pad + width - 1 - (width - 1 - (columns - pad).abs()).abs()
    if flip:
        columns = torch.where(draw(2).bool(), columns.flip(1), columns)
    where = (torch.arange(n, device=rows.device)[:, None, None], rows[:, :, None], columns[:, None, :])
    images = F.pad(batch.images, (pad,) * 4).permute(0, 2, 3, 1)[where].permute(0, 3, 1, 2)
    masks = None if batch.masks is None else F.pad(batch.masks, (pad,) * 4)[where]
    return batch._replace(images=images, masks=masks)


def scaled_crop(batch: Batch, generator: torch.Generator, *, least: float = 0.08, flip: bool = True) -> Batch:
    """A random window of ``least`` to 1 of the area and aspect 3/4 to 4/3, resized to the image's size (bilinear).

    One window per image, drawn from ``generator``; mirrored half of the time. In HNC's released ImageNet script the
    mirroring is commented out; the repository it comes from has it.

    Example:
        >>> grey = Batch(torch.full((2, 3, 8, 8), 0.5), torch.zeros(2), None, torch.arange(2))
        >>> cropped = scaled_crop(grey, torch.Generator().manual_seed(0))
        >>> torch.allclose(cropped.images, grey.images)
        True
    """
    images, count = batch.images, len(batch.images)
    area, ratio, x, y, coin = torch.rand(5, count, generator=generator, device=images.device)
    area, aspect = least + (1 - least) * area, torch.exp((2 * ratio - 1) * math.log(4 / 3) / 2)
    width, height = (area.sqrt() * aspect).clamp_max(1), (area.sqrt() / aspect).clamp_max(1)
    sign = torch.where(coin < 0.5, -1.0, 1.0) if flip else torch.ones_like(coin)
    zero = torch.zeros_like(width)
    across = torch.stack([sign * width, zero, (2 * x - 1) * (1 - width)], dim=1)
    down = torch.stack([zero, height, (2 * y - 1) * (1 - height)], dim=1)
    grid = F.affine_grid(torch.stack([across, down], dim=1), list(images.shape), align_corners=False)
    return batch._replace(images=F.grid_sample(images, grid, padding_mode="border", align_corners=False))


def turned(batch: Batch, generator: torch.Generator) -> Batch:
    """Each image mirrored half of the time and turned by a random quarter, masks with it (Min-Max on GlaS).

    Together these are all flips in both directions, each of the eight results equally likely. Images are square.

    Example:
        >>> images = torch.arange(4.0).reshape(1, 1, 2, 2)
        >>> turned(Batch(images, torch.zeros(1), None, torch.zeros(1)), torch.Generator().manual_seed(0)).images[0, 0]
        tensor([[1., 0.],
                [3., 2.]])
    """
    which = torch.randint(8, (len(batch.images),), generator=generator, device=batch.images.device)

    def move(x: Tensor) -> Tensor:
        moved = x
        for k in range(1, 8):  # chosen by where, not by index: nothing waits for the device
            one = torch.rot90(x.flip(-1) if k > 3 else x, k % 4, (-2, -1))
            moved = torch.where((which == k).view(-1, *[1] * (x.ndim - 1)), one, moved)
        return moved

    return batch._replace(images=move(batch.images), masks=None if batch.masks is None else move(batch.masks))


def warped(
    batch: Batch, generator: torch.Generator, *, degrees: float = 10, scale: tuple[float, float] = (0.3, 1.5)
) -> Batch:
    """`turned`, then each image turned, sheared (up to ``degrees`` both) and scaled about its centre; black comes in.

    The defaults are those of the compared methods on CUB5 (Min-Max, Sec. B.2). Masks move along, by nearest neighbour.

    Example:
        >>> white = Batch(torch.ones(1, 1, 4, 4), torch.zeros(1), None, torch.zeros(1))
        >>> warped(white, torch.Generator().manual_seed(0), degrees=0, scale=(0.5, 0.5)).images[0, 0].tolist()
        [[0.0, 0.0, 0.0, 0.0], [0.0, 1.0, 1.0, 0.0], [0.0, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]]
    """
    batch = turned(batch, generator)
    images, masks = batch.images, batch.masks
    a, b, size = torch.rand(3, len(images), generator=generator, device=images.device)
    a, b = (2 * a - 1) * math.radians(degrees), ((2 * b - 1) * math.radians(degrees)).tan()
    size, cos, sin, zero = scale[0] + (scale[1] - scale[0]) * size, a.cos(), a.sin(), torch.zeros_like(a)
    across, down = torch.stack([cos - b * sin, sin + b * cos, zero], 1), torch.stack([-sin, cos, zero], 1)
    theta = torch.stack([across, down], 1) / size[:, None, None]
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    if masks is not None:
        masks = F.grid_sample(masks[:, None].float(), grid, mode="nearest", align_corners=False)[:, 0] > 0.5
    return batch._replace(images=F.grid_sample(images, grid, align_corners=False), masks=masks)
