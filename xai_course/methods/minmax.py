"""Min-Max entropy: a localiser proposes a mask, a classifier must know the class inside it and be undecided outside.

Belharbi et al., "Weakly Supervised Object Localization using Min-Max Entropy: an Interpretable Framework" (2019,
arXiv 1907.12934). In the paper's order: decidable and undecidable region (Eq. 1), the entropies (3, 5-9; 2 and 4 are
looked at only: `measure.minmax.conditional_entropy`), the mask (10-11) and Algorithm 1 as an iterator of losses; the
recursion itself (12-14) is in `erasing`.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .._require import require
from ..data.batch import Batch
from ..measure.minmax import conditional_entropy
from ..nets.role_norm import frozen_statistics
from ..nets.wildcat import LocaliserClassifier
from ..preset import Clock
from .base import Criterion, Losses, Method, check_labels, reduced, wide
from .erasing import Erasing, Step, erase

# --- Eq. 1-9: what the classifier must say --------------------------------------------------------------------------


def scaled(images: Tensor) -> Tensor:
    """Images in [0, 1] to [-1, 1] (Sec. B.2: mean 0.5, standard deviation 0.5): what is masked becomes mid grey.

    Example:
        >>> scaled(torch.tensor([0.0, 0.5, 1.0]))
        tensor([-1.,  0.,  1.])
    """
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

    Example:
        >>> split_image(torch.tensor([[[[1.0, -1.0]]]]), torch.tensor([[[[1.0, 0.25]]]]))
        (tensor([[[[ 1.0000, -0.2500]]]]), tensor([[[[ 0.0000, -0.7500]]]]))
    """
    fit = mask.shape == (images.shape[0], 1, *images.shape[2:])
    require(fit, f"mask must be [B, 1, H, W] for images {tuple(images.shape)}", tuple(mask.shape))
    return images * mask, images * (1 - mask)


def uniform_target(logits: Tensor) -> Tensor:
    """Eq. 5: q(y) = 1/c for every row of ``logits [B, c]``.

    Example:
        >>> uniform_target(torch.zeros(1, 4))
        tensor([[0.2500, 0.2500, 0.2500, 0.2500]])
    """
    return torch.full_like(logits, 1 / logits.shape[1])


def decided_loss(logits: Tensor, labels: Tensor, reduction: str = "none") -> Tensor:
    r"""Eq. 3 (on X+) and Eq. 8 (on X): :math:`-\log \hat p(y_i)` of each sample, ``[B]`` in [0, inf), or `reduced`.

    Raises:
        ValueError: fewer than two classes, labels that are not ``[B]`` int64, an unknown ``reduction``.

    Example:
        >>> decided_loss(torch.tensor([[4.0, 0.0], [4.0, 0.0]]), torch.tensor([0, 1]))
        tensor([0.0181, 4.0181])
    """
    _check_classes(logits)
    check_labels(labels, *logits.shape)
    return reduced(F.cross_entropy(wide(logits), labels, reduction="none"), reduction)


def undecided_loss(logits: Tensor, reduction: str = "none") -> Tensor:
    r"""Eq. 6 on X-: :math:`H(q, \hat p) = -\frac1c \sum_y \log \hat p(y) = \log c + KL(q \Vert \hat p)`, ``[B]``.

    Its minimum is log c, not 0, reached by the uniform distribution alone; the gradient with respect to the logits is
    softmax - 1/c and does not vanish where the classifier is sure.

    Raises:
        ValueError: fewer than two classes, an unknown ``reduction``.

    Example:
        >>> undecided_loss(torch.tensor([[0.0, 0.0], [4.0, 0.0]]))  # log 2, and more where C is sure
        tensor([0.6931, 2.0181])
    """
    _check_classes(logits)
    log_p = F.log_softmax(wide(logits), dim=1)  # log(softmax) would be -inf at a logit gap of 104 in float32
    return reduced(-log_p.mean(dim=1), reduction)


def _check_classes(logits: Tensor) -> None:
    fit = logits.ndim == 2 and logits.shape[1] >= 2
    require(fit, "logits must be [B, c] with c >= 2 (one class is never undecided)", tuple(logits.shape))


class MinMaxEntropy(Criterion):
    """Eq. 7: the classifier must know the class inside the mask and be undecided outside of it, with weights 1 and 1.

    Eq. 9 adds the localiser's own term, cross-entropy on the whole image. ``reduction``: see `base.reduced`.

    Example:
        >>> sure, unsure = torch.tensor([[4.0, 0.0]]), torch.tensor([[0.0, 0.0]])
        >>> criterion, labels = MinMaxEntropy(), torch.tensor([0])
        >>> criterion(sure, unsure, labels), criterion(unsure, sure, labels)  # the wrong way round
        (tensor(0.7113), tensor(2.7113))
    """

    def __init__(self, reduction: str = "mean"):
        super().__init__(reduction=reduction)

    def forward(self, inside_logits: Tensor, outside_logits: Tensor, labels: Tensor) -> Tensor:
        """``[B, c]`` on X+, ``[B, c]`` on X- and ``[B]`` int64: scalar, or ``[B]`` for "none"."""
        return decided_loss(inside_logits, labels, **self.options) + undecided_loss(outside_logits, **self.options)


