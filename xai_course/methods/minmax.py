"""Min-Max entropy: a localiser proposes a mask, a classifier must know the class inside it and be undecided outside.

Belharbi et al., "Weakly Supervised Object Localization using Min-Max Entropy: an Interpretable Framework" (2019,
arXiv 1907.12934). In the paper's order: decidable and undecidable region (Eq. 1), the entropies (2-9), the mask
(10-11) and Algorithm 1 as an iterator of losses; the recursion itself (12-14) is in `erasing`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..data.batch import Batch, Splits, batches
from ..nets.modes import device_of, evaluating
from ..nets.wildcat import LocaliserClassifier
from ..preset import Clock
from .base import Losses, Method, wide
from .erasing import Erasing, Found, erase, frozen_statistics

# --- Eq. 1-9: what the classifier must say --------------------------------------------------------------------------


def scaled(images: Tensor) -> Tensor:
    """Images in [0, 1] to [-1, 1] (Sec. B.2: mean 0.5, standard deviation 0.5): what is masked becomes mid grey."""
    return 2 * images - 1


def split_image(images: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    r"""Decidable and undecidable part (Sec. 3.1, Eq. 1): :math:`X^+ = X \odot M^+`, :math:`X^- = X \odot (1 - M^+)`.

    Args:
        images: ``[B, C, H, W]`` in [-1, 1]; masked pixels become 0, mid grey.
        mask: ``[B, 1, H, W]`` in [0, 1], soft or binary; one mask for all channels.

    Returns:
        Two images whose sum is ``images``.

    Raises:
        ValueError: the two differ in batch or size.
    """
    if mask.shape != (images.shape[0], 1, *images.shape[2:]):
        raise ValueError(f"mask must be [B, 1, H, W] for images {tuple(images.shape)}, got {tuple(mask.shape)}")
    return images * mask, images * (1 - mask)


def conditional_entropy(logits: Tensor) -> Tensor:
    r"""Eq. 2 and 4: :math:`H(Y|X) = -\sum_y \hat p(y) \log \hat p(y)` of each row, ``[B, c] -> [B]`` in [0, log c].

    For looking, not for training: its gradient dies where the classifier is confidently wrong (see `undecided_loss`).
    """
    log_p = F.log_softmax(wide(logits), dim=1)
    return -(log_p.exp() * log_p).sum(dim=1)


def uniform_target(logits: Tensor) -> Tensor:
    """Eq. 5: q(y) = 1/c for every row of ``logits [B, c]``."""
    return torch.full_like(logits, 1 / logits.shape[1])


def decided_loss(logits: Tensor, labels: Tensor) -> Tensor:
    r"""Eq. 3 (on X+) and Eq. 8 (on X): :math:`-\log \hat p(y_i)` of each sample, ``[B]`` in [0, inf).

    Raises:
        ValueError: fewer than two classes, or labels that are not ``[B]`` int64.
    """
    _check_classes(logits)
    if labels.ndim != 1 or labels.dtype != torch.int64 or len(labels) != len(logits):
        raise ValueError(
            f"labels must be [B={len(logits)}] int64, one class each, got {tuple(labels.shape)} {labels.dtype}"
        )
    return F.cross_entropy(logits, labels, reduction="none")


def undecided_loss(logits: Tensor) -> Tensor:
    r"""Eq. 6 on X-: :math:`H(q, \hat p) = -\frac1c \sum_y \log \hat p(y) = \log c + KL(q \Vert \hat p)`, ``[B]``.

    Its minimum is log c, not 0, reached by the uniform distribution alone; the gradient with respect to the logits is
    softmax - 1/c and does not vanish where the classifier is sure.

    Raises:
        ValueError: fewer than two classes.
    """
    _check_classes(logits)
    return -F.log_softmax(wide(logits), dim=1).mean(
        dim=1
    )  # log(softmax) would be -inf at a logit gap of 104 in float32


def _check_classes(logits: Tensor) -> None:
    if logits.ndim != 2 or logits.shape[1] < 2:
        raise ValueError(f"logits must be [B, c] with c >= 2 (one class is never undecided), got {tuple(logits.shape)}")


# --- Eq. 10-11: the mask --------------------------------------------------------------------------------------------


def combined_map(maps: Tensor, logits: Tensor) -> Tensor:
    r"""Eq. 10: :math:`T = \sum_k \hat p^s(k|X)\, A(k)`. ``[B, c, h, w]`` and ``[B, c]`` to ``[B, 1, h, w]``."""
    if maps.shape[:2] != logits.shape:
        raise ValueError(f"maps must be [B, c, h, w] for logits {tuple(logits.shape)}, got {tuple(maps.shape)}")
    return torch.einsum("bk,bkhw->bhw", logits.softmax(dim=1), maps).unsqueeze(1)


def upsample(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear (corners aligned, as in the official code) by two matrix products, ``[B, 1, h, w] -> [B, 1, H, W]``.

    Equal to `F.interpolate`, but its backward is deterministic on every device, so that determinism is no reason to
    detach the mask (the paper's footnote 5).
    """
    rows, columns = (_resize_matrix(n, m, maps) for n, m in zip(maps.shape[-2:], size))
    return rows @ maps @ columns.T


