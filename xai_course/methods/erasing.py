"""Recursive erasing with trust: Min-Max entropy's Sec. 3.4, Eq. 12-14 (Belharbi et al. 2019, arXiv 1907.12934).

The recursion is a generator of what was found at each step, so that training, the tests and the figures that show it
step by step all walk through the same lines.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..data.batch import Dataset, Splits, batches
from ..measure.scores import f1_background, f1_foreground, thresholded
from ..nets.modes import device_of, evaluating
from ..nets.role_norm import RoleNorm
from .base import wide


@dataclass(frozen=True)
class Erasing:
    r"""How the recursion of Sec. 3.4 runs.

    Attributes:
        depth: the paper's u >= 0: at most u + 1 forward passes of M (t = 0 .. u, as Algorithm 1 prints it). The
            official code makes u passes: its "u = 4" is ``depth=3`` here.
        sigma: > 0, slope of the trust :math:`e^{-t/\sigma}` (Eq. 13).
        rule: "paper" trusts an erased image only if M still names its class and loses no confidence (Eq. 14);
            "label" drops the second condition; "none" trusts always.
        compound: multiply the already erased image again (Algorithm 1 and the official code) instead of erasing from
            the original (Eq. 14).
        teach: whose cross-entropy M learns from: "trusted" (all at t = 0 as Eq. 8 wants, then those with trust),
            "all" (official code), "box" (Algorithm 1 to the letter: an image misclassified at t = 0 never teaches M).
        untrusted: what C sees of an image without any trusted region: "keep" (a blank X+ and the whole image as X-, the
            paper's equations), "drop" (it adds 0 to both entropies, whose sums are still divided by the whole batch),
            "raw" (its mask of t = 0).
        rescale: divide the accumulated mask by its maximum, as no trust dims it at test time.
        start_epoch: plain Eq. 9 with the raw mask before this epoch (1 in the official configuration).
        statistics: "all" passes of M update BatchNorm's running statistics, or only the "first".
    """

    depth: int = 4
    sigma: float = 10.0
    rule: str = "paper"
    compound: bool = False
    teach: str = "trusted"
    untrusted: str = "keep"
    rescale: bool = False
    start_epoch: int = 0
    statistics: str = "all"

    def __post_init__(self):
        if self.depth < 0 or self.depth != int(self.depth):
            raise ValueError(f"depth (u) must be an integer >= 0, got {self.depth}")
        if not self.sigma > 0:
            raise ValueError(f"sigma must be positive, got {self.sigma}")
        choices = {
            "rule": ("paper", "label", "none"),
            "teach": ("trusted", "all", "box"),
            "untrusted": ("keep", "drop", "raw"),
            "statistics": ("all", "first"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}")


class Found(NamedTuple):
    """One step t of the recursion: what M saw, what it found, and how far that is trusted.

    Attributes:
        step: t.
        seen: ``[B, C, H, W]`` image with the earlier findings erased.
        logits: ``[B, c]`` of M, with its graph.
        mask: ``[B, 1, H, W]``, :math:`R^{+,t}`.
        trust: ``[B]`` in [0, 1], :math:`\\Psi(t, i)`.
        total: ``[B, 1, H, W]``, :math:`R^{+,\\star}` after this step.
    """

    step: int
    seen: Tensor
    logits: Tensor
    mask: Tensor
    trust: Tensor
    total: Tensor


def decay(step: int, sigma: float) -> float:
    r"""Eq. 13's first factor, :math:`e^{-t/\sigma}`: 1, .905, .819, .741, .670 for t = 0..4 and sigma = 10."""
    return math.exp(-step / sigma)


@torch.no_grad()
def sample_trust(logits: Tensor, labels: Tensor, first: Tensor, alive: Tensor, rule: str = "paper"):
    r"""Eq. 14: :math:`\Gamma(t,i) = \hat p^s(y_i)` where M is right and no less sure than at t = 0, else 0 for good.

    Args:
        logits: ``[B, c]`` of M on the erased images; ``labels``: ``[B]``.
        first: ``[B]``, probability of the true class at t = 0 (comparing probabilities is comparing cross-entropies).
        alive: ``[B]`` bool, trusted at every earlier step.

    Returns:
        ``(gamma [B] in [0, 1], alive [B])``. No gradient.
    """
    p = wide(logits).softmax(dim=1).gather(1, labels.unsqueeze(1))[:, 0]
    if rule in ("paper", "label"):
        alive = alive & (logits.argmax(dim=1) == labels)
    if rule == "paper":
        alive = alive & (p >= first)
    return p * alive, alive


def erase(locate: Callable, images: Tensor, labels: Tensor, erasing: Erasing) -> Iterator[Found]:
    """The recursion, one step per ``next``: find, weigh, merge (Eq. 12), erase.

    Back-propagate through ``logits`` before asking for the next step and only one graph of M is ever alive.

    Args:
        locate: M, ``[B, C, H, W] -> (soft mask [B, 1, H, W], logits [B, c])``.
        images, labels: ``[B, C, H, W]`` and ``[B]``.
        erasing: the rule; ends after ``depth + 1`` steps, or when no image of the batch is trusted any more.
    """
    seen, alive = images, torch.ones_like(labels, dtype=torch.bool)
    first, total = None, None
    for step in range(erasing.depth + 1):
        mask, logits = locate(seen)
        if first is None:
            first = wide(logits.detach()).softmax(dim=1).gather(1, labels.unsqueeze(1))[:, 0]
            total = torch.zeros_like(mask)
        gamma, alive = sample_trust(logits, labels, first, alive, erasing.rule)
        trust = decay(step, erasing.sigma) * gamma
        total = torch.maximum(total, trust.view(-1, 1, 1, 1).to(mask.dtype) * mask)  # Eq. 12
        yield Found(step, seen, logits, mask, trust, total)
        if not bool(alive.any()):  # the batch stops when nobody is trusted
            return
        kept = 1 - total.detach()
        seen = torch.where(alive.view(-1, 1, 1, 1), (seen if erasing.compound else images) * kept, seen)


@torch.no_grad()
def mined(method, data: Dataset, erasing: Erasing, *, size: int = 256) -> dict[str, float]:
    """What erasing a trained localiser would add: it is told the labels, so this diagnoses, it does not predict.

    Args:
        method: has ``locate``; put to eval mode and back, module by module.
        data: with masks. erasing: the rule to try, independent of the one that trained.

    Returns:
        Shares. ``accepted_t``: images trusted at step t. ``f1_plus_t``, ``f1_minus_t``: of the union of the
        trusted masks up to step t, thresholded at 0.5; t = 0 counts whether trusted or not.
    """
    sums = Counter()
    with evaluating(method):
        for batch in batches(data, size, device_of(method)):
            union, last = torch.zeros_like(batch.masks), -1
            for found in erase(method.locate, 2 * batch.images - 1, batch.labels, erasing):
                trusted, last = found.trust > 0, found.step
                seen = thresholded(found.mask[:, 0], 0.5, "absolute")
                union = union | (seen & (trusted | (last == 0)).view(-1, 1, 1))
                sums[f"accepted_{last}"] += int(trusted.sum())
                _count(sums, union, batch.masks, last)
            for step in range(last + 1, erasing.depth + 1):  # the recursion ended early: nothing more is found
                sums[f"accepted_{step}"] += 0
                _count(sums, union, batch.masks, step)
    return {name: total / len(data) for name, total in sums.items()}


RULES = ("paper", "label", "none")


def mining(method, splits: Splits) -> dict[str, float]:
    """`mined` on the test split for every rule, four steps deep, as one flat dictionary."""
    found: dict[str, float] = {}
    for rule in RULES:
        steps = mined(method, splits.test, Erasing(4, rule=rule))
        found |= {f"{rule}_accepted_{t}": steps[f"accepted_{t}"] for t in (0, 1, 4)}
        found |= {f"{rule}_{name}_{t}": steps[f"{name}_{t}"] for name in ("f1_plus", "f1_minus") for t in (0, 4)}
    return found


def _count(sums: Counter, union: Tensor, truth: Tensor, step: int) -> None:
    sums[f"f1_plus_{step}"] += float(f1_foreground(union, truth).sum())
    sums[f"f1_minus_{step}"] += float(f1_background(union, truth).sum())


@contextmanager
def frozen_statistics(net: nn.Module | None):
    """BatchNorm in train mode, but its running statistics and their count stay as they are; None does nothing."""
    norms = (
        [m for m in net.modules() if isinstance(m, (nn.modules.batchnorm._BatchNorm, RoleNorm))]
        if net is not None
        else []
    )
    kept = [(m.momentum, getattr(m, "num_batches_tracked", None)) for m in norms]
    kept = [(momentum, None if count is None else count.clone()) for momentum, count in kept]
    for m in norms:
        m.momentum = 0.0
    try:
        yield
    finally:
        for m, (momentum, count) in zip(norms, kept):
            m.momentum = momentum
            if count is not None:
                m.num_batches_tracked.copy_(count)
