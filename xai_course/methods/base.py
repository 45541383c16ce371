"""The one interface that all methods and baselines share: losses to train with, logits and maps to be measured by."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data.batch import Batch, batches
from ..maps import class_activation_map, enlarge, gap_head, normalise
from ..measure.looking import Measurable
from ..nets.modes import evaluating
from ..preset import Clock

Losses = dict[str, Tensor]


class Method(Measurable):
    """A network and the rule that trains it.

    A subclass overrides `losses`. It yields one or several dictionaries of named scalar terms, each with a ``total``;
    the loop back-propagates each total as it is yielded, so gradients add up and each graph is freed before the next.
    """

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def losses(self, batch: Batch, clock: Clock) -> Iterator[Losses]:
        raise TypeError(f"{type(self).__name__} defines no losses: override Method.losses")

    def parameter_groups(self) -> list[dict]:
        """What the optimiser trains; a group may carry its own ``lr``."""
        return [{"params": [p for p in self.parameters() if p.requires_grad]}]

    def logits(self, images: Tensor) -> Tensor:
        """Class scores ``[B, K]`` for evaluation."""
        return self.net(images)

    def explain(self, images: Tensor, classes: Tensor) -> Tensor:
        """The method's own map of ``classes [B]``: ``[B, H, W]`` in [0, 1] at the size of the images.

        Default: the class activation map of the GAP + linear head, negative evidence cut, divided by its maximum.
        """
        head = gap_head(self.net)
        maps = class_activation_map(self.net.features(images), head.weight, classes=classes)
        return normalise(enlarge(maps.relu(), images.shape[-2:]))


def classification_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy for ``labels [B]`` int64, mean binary cross-entropy for ``labels [B, K]`` float. Scalar mean."""
    if labels.ndim == 1:
        return F.cross_entropy(logits, labels)
    return F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype))


def wide(x: Tensor) -> Tensor:
    """float16 and bfloat16 as float32: their rounding would flip comparisons and overflow in squares."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


class CrossEntropy(Method):
    """The baseline of every chapter: classification loss only.

    Args:
        net: any classifier, ``[B, C, H, W] -> [B, K]``.
        label_smoothing: share of the target spread over all classes, in [0, 1); single-label only.
    """

    def __init__(self, net: nn.Module, label_smoothing: float = 0.0):
        super().__init__(net)
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing must lie in [0, 1), got {label_smoothing}")
        self.label_smoothing = label_smoothing

    def losses(self, batch: Batch, clock: Clock) -> Iterator[Losses]:
        logits = self.net(batch.images)
        if self.label_smoothing:
            yield {"total": F.cross_entropy(logits, batch.labels, label_smoothing=self.label_smoothing)}
        else:
            yield {"total": classification_loss(logits, batch.labels)}


@torch.no_grad()
def predict(method: Method, data, *, size: int = 256, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Logits ``[N, K]`` and labels of a whole data set, in eval mode, on the CPU. Train/eval mode is put back."""
    with evaluating(method):
        pairs = [(method.logits(b.images).float().cpu(), b.labels.cpu()) for b in batches(data, size, device)]
    return torch.cat([p[0] for p in pairs]), torch.cat([p[1] for p in pairs])