def _resize_matrix(n: int, m: int, like: Tensor) -> Tensor:
    eye = torch.eye(n, dtype=like.dtype, device=like.device)
    return F.interpolate(eye.unsqueeze(0), size=m, mode="linear", align_corners=True)[0].T


def rescaled(maps: Tensor, over: str = "image") -> Tensor:
    """Maps ``[B, 1, H, W]`` to [0, 1] by their own minimum and maximum; a constant map becomes 0.

    Args:
        over: "image" (each its own), "batch" (one minimum and maximum for all, as the official code trains), "none".
    """
    if over == "none":
        return maps
    dims = {"image": (1, 2, 3), "batch": (0, 1, 2, 3)}[over]
    low, high = maps.amin(dims, keepdim=True), maps.amax(dims, keepdim=True)
    return (maps - low) / (high - low).clamp_min(torch.finfo(maps.dtype).tiny ** 0.5)


@dataclass(frozen=True)
class MaskRule:
    r"""Eq. 11: :math:`R^+ = \bigl(1 + e^{-\omega (T^\uparrow - \sigma')}\bigr)^{-1}`.

    Attributes:
        omega: steepness > 0. It changes what the classifier sees, never the mask thresholded at 0.5.
        threshold: the paper's sigma', 0.5.
        over: scale of T before the sigmoid, see `rescaled`. The paper is silent; "none" takes it literally, and then
            0.5 cuts an unbounded logit map.
        attach: let gradients pass through the mask. False is the paper: the localiser's head then learns nothing from
            the two entropies, and its trunk only if the classifier shares it.
    """

    omega: float = 8.0
    threshold: float = 0.5
    over: str = "image"
    attach: bool = False

    def __post_init__(self):
        if not self.omega > 0:
            raise ValueError(f"omega must be positive, got {self.omega}")
        if self.over not in ("image", "batch", "none"):
            raise ValueError(f"over must be image, batch or none, got {self.over!r}")

    def apply(self, maps: Tensor, logits: Tensor, size: tuple[int, int]) -> Tensor:
        """``[B, c, h, w]`` and ``[B, c]`` to the soft mask R+ ``[B, 1, *size]``, float32 or wider, in [0, 1]."""
        if not self.attach:
            maps, logits = maps.detach(), logits.detach()
        with torch.autocast(maps.device.type, enabled=False):  # bfloat16 has 8 bits: trust and thresholds would flip
            raised = upsample(combined_map(wide(maps), wide(logits)), size)
            return torch.sigmoid(self.omega * (rescaled(raised, self.over) - self.threshold))


# --- Algorithm 1 ----------------------------------------------------------------------------------------------------


