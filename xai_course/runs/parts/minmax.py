"""What Min-Max's rows need: M, or M and C, on any trunk, also one that can already classify; the nuclei."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ...data.batch import Splits
from ...data.folders import in_memory
from ...data.image_sets import nuclei
from ...methods.wsol import PooledMaps
from ...nets.role_norm import norms_by_role
from ...nets.unet import UNet
from ...nets.wildcat import HEADS, Localiser, LocaliserClassifier, minmax_head
from ...preset import Preset
from ...train import fit

Trunk = Callable[[], tuple[nn.Module, int]]


def small_nuclei(preset: str = "smoke", *, seed: int = 0) -> Splits:
    """Stained tissue against fluorescence, with the nuclei as masks; decoded once."""
    return in_memory(nuclei(preset, seed=seed, size=64 if preset == "smoke" else 128))


def localiser(splits: Splits, *, trunk: Trunk, head: str = "minmax") -> Localiser:
    """A trunk under one of Table 1's heads, or ("minmax") Min-Max's own: M alone, so that only the losses differ."""
    body, channels = trunk()
    make = minmax_head if head == "minmax" else HEADS[head]
    return Localiser(body, make(channels, len(splits.classes)))


def pair(splits: Splits, *, trunk: Trunk, dropout: float = 0.0, shared: bool = True, roles: bool = False) -> nn.Module:
    """M and C; ``roles`` keeps the running statistics of whole and masked images apart."""
    body, channels = trunk()
    other = None if shared else trunk()[0]
    mine, its = (minmax_head(channels, len(splits.classes), dropout=dropout) for _ in range(2))
    net = LocaliserClassifier(body, mine, its, classifier_trunk=other)
    return norms_by_role(net) if roles else net


def pretrained(
    splits: Splits, *, trunk: Trunk, data: Callable[..., Splits], plan: Preset, alone: bool = False
) -> nn.Module:
    """Min-Max on a trunk trained on other images of the same kind, as ImageNet is for birds; or M ``alone``."""
    body, channels = trunk()
    classes = len(splits.classes)
    with torch.random.fork_rng(devices=[]):
        method = PooledMaps(Localiser(body, HEADS["cam_avg"](channels, classes)))
        fit(method, data("smoke", seed=1000).train, plan, seed=1000)
    body = body.cpu()
    if alone:
        return Localiser(body, minmax_head(channels, classes))
    return norms_by_role(LocaliserClassifier(body, minmax_head(channels, classes), minmax_head(channels, classes)))


def unet(splits: Splits, **options: Any) -> UNet:
    """U-Net, for full supervision."""
    return UNet(**options)


def nothing(splits: Splits) -> nn.Module:
    """For masks that need no network."""
    return nn.Identity()
