"""What HNC's rows need: wrong labels, rates of positive labels, a balanced loss, a source of transferred attacks."""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from ...data.batch import Splits, positive_rate
from ...data.image_sets import coco
from ...data.noise import with_label_noise
from ...data.vision import cifar100
from ...methods.base import CrossEntropy
from ...methods.classic import FocalLoss, LogitLoss, class_balanced_weights
from ...methods.hnc import HNC
from ...nets.convnets import GapClassifier, small_cnn
from ...preset import Preset
from ...train import fit


def noisy_cifar100(preset: str = "smoke", *, seed: int = 0, kind: str = "symmetric", rate: float = 0.2) -> Splits:
    """CIFAR-100 whose training and validation labels are wrong at ``rate`` (HNC, Sec. 4.5); test labels stay clean."""
    return with_label_noise(cifar100(preset, seed=seed), rate, kind=kind, seed=seed)


def coco_288(preset: str = "smoke", *, seed: int = 0) -> Splits:
    """COCO 2014 at HNC's 288 pixels (64 at "smoke"), without masks."""
    return coco(preset, seed=seed, size=64 if preset == "smoke" else 288)


def with_rates(splits: Splits, *, of: Callable[[Splits], GapClassifier]) -> GapClassifier:
    """``of`` that also remembers each class's share of positive training images, for HNC's Eq. 8."""
    net, items = of(splits), getattr(splits.train, "items", None)
    if items is None:
        rates = positive_rate(splits.train)
    else:  # labels without decoding a single photograph
        rates = torch.zeros(len(splits.classes))
        for item in items:
            rates[list(item.label)] += 1 / len(items)
    net.register_buffer("positive_rate", rates)
    return net


def weighted(net: GapClassifier, method: type[HNC] = HNC, **options: Any) -> HNC:
    """HNC's Eq. 9 with the rates of the network's training set."""
    return method(net, positive_rate=net.get_buffer("positive_rate"), **options)


def class_balanced_focal(net: GapClassifier) -> LogitLoss:
    """CB focal for equal class sizes: weights that are all one, so this is focal loss, as HNC's Table 1 says too."""
    weight: Tensor = class_balanced_weights(torch.full((net.head.out_features,), 450))
    return LogitLoss(net, FocalLoss(weight=weight))


@cache
def _surrogate(fingerprint: str) -> dict[str, nn.Module]:
    return {}


def surrogate(splits: Splits, *, plan: Preset) -> nn.Module:
    """A small network, trained with cross-entropy from another seed: the source of transferred attacks."""
    kept = _surrogate(splits.fingerprint)
    if "net" not in kept:
        with torch.random.fork_rng(devices=[]):
            method = CrossEntropy(small_cnn(len(splits.classes), width=6, seed=1_000_003))
            fit(method, splits.train, plan, seed=1_000_003)
        kept["net"] = method.net
    return kept["net"]
