"""What ReFF's tests share: a small network with a batch, gradients by name, random maps and masks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from xai_course.data.batch import Batch
from xai_course.nets.convnets import small_cnn

LAYERS = ("body.1", "body.2", "body.3", "body.4")


def random_maps(batch: int = 3, sizes=(8, 4, 2), dtype=torch.float64) -> list[Tensor]:
    return [torch.rand(batch, n, n, dtype=dtype).square() for n in sizes]


def random_mask(batch: int = 3, size: int = 16, dtype=torch.float64) -> Tensor:
    return (torch.rand(batch, size, size) < 0.4).to(dtype)


def problem(seed: int = 0, batch: int = 4, dtype=torch.float64) -> tuple[nn.Module, Batch]:
    """A small network and a batch with masks; nothing in it is zero or symmetric."""
    torch.manual_seed(seed)
    net = small_cnn(3, width=2).to(dtype)
    for norm in net.modules():
        if isinstance(norm, nn.BatchNorm2d):  # at zero bias whole regions would sit on the ReLU's kink
            nn.init.normal_(norm.bias, 0.3, 0.3), nn.init.normal_(norm.running_mean, 0, 0.1)
    masks = torch.zeros(batch, 16, 16, dtype=torch.bool)
    masks[:, 3:12, 5:13] = True
    return net, Batch(torch.rand(batch, 3, 16, 16, dtype=dtype), torch.arange(batch) % 3, masks, torch.arange(batch))


def gradients(net: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    names, parameters = zip(*net.named_parameters())
    return dict(zip(names, torch.autograd.grad(loss, parameters, allow_unused=True, retain_graph=True)))