class MinMax(Method):
    """Eq. 9 with or without Algorithm 1: localiser and classifier trained together from image labels.

    Args:
        net: `nets.wildcat.LocaliserClassifier`.
        mask: Eq. 11.
        erasing: the recursion; None is the paper's "u = 0": the raw mask, no trust.
        classifier_scale: C's input as a share of the image side (0.5 in the official code; the paper does not say).
    """

    def __init__(
        self,
        net: LocaliserClassifier,
        mask: MaskRule | None = None,
        erasing: Erasing | None = None,
        classifier_scale: float = 1.0,
    ):
        super().__init__(net)
        if not 0 < classifier_scale <= 1:
            raise ValueError(f"classifier_scale must lie in (0, 1], got {classifier_scale}")
        self.rule, self.erasing, self.classifier_scale = mask or MaskRule(), erasing, classifier_scale

    def locate(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """M on images in [-1, 1]: soft mask R+ ``[B, 1, H, W]`` and logits ``[B, c]``."""
        maps, logits = self.net.locate(images)
        return self.rule.apply(maps, logits, images.shape[-2:]), logits

    def judge(self, images: Tensor, role: int = 1) -> Tensor:
        """C: logits ``[B, c]`` of a masked image in [-1, 1]; ``role`` 1 for the inside, 2 for the outside."""
        if self.classifier_scale != 1:
            size = [max(1, round(side * self.classifier_scale)) for side in images.shape[-2:]]
            images = F.interpolate(images, size=size, mode="bilinear", align_corners=True)
        return self.net.classify(images, role)

    def losses(self, batch: Batch, clock: Clock) -> Iterator[Losses]:
        """Algorithm 1: M's loss of every step as soon as it is known, then C's two; gradients add up to Eq. 9's.

        With a detached mask the peak memory does not depend on the depth. An attached mask ties all steps to C, so it
        yields once and keeps every graph.
        """
        images, labels = scaled(batch.images), batch.labels
        erasing = self.active(clock)
        held: list[Losses] = []
        for found in self.steps(images, labels, erasing):
            terms = self._localiser_terms(found, labels, erasing)
            if found.step == 0:
                raw, known = found.mask, found.trust > 0
            mask = found.total
            if terms and not self.rule.attach:
                yield terms  # the loop back-propagates here, which frees this step's graph
            elif terms:
                held.append(terms)
        yield self._classifier_terms(images, labels, _shown(mask, raw, erasing), _weight(known, erasing), held)

    def active(self, clock: Clock) -> Erasing | None:
        """The recursion's rule in this epoch; None before ``start_epoch`` and where there is none."""
        return self.erasing if self.erasing is not None and clock.epoch >= self.erasing.start_epoch else None

    def steps(self, images: Tensor, labels: Tensor, erasing: Erasing | None) -> Iterator[Found]:
        """What M finds, step by step; without erasing one step, fully trusted."""
        if erasing is None:
            mask, logits = self.locate(images)
            yield Found(0, images, logits, mask, torch.ones(len(images), device=images.device), mask)
            return
        passes = iter(range(erasing.depth + 1))
        yield from erase(lambda seen: self._pass(seen, next(passes), erasing), images, labels, erasing)

    def _pass(self, images: Tensor, step: int, erasing: Erasing) -> tuple[Tensor, Tensor]:
        with frozen_statistics(self.net if step and erasing.statistics == "first" else None):
            return self.locate(images)

    def _localiser_terms(self, found: Found, labels: Tensor, erasing: Erasing | None) -> Losses:
        """M's cross-entropy at one step over the images that teach it; empty where none does."""
        loss = decided_loss(found.logits, labels)
        trusted = found.trust > 0
        if erasing is not None and (erasing.teach == "box" or (erasing.teach == "trusted" and found.step > 0)):
            if not bool(trusted.any()):
                return {}
            loss = loss * trusted
        loss = loss.mean()  # over the whole batch, so that Algorithm 1's division by n holds
        return {"localiser": loss, f"trusted_{found.step}": trusted.float().mean(), "total": loss}

    def _classifier_terms(self, images, labels, mask, weight, held) -> Losses:
        inside, outside = split_image(images, mask)
        # two calls, not one of a doubled batch: BatchNorm would mix the statistics of X+ and X-
        plus, minus = decided_loss(self.judge(inside), labels), undecided_loss(logits := self.judge(outside, 2))
        plus, minus = ((x if weight is None else x * weight).mean() for x in (plus, minus))
        gap = math.log(logits.shape[1]) - conditional_entropy(logits.detach()).mean()  # 0 where C is undecided on X-
        terms = {name: value for step in held for name, value in step.items()}
        own = sum(step["total"] for step in held)
        terms |= {"localiser": own} if held else {}
        return terms | {"decided": plus, "undecided": minus, "entropy_gap": gap, "total": plus + minus + own}

    def logits(self, images: Tensor) -> Tensor:
        """Class scores ``[B, c]`` of C on X+, what the paper's image error is measured on. No erasing, no label."""
        images = scaled(images)
        return self.judge(split_image(images, self.locate(images)[0].to(images.dtype))[0])

    def explain(self, images: Tensor, classes: Tensor) -> Tensor:
        """R+ ``[B, H, W]``. Eq. 10 weighs the maps by M's own probabilities, so ``classes`` changes nothing."""
        return self.locate(scaled(images))[0][:, 0]


def _shown(total: Tensor, raw: Tensor, erasing: Erasing | None) -> Tensor:
    """The mask that C sees: the accumulated one, with `Erasing.rescale` and ``untrusted="raw"`` applied."""
    if erasing is None:
        return total
    peak = total.detach().amax(dim=(1, 2, 3), keepdim=True)
    if erasing.rescale:
        total = total / peak.clamp_min(1e-12)
    return torch.where(peak > 0, total, raw) if erasing.untrusted == "raw" else total


def _weight(known: Tensor, erasing: Erasing | None) -> Tensor | None:
    """Which images C learns from ``[B]``: None is all, else those that M finds something on."""
    return known.float() if erasing is not None and erasing.untrusted == "drop" else None


@torch.no_grad()
def answers(method: MinMax, splits: Splits, *, size: int = 256) -> dict[str, float]:
    """What M and C say of the test images, as shares: the means behind "sure inside, undecided outside".

    Returns:
        ``localiser``, ``inside``, ``outside``: accuracy of M on X, of C on X+ and on X- (chance is the aim there).
        ``outside_gap``: log c minus C's mean entropy on X-, as a share of log c. ``mixed``: accuracy of C on X+ with
        the statistics of the batch instead of the running ones (what BatchNorm loses in evaluation).
    """
    right: dict[str, list[Tensor]] = {}
    with evaluating(method), frozen_statistics(method.net):
        for batch in batches(splits.test, size, device_of(method)):
            images = scaled(batch.images)
            method.eval()
            mask, own = method.locate(images)
            inside, outside = split_image(images, mask)
            said = {"localiser": own, "inside": method.judge(inside), "outside": method.judge(outside, 2)}
            gap = 1 - conditional_entropy(said["outside"]) / math.log(own.shape[1])
            method.train()
            said["mixed"] = method.judge(inside)
            for name, logits in said.items():
                right.setdefault(name, []).append((logits.argmax(1) == batch.labels).float())
            right.setdefault("outside_gap", []).append(gap)
    return {name: float(torch.cat(parts).mean()) for name, parts in right.items()}
