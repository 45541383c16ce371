"""Recursive erasing with trust: Min-Max entropy's Sec. 3.4, Eq. 12-14 (Belharbi et al. 2019, arXiv 1907.12934).

The recursion is a generator of what was found at each step, so that training, the tests and the figures that show it
step by step all walk through the same lines.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .._require import require
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

    Raises:
        ValueError: a negative or broken ``depth``, ``sigma`` not positive, an unknown choice.

    Example:
        >>> Erasing(depth=3, compound=True, teach="all", start_epoch=1).rule  # the official configuration but for this
        'paper'
        >>> Erasing(rule="always")
        Traceback (most recent call last):
        ValueError: rule must be one of paper, label, none, got 'always'
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

    def __post_init__(self) -> None:
        require(self.depth >= 0 and self.depth == int(self.depth), "depth (u) must be an integer >= 0", self.depth)
        require(self.sigma > 0, "sigma must be positive", self.sigma)
        choices = {
            "rule": ("paper", "label", "none"),
            "teach": ("trusted", "all", "box"),
            "untrusted": ("keep", "drop", "raw"),
            "statistics": ("all", "first"),
        }
        for name, allowed in choices.items():
            own = getattr(self, name)
            require(own in allowed, f"{name} must be one of {', '.join(allowed)}", repr(own))


class Step(NamedTuple):
    r"""One step of the recursion: what M was shown, what it found, and how far that is trusted.

    Attributes:
        t: its number, from 0.
        images: ``[B, C, H, W]`` with the earlier findings erased.
        logits: ``[B, c]`` of M, with its graph.
        mask: ``[B, 1, H, W]``, :math:`R^{+,t}`.
        trust: ``[B]`` in [0, 1], :math:`\Psi(t, i)`.
        total: ``[B, 1, H, W]``, :math:`R^{+,\star}` after this step.
    """

    t: int
    images: Tensor
    logits: Tensor
    mask: Tensor
    trust: Tensor
    total: Tensor


def decay(step: int, sigma: float) -> float:
    r"""Eq. 13's first factor, :math:`e^{-t/\sigma}`.

    Example:
        >>> [round(decay(t, sigma=10.0), 3) for t in range(5)]
        [1.0, 0.905, 0.819, 0.741, 0.67]
    """
    return math.exp(-step / sigma)


@torch.no_grad()
def sample_trust(
    logits: Tensor, labels: Tensor, first: Tensor, alive: Tensor, rule: str = "paper"
) -> tuple[Tensor, Tensor]:
    r"""Eq. 14: :math:`\Gamma(t,i) = \hat p^s(y_i)` where M is right and no less sure than at t = 0, else 0 for good.

    Args:
        logits: ``[B, c]`` of M on the erased images; ``labels``: ``[B]``.
        first: ``[B]``, probability of the true class at t = 0 (comparing probabilities is comparing cross-entropies).
        alive: ``[B]`` bool, trusted at every earlier step.

    Returns:
        ``(gamma [B] in [0, 1], alive [B])``. No gradient.

    Example:
        >>> logits = torch.tensor([[3.0, 1.0], [3.0, 1.0], [1.0, 3.0]]).log()  # M was 70 % sure of class 0 before
        >>> sample_trust(logits, torch.zeros(3, dtype=torch.int64), torch.tensor([0.7, 0.8, 0.7]), torch.ones(3) > 0)
        (tensor([0.7500, 0.0000, 0.0000]), tensor([ True, False, False]))
    """
    p = wide(logits).softmax(dim=1).gather(1, labels.unsqueeze(1))[:, 0]
    if rule in ("paper", "label"):
        alive = alive & (logits.argmax(dim=1) == labels)
    if rule == "paper":
        alive = alive & (p >= first)
    return p * alive, alive


def erase(
    locate: Callable[[Tensor], tuple[Tensor, Tensor]], images: Tensor, labels: Tensor, erasing: Erasing
) -> Iterator[Step]:
    """The recursion, one step per ``next``: find, weigh, merge (Eq. 12), erase.

    Back-propagate through ``logits`` before asking for the next step and only one graph of M is ever alive.

    Args:
        locate: M, ``[B, C, H, W] -> (soft mask [B, 1, H, W], logits [B, c])``.
        images, labels: ``[B, C, H, W]`` and ``[B]``.
        erasing: the rule; ends after ``depth + 1`` steps, or when no image of the batch is trusted any more.

    Example:
        >>> def brightest(images):  # always sure of class 0
        ...     return (images == images.amax()).float(), torch.tensor([[3.0, 1.0]]).log()
        >>> images = torch.tensor([[[[1.0, 0.8, 0.2]]]])
        >>> for step in erase(brightest, images, torch.tensor([0]), Erasing(depth=1)):
        ...     print(step.images.flatten(), step.total.flatten())
        tensor([1.0000, 0.8000, 0.2000]) tensor([0.7500, 0.0000, 0.0000])
        tensor([0.2500, 0.8000, 0.2000]) tensor([0.7500, 0.6786, 0.0000])
    """
    left, alive = images, torch.ones_like(labels, dtype=torch.bool)
    for t in range(erasing.depth + 1):
        mask, logits = locate(left)
        if t == 0:
            first = wide(logits.detach()).softmax(dim=1).gather(1, labels.unsqueeze(1))[:, 0]
            total = torch.zeros_like(mask)
        gamma, alive = sample_trust(logits, labels, first, alive, erasing.rule)
        trust = decay(t, erasing.sigma) * gamma
        total = torch.maximum(total, trust.view(-1, 1, 1, 1).to(mask.dtype) * mask)  # Eq. 12
        yield Step(t, left, logits, mask, trust, total)
        if not bool(alive.any()):  # the batch stops when nobody is trusted
            return
        kept = 1 - total.detach()
        left = torch.where(alive.view(-1, 1, 1, 1), (left if erasing.compound else images) * kept, left)
