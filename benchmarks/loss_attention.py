"""Loss-Attention: its weights against mean-pooling, fused capsules against one convolution per unit, one training step.

Run: ``OMP_NUM_THREADS=1 python benchmarks/loss_attention.py``. Forward and backward everywhere; no library has these
layers: the peers are the equations written out and the structure of the released code, both written anew.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))
from benchmarks.interleave import interleave, save, table
from xai_course.data.batch import Batch
from xai_course.methods.patch_heads import AttentionPooling, LossAttention, MeanPooling
from xai_course.nets.capsules import CapsuleLayer, split_units
from xai_course.nets.patch_nets import PatchNet, patch_net
from xai_course.preset import Clock

RESULT = Path(__file__).parents[1] / "data/results/benchmarks/loss_attention.json"


def step(parameters: list[Tensor], loss: Callable[[], Tensor], repeats: int = 1) -> None:
    for _ in range(repeats):
        for p in parameters:
            p.grad = None
        loss().backward()


def heads(images: int = 2) -> dict:
    """The paper's head, 9x9 convolution included, on the 512-channel map of a 32-pixel image."""
    torch.manual_seed(0)
    net = PatchNet(nn.Sequential(), 512, 10)
    maps = torch.randn(images, 512, 32, 32)
    batch = Batch(maps.requires_grad_(), torch.arange(images), None, torch.arange(images))
    methods = {
        "mean-pooling": MeanPooling(net),
        "Loss-Attention, image loss": LossAttention(net, balance=0.0),
        "Loss-Attention, Eq. 9": LossAttention(net),
        "Attention": AttentionPooling(net),
        "Gated-Attention": AttentionPooling(net, gated=True),
    }
    return {name: partial(step, list(m.parameters()), partial(total, m, batch)) for name, m in methods.items()}


def total(method, batch: Batch) -> Tensor:
    return next(iter(method.losses(batch, Clock())))["total"]


def capsule_layers(images: int = 2) -> dict[str, dict]:
    """Both capsule layers of the paper: 16 units of 9x9, 128 units of 1x1; the maps get a gradient, as in training."""
    torch.manual_seed(0)
    cases = {}
    layers = {
        "first layer, 16 units": (CapsuleLayer(512, 32, 16, 9, 4), torch.randn(images, 512, 32, 32)),
        "second layer, 128 units": (CapsuleLayer(32, 64, 128), torch.randn(images, 32, 6, 6)),
    }
    for name, (layer, x) in layers.items():
        units, x = split_units(layer), x.requires_grad_()
        repeats = 1 if x.shape[1] == 512 else 10
        cases[name] = {
            "fused": partial(step, [x, *layer.parameters()], partial(squares, layer, x), repeats),
            "one convolution per unit": partial(step, [x, *units.parameters()], partial(separate, units, x), repeats),
        }
    return cases


def squares(layer: nn.Module, x: Tensor) -> Tensor:
    return layer(x).square().mean()


def separate(units: nn.ModuleList, x: Tensor) -> Tensor:
    return torch.stack([unit(x) for unit in units], dim=1).square().mean()


def literal(net: PatchNet, batch: Batch, xi: float = 0.1, gamma: float = 0.1) -> Tensor:
    """Eqs. 5a-5d and 9 as they stand: features weighted and sent through the classifier a second time."""
    h = net.patch_features(batch.images)
    p = net.head(h)
    alpha = p.square().sum(2).sqrt()
    alpha = alpha / alpha.sum(1, keepdim=True).expand_as(alpha)
    alpha = F.relu(alpha - xi / alpha.shape[1])
    alpha = alpha / alpha.sum(1, keepdim=True).expand_as(alpha)
    weighted = alpha.unsqueeze(2).expand_as(h) * h
    z = net.head(weighted.sum(1))
    rows = torch.arange(len(z))
    image = -z.log_softmax(1)[rows, batch.labels].mean()
    target = batch.labels.unsqueeze(1).expand(alpha.shape)
    patches = -p.log_softmax(2).gather(2, target.unsqueeze(2)).squeeze(2)
    return image + gamma * (alpha * patches).sum(1).mean()


def training_steps() -> dict:
    """The small network of the labs, 64 images: Loss-Attention, mean-pooling, and the equations literally."""
    net = patch_net("small", 10, seed=0)
    batch = Batch(torch.rand(64, 3, 32, 32), torch.arange(64) % 10, None, torch.arange(64))
    parameters = list(net.parameters())
    losses = {
        "equations literally": partial(literal, net, batch),
        "Loss-Attention": partial(total, LossAttention(net, ramp=0), batch),
        "mean-pooling": partial(total, MeanPooling(net), batch),
    }
    direct, ours = losses["equations literally"](), losses["Loss-Attention"]()
    torch.testing.assert_close(direct, ours)
    return {name: partial(step, parameters, loss, 2) for name, loss in losses.items()}


def main() -> None:
    torch.set_num_threads(1)
    cases = {"head": interleave(heads(), "mean-pooling", rounds=7, warmup=1)}
    print(table("head on 512x32x32 maps, 2 images", cases["head"]))
    for name, candidates in capsule_layers().items():
        cases[name] = interleave(candidates, "fused", rounds=7, warmup=1)
        print(table(name, cases[name]))
    cases["training step"] = interleave(training_steps(), "equations literally", rounds=7, warmup=1)
    print(table("training step of the small network, 64 images", cases["training step"]))
    save(RESULT, "CPU, one thread", cases)


if __name__ == "__main__":
    main()
