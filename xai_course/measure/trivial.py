"""Explanations that know nothing of the network: every score is read beside theirs."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from .._require import require


def whole_image(images: Tensor) -> Tensor:
    """Ones everywhere, ``[B, H, W]``. Energy, pointing and IoU all equal the object's share of the area.

    Example:
        >>> whole_image(torch.zeros(1, 3, 1, 2))
        tensor([[[1., 1.]]])
    """
    return images.new_ones(len(images), *images.shape[-2:])


def centre_box(images: Tensor, area: float = 0.25) -> Tensor:
    """One inside a centred box with the image's proportions that covers about ``area`` of it, else zero.

    Raises:
        ValueError: ``area`` outside (0, 1].

    Example:
        >>> centre_box(torch.zeros(1, 3, 4, 4))[0, 1]
        tensor([0., 1., 1., 0.])
    """
    require(0 < area <= 1, "area must lie in (0, 1]", area)
    height, width = images.shape[-2:]
    box = images.new_zeros(height, width)
    box[_central(height, area**0.5), _central(width, area**0.5)] = 1
    return box.expand(len(images), height, width)


def gaussian_centre(images: Tensor) -> Tensor:
    """A round bell around the middle, its deviation a quarter of the shorter side; its peak is one on odd sides.

    Example:
        >>> gaussian_centre(torch.zeros(1, 3, 1, 3))
        tensor([[[0.0003, 1.0000, 0.0003]]])
    """
    height, width = images.shape[-2:]
    spread, device = 0.25 * min(height, width), images.device
    y, x = ((torch.arange(n, device=device) - (n - 1) / 2) / spread for n in (height, width))
    bell = torch.exp(-0.5 * (y[:, None].square() + x.square())).to(images.dtype)
    return bell.expand(len(images), height, width)


def random_map(images: Tensor, seed: int = 0) -> Tensor:
    """Independent uniform values; the same for the same ``seed`` and shape.

    Example:
        >>> images = torch.zeros(1, 3, 2, 2)
        >>> torch.equal(random_map(images), random_map(images)), torch.equal(random_map(images), random_map(images, 1))
        (True, False)
    """
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(len(images), *images.shape[-2:], generator=generator).to(images)


def coin(images: Tensor) -> Tensor:
    """A fair coin per pixel: one or zero, whatever threshold in (0, 1] is asked for. The same for the same shape.

    Example:
        >>> 0.4 < coin(torch.zeros(1, 3, 32, 32)).mean() < 0.6
        tensor(True)
    """
    return (random_map(images) < 0.5).to(images.dtype)


def edges(images: Tensor) -> Tensor:
    """Length of the Sobel gradient of the channel mean: what stands out in the image, whatever the network uses.

    Example:
        >>> edges(torch.tensor([[[[0.0, 0.0, 1.0, 1.0]]]]))
        tensor([[[0., 4., 4., 0.]]])
    """
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


def trivial_maps(images: Tensor) -> dict[str, Tensor]:
    """All of `TRIVIAL` for some images, under the suffixes that their scores carry: "_whole", "_centre", ...

    Example:
        >>> list(trivial_maps(torch.zeros(1, 3, 4, 4)))
        ['_whole', '_centre', '_gaussian', '_random', '_edges']
    """
    return {f"_{name}": trivial(images) for name, trivial in TRIVIAL.items()}


def blind_map(masks: Tensor) -> Tensor:
    """How often each pixel is on an object, ``[H, W]`` float64 in [0, 1]: the best map that never saw an image.

    Cut at a level chosen on validation it is the best image-blind mask, and the box around that the best blind box: no
    guess that is the same for all images can beat what these masks allow it.

    Args:
        masks: ``[N, H, W]`` bool of the validation split, never of the test split.

    Raises:
        ValueError: no mask, or not bool.

    Example:
        >>> blind_map(torch.tensor([[[True, False]], [[True, True]]]))
        tensor([[1.0000, 0.5000]], dtype=torch.float64)
    """
    require(
        masks.ndim == 3 and masks.dtype == torch.bool and len(masks), "masks must be [N, H, W] bool with N >= 1", masks
    )
    return masks.cpu().double().mean(0)


def _central(length: int, share: float) -> slice:
    inside = max(1, round(length * share))
    start = (length - inside) // 2
    return slice(start, start + inside)