# --- Eq. 10-11: the mask --------------------------------------------------------------------------------------------


def combined_map(maps: Tensor, logits: Tensor) -> Tensor:
    r"""Eq. 10: :math:`T = \sum_k \hat p^s(k|X)\, A(k)`. ``[B, c, h, w]`` and ``[B, c]`` to ``[B, 1, h, w]``.

    Raises:
        ValueError: maps and logits that do not belong together.

    Example:
        >>> combined_map(torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]]]]), torch.tensor([[3.0, 1.0]]).log())
        tensor([[[[0.7500, 0.2500]]]])
    """
    fit = maps.shape[:2] == logits.shape
    require(fit, f"maps must be [B, c, h, w] for logits {tuple(logits.shape)}", tuple(maps.shape))
    return torch.einsum("bk,bkhw->bhw", logits.softmax(dim=1), maps).unsqueeze(1)


def upsample(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear (corners aligned, as in the official code) by two matrix products, ``[B, 1, h, w] -> [B, 1, H, W]``.

    Equal to `F.interpolate`, but its backward is deterministic on every device, so that determinism is no reason to
    detach the mask (the paper's footnote 5).

    Example:
        >>> upsample(torch.tensor([[[[0.0, 1.0]]]]), (1, 5))
        tensor([[[[0.0000, 0.2500, 0.5000, 0.7500, 1.0000]]]])
    """
    rows, columns = (_resize_matrix(n, m, maps) for n, m in zip(maps.shape[-2:], size))
    return rows @ maps @ columns.T


def _resize_matrix(n: int, m: int, like: Tensor) -> Tensor:
    eye = torch.eye(n, dtype=like.dtype, device=like.device)
    return F.interpolate(eye.unsqueeze(0), size=m, mode="linear", align_corners=True)[0].T


def rescaled(maps: Tensor, over: str = "image") -> Tensor:
    """Maps ``[B, 1, H, W]`` to [0, 1] by their own minimum and maximum.

    A map that is constant up to the rounding of its values becomes 0 and has no gradient, which would have no bound.

    Args:
        over: "image" (each its own), "batch" (one minimum and maximum for all, as the official code trains), "none".

    Example:
        >>> rescaled(torch.tensor([[[[3.0, 4.0, 5.0]]], [[[7.0, 7.0, 7.0]]]])).flatten(1)
        tensor([[0.0000, 0.5000, 1.0000],
                [0.0000, 0.0000, 0.0000]])
    """
    if over == "none" or not len(maps):
        return maps
    dims = {"image": (1, 2, 3), "batch": (0, 1, 2, 3)}[over]
    low, high = maps.amin(dims, keepdim=True), maps.amax(dims, keepdim=True)
    number, spread = torch.finfo(maps.dtype), high - low
    rounding = (16 * number.eps * torch.maximum(low.abs(), high.abs())).clamp_min(number.tiny**0.5)
    flat = (spread <= rounding) & spread.isfinite()
    return torch.where(flat, 0, (maps - low) / torch.where(flat, 1, spread))


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

    Example:
        >>> maps, logits = torch.tensor([[[[0.0, 2.0]], [[0.0, 0.0]]]]), torch.zeros(1, 2)
        >>> MaskRule().apply(maps, logits, (1, 3))
        tensor([[[[0.0180, 0.5000, 0.9820]]]])
    """

    omega: float = 8.0
    threshold: float = 0.5
    over: str = "image"
    attach: bool = False

    def __post_init__(self) -> None:
        require(self.omega > 0, "omega must be positive", self.omega)
        require(self.over in ("image", "batch", "none"), "over must be image, batch or none", repr(self.over))

    def apply(self, maps: Tensor, logits: Tensor, size: Sequence[int]) -> Tensor:
        """``[B, c, h, w]`` and ``[B, c]`` to the soft mask R+ ``[B, 1, *size]``, float32 or wider, in [0, 1]."""
        if not self.attach:
            maps, logits = maps.detach(), logits.detach()
        with torch.autocast(maps.device.type, enabled=False):  # bfloat16 has 8 bits: trust and thresholds would flip
            raised = upsample(combined_map(wide(maps), wide(logits)), size)
            return torch.sigmoid(self.omega * (rescaled(raised, self.over) - self.threshold))


# --- Algorithm 1 ----------------------------------------------------------------------------------------------------


class MinMax(Method):
    """Eq. 9 with or without Algorithm 1: localiser M and classifier C trained together from image labels.

    Args:
        net: `nets.wildcat.LocaliserClassifier`: any trunk, and two heads on its maps.
        mask: Eq. 11.
        erasing: the recursion; None is the paper's "u = 0": the raw mask, no trust.
        classifier_scale: C's input as a share of the image side (0.5 in the official code; the paper does not say).

    Raises:
        ValueError: a network without localiser and classifier, ``classifier_scale`` outside (0, 1].

    Example:
        >>> from xai_course.nets.wildcat import minmax_head
        >>> trunk = torch.nn.Conv2d(3, 8, 3, stride=4)  # or nn.Sequential(*list(torchvision_resnet.children())[:-2])
        >>> method = MinMax(LocaliserClassifier(trunk, minmax_head(8, classes=2), minmax_head(8, classes=2)))
        >>> batch = Batch(torch.rand(2, 3, 32, 32), torch.tensor([0, 1]), None, torch.arange(2))
        >>> [list(terms) for terms in method.losses(batch, Clock())]
        [['localiser', 'trusted_0', 'total'], ['decided', 'undecided', 'entropy_gap', 'total']]
    """

    net: LocaliserClassifier
    needs = ("locate", "classify")
    cure = ": LocaliserClassifier(trunk, minmax_head(D, K), minmax_head(D, K)), trunk [B, 3, H, W] -> [B, D, h, w]"

    def __init__(
        self,
        net: LocaliserClassifier,
        mask: MaskRule | None = None,
        erasing: Erasing | None = None,
        classifier_scale: float = 1.0,
    ):
        require(0 < classifier_scale <= 1, "classifier_scale must lie in (0, 1]", classifier_scale)
        super().__init__(net)
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
        attached: list[Losses] = []
        for step in self.steps(images, labels, erasing):
            terms = self._localiser_terms(step, labels, erasing)
            if step.t == 0:
                raw, known = step.mask, step.trust > 0
            if terms and not self.rule.attach:
                yield terms  # the loop back-propagates here, which frees this step's graph
            elif terms:
                attached.append(terms)
        weight = known.float() if erasing is not None and erasing.untrusted == "drop" else None
        yield self._classifier_terms(images, labels, _shown(step.total, raw, erasing), weight, attached)

    def active(self, clock: Clock) -> Erasing | None:
        """The recursion's rule in this epoch; None before ``start_epoch`` and where there is none."""
        return self.erasing if self.erasing is not None and clock.epoch >= self.erasing.start_epoch else None

    def steps(self, images: Tensor, labels: Tensor, erasing: Erasing | None) -> Iterator[Step]:
        """What M finds in images in [-1, 1], step by step; without erasing one step, fully trusted."""
        if erasing is None:
            mask, logits = self.locate(images)
            yield Step(0, images, logits, mask, torch.ones(len(images), device=images.device), mask)
            return
        recursion = erase(self.locate, images, labels, erasing)
        yield next(recursion)
        with frozen_statistics(self.net if erasing.statistics == "first" else None):
            yield from recursion

    def _localiser_terms(self, step: Step, labels: Tensor, erasing: Erasing | None) -> Losses:
        """M's cross-entropy at one step over the images that teach it; empty where none does."""
        loss = decided_loss(step.logits, labels)
        trusted = step.trust > 0
        if erasing is not None and (erasing.teach == "box" or (erasing.teach == "trusted" and step.t > 0)):
            if not bool(trusted.any()):
                return {}
            loss = loss * trusted
        loss = reduced(loss)  # the mean over the whole batch, so that Algorithm 1's division by n holds
        return {"localiser": loss, f"trusted_{step.t}": reduced(trusted.float()), "total": loss}

    def _classifier_terms(
        self, images: Tensor, labels: Tensor, mask: Tensor, weight: Tensor | None, attached: list[Losses]
    ) -> Losses:
        """C's two entropies over the images that teach it, and with an attached mask M's terms of all steps."""
        inside, outside = split_image(images, mask)
        # two calls, not one of a doubled batch: BatchNorm would mix the statistics of X+ and X-
        inside_logits, outside_logits = self.judge(inside), self.judge(outside, role=2)
        decided, undecided = decided_loss(inside_logits, labels), undecided_loss(outside_logits)
        decided, undecided = (reduced(loss if weight is None else loss * weight) for loss in (decided, undecided))
        gap = math.log(outside_logits.shape[1]) - reduced(conditional_entropy(outside_logits.detach()))
        terms = {name: value for step in attached for name, value in step.items()}
        terms |= {"decided": decided, "undecided": undecided, "entropy_gap": gap, "total": decided + undecided}
        if attached:
            first, *others = (step["total"] for step in attached)
            terms["localiser"] = sum(others, first)
            terms["total"] = terms["total"] + terms["localiser"]
        return terms

    def split(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """M on images in [0, 1]: its logits ``[B, c]``, X+ and X-. No erasing, no label."""
        images = scaled(images)
        mask, logits = self.locate(images)
        return logits, *split_image(images, mask.to(images.dtype))

    def mine(self, images: Tensor, labels: Tensor, rule: str, depth: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Mask ``[B, 1, H, W]`` and trust ``[B]`` of each step on images in [0, 1], by a rule that trained or not."""
        for step in erase(self.locate, scaled(images), labels, Erasing(depth, rule=rule)):
            yield step.mask, step.trust

    def logits(self, images: Tensor) -> Tensor:
        """Class scores ``[B, c]`` of C on X+, what the paper's image error is measured on."""
        _, inside, _ = self.split(images)
        return self.judge(inside)

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
