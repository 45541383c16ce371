"""Relevant feature focusing (ReFF): a penalty on the network's own Grad-CAM outside the object.

Adachi and Yamaguchi, ICME 2022 (arXiv 2202.04237). Symbols: maps I_l, annotation s, layer weights w_l, ``balance``
for lambda. Eq. 1 and 2 (Grad-CAM and its channel weights) live in `xai_course.maps`, Eq. 3 and the whole objective
here, Eq. 4 and Algorithm 1 here and in `pseudo_annotator`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..data.batch import Batch
from ..maps import BATCH_NORM, GradCam, enlarge, grad_cam, normalise, unit_mass
from ..preset import Clock
from .base import Losses, Method, classification_loss

PAPER_WEIGHTS = (15.0, 60.0, 250.0, 1000.0)  # Section 4.2, ResNet-50's layer1..layer4 at 224 pixels


class Focus(NamedTuple):
    """The regulariser and what one must watch beside it: per-layer terms ``[L]`` and shares of dead maps ``[L]``."""

    loss: Tensor
    layers: Tensor
    dead: Tensor


def shares(maps: Tensor, size: Sequence[int]) -> tuple[Tensor, Tensor]:
    r"""Normalised explanations :math:`I'_l = I_l / \|I_l\|_1` at the size of the annotation (Section 3.1).

    Resized first, divided afterwards: only then does each map sum to one over the annotation's pixels.

    Args:
        maps: ``[B, h, w]`` >= 0, any float dtype; computed in float32 at least (:math:`I'^2` underflows in half).
        size: ``(H, W)`` of the annotation.

    Returns:
        ``[B, H, W]`` that sum to 1 each, and ``[B]`` bool: True for a dead (all-zero) map, whose shares are zero with
        zero gradient instead of 0/0.
    """
    maps = maps.to(torch.promote_types(maps.dtype, torch.float32))
    unit = unit_mass(enlarge(maps, size))
    return unit.maps, unit.dead


def outside_norm(shares: Tensor, relevant: Tensor) -> Tensor:
    r"""Squared norm outside the object, :math:`\|I' \odot (1 - s)\|_2^2` of Eq. 3. ``[B, H, W]`` twice -> ``[B]``."""
    return (shares * (1 - relevant)).square().sum(dim=(1, 2))


def outside_mass(shares: Tensor, relevant: Tensor) -> Tensor:
    r"""Share of the explanation outside the object, :math:`m = \sum_p I'_p (1 - s_p)` in [0, 1]; ours, not the paper's.

    With :math:`N = (\sum_p I'_p(1-s_p))^2 / \sum_p (I'_p(1-s_p))^2`, the number of pixels over which the outside part
    spreads, the paper's penalty is :math:`m^2 / N`. Its pull on the mass is weaker than the linear one by the factor
    :math:`N / 2m`: hundreds where the cue is a texture that fills the background, about one where it is a single spot.
    """
    return (shares * (1 - relevant)).sum(dim=(1, 2))


def matching_l1(shares: Tensor, relevant: Tensor) -> Tensor:
    r""":math:`\|I' - s\|_1` (supplement B); for binary s it equals :math:`|s| - 1 + 2m`. ``[B]``."""
    return (shares - relevant).abs().sum(dim=(1, 2))


def matching_l2(shares: Tensor, relevant: Tensor) -> Tensor:
    r""":math:`\|I' - s\|_2^2` (supplement B); for binary s it equals :math:`|s| - 2 + 2m + \|I'\|_2^2`. ``[B]``."""
    return (shares - relevant).square().sum(dim=(1, 2))


PENALTIES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "outside": outside_norm,
    "energy": outside_mass,
    "l1": matching_l1,
    "l2": matching_l2,
}


def layer_weights(maps: Sequence[Tensor], size: Sequence[int], penalty: str = "outside") -> list[float]:
    r"""Default :math:`w_l`, one for each layer: the squared stride :math:`HW / (h_l w_l)`, and 1 for the Energy loss.

    Nearest upsampling spreads each cell's share over stride² pixels and so divides the squared norm by stride²; the
    weight undoes exactly this. The paper's grid-searched (15, 60, 250, 1000) are (4, 8, 16, 32)² rounded. The mass does
    not depend on the resolution.
    """
    return [1.0 if penalty == "energy" else size[0] * size[1] / (m.shape[1] * m.shape[2]) for m in maps]


def focusing_loss(
    maps: Sequence[Tensor], relevant: Tensor, weights: Sequence[float] | None = None, penalty: str = "outside"
) -> Focus:
    r"""Eq. 3 (and, with generated annotations, Eq. 4) with several layers.

    .. math:: \mathcal L = \frac1B \sum_b \sum_l w_l \, \| I'_l \odot (1 - s) \|_2^2

    Args:
        maps: one ``[B, h_l, w_l]`` per layer, non-negative Grad-CAMs that still carry their graph.
        relevant: ``[B, H, W]`` in [0, 1], 1 where the network may look; soft values are allowed.
        weights: one :math:`w_l` per layer; None for `layer_weights`.
        penalty: "outside" (the paper), "energy" (linear, ours), "l1" or "l2" (supplement B).

    Returns:
        A scalar >= 0, mean over the batch; the unweighted per-layer terms; per layer the share of dead maps, which cost
        nothing and learn nothing: an escape to be watched.

    Raises:
        ValueError: unknown penalty, shapes or weights that do not fit, an empty batch, annotations outside [0, 1].
    """
    if penalty not in PENALTIES:
        raise ValueError(f"penalty must be one of {sorted(PENALTIES)}, got {penalty!r}")
    if weights is not None and (len(weights) != len(maps) or not all(w >= 0 for w in weights)):
        raise ValueError(f"weights must hold one number per layer ({len(maps)}), each >= 0, got {tuple(weights)}")
    if not maps or any(each.ndim != 3 or not len(each) or len(each) != len(maps[0]) for each in maps):
        got = [tuple(each.shape) for each in maps]
        raise ValueError(f"maps must be one or more [B, h, w] with one B >= 1, got {got}")
    check_relevant(relevant, len(maps[0]))
    size = relevant.shape[1:]
    scale = layer_weights(maps, size, penalty) if weights is None else weights

    def term(each: Tensor) -> tuple[Tensor, Tensor]:
        share, empty = shares(each, size)
        cost = PENALTIES[penalty](share, relevant.to(share.dtype))
        return torch.where(empty, torch.zeros_like(cost), cost).mean(), empty.float().mean()

    with torch.autocast(relevant.device.type, enabled=False):
        # recomputed in the backward pass: the maps are small, their enlargements to the size of the image are not
        found = [checkpoint(term, each, use_reentrant=False, preserve_rng_state=False) for each in maps]
        terms, dead = zip(*found)
        loss = sum(w * cost for w, cost in zip(scale, terms))
    return Focus(loss, torch.stack(terms).detach(), torch.stack(dead))


def check_relevant(relevant: Tensor, batch: int) -> None:
    """Raises ValueError unless ``relevant`` is ``[batch, H, W]`` within [0, 1] (values are read on the CPU only)."""
    if relevant.ndim != 3 or len(relevant) != batch or not relevant.numel():
        raise ValueError(f"relevant must be [{batch}, H, W], got {tuple(relevant.shape)}")
    if relevant.device.type != "cpu" or relevant.dtype == torch.bool:  # elsewhere the look would stall the device
        return
    low, high = relevant.min().item(), relevant.max().item()
    if not 0 <= low <= high <= 1:
        raise ValueError(f"relevant must lie in [0, 1], got values from {low:.3g} to {high:.3g}")


def own_masks(batch: Batch) -> Tensor:
    """The data set's masks as annotations ``[B, H, W]`` float32: every image is annotated.

    Raises:
        ValueError: the data set has no masks.
    """
    if batch.masks is None:
        raise ValueError("masks must be [B, H, W] for ReFF, got None: use a data set with masks or a pseudo-annotator")
    return batch.masks.float()


class ReFF(Method):
    r"""Classification loss plus the focusing loss, :math:`\mathcal L_{main} + \lambda \mathcal L_{ReFF}`.

    Gradients are taken with respect to feature maps only, once for all layers, and the loop calls backward once.

    Args:
        net: a classifier with logits ``[B, K]``.
        layers: names of the modules whose outputs are explained, low to high.
        weights: :math:`w_l`; None for squared strides (`layer_weights`), the paper's own as `PAPER_WEIGHTS`.
        balance: :math:`\lambda`.
        penalty: "outside" (the paper), "energy", "l1", "l2".
        annotations: ``batch -> [B, H, W]`` in [0, 1]; default the data set's masks, `MixedAnnotations` for Algorithm 1.
        ramp: :math:`\lambda` rises linearly from 0 over this share of the run; 0 switches the ramp off. A ramp lets
            the shortcut be learned first.
        batch_norm: "keep" explains the training forward (BatchNorm then mixes the samples of a batch into each other's
            maps); "frozen" explains a second forward with running statistics, exact per sample and dearer.

    Raises:
        ValueError: an option outside its range.
    """

    def __init__(
        self,
        net: nn.Module,
        layers: Sequence[str],
        *,
        weights: Sequence[float] | None = None,
        balance: float = 1.0,
        penalty: str = "outside",
        annotations: Callable[[Batch], Tensor] = own_masks,
        ramp: float = 0.0,
        batch_norm: str = "keep",
    ):
        super().__init__(net)
        check_options(net, layers, weights, balance, penalty, ramp, batch_norm)
        self.layers, self.weights, self.balance, self.penalty = tuple(layers), weights, balance, penalty
        self.annotations, self.ramp, self.batch_norm = annotations, ramp, batch_norm

    def focus(self, batch: Batch) -> tuple[Focus, Tensor]:
        """The focusing loss of a batch and the logits ``[B, K]`` of the training forward.

        Raises:
            ValueError: multi-label batches (which class to explain is not defined), or missing masks.
        """
        if batch.labels.ndim != 1:
            raise ValueError(f"labels must be [B] int64 for ReFF, got {tuple(batch.labels.shape)}")
        relevant = self.annotations(batch)
        if self.batch_norm == "keep":
            maps, logits = self.cams(batch, "keep")
        else:
            logits = self.net(batch.images)
            maps, _ = self.cams(batch, "frozen")
        return focusing_loss(maps, relevant, self.weights, self.penalty), logits

    def cams(self, batch: Batch, batch_norm: str) -> GradCam:
        """Grad-CAM of the true classes at all layers, differentiable; and the logits of the same forward.

        Raises:
            ValueError: the logits carry no gradient (an argmax, a detach, a rounding on the way).
        """
        try:
            return grad_cam(self.net, batch.images, batch.labels, self.layers, create_graph=True, batch_norm=batch_norm)
        except RuntimeError as error:
            if "does not require grad" not in str(error):
                raise
            kind = type(self.net).__name__
            raise ValueError(
                f"net must lead to its logits by differentiable operations, got {kind}: {error}"
            ) from error

    def current_balance(self, clock: Clock) -> float:
        """:math:`\\lambda` at this step: the ramp, then constant."""
        done = (clock.step + 1) / (clock.epochs * clock.steps_per_epoch)
        return self.balance * (min(1.0, done / self.ramp) if self.ramp else 1.0)

    def losses(self, batch: Batch, clock: Clock) -> Iterator[Losses]:
        focus, logits = self.focus(batch)
        main = classification_loss(logits, batch.labels)
        terms = {"total": main + self.current_balance(clock) * focus.loss, "classification": main.detach()}
        terms["focusing"] = focus.loss.detach()
        for name, dead in zip(self.layers, focus.dead):
            terms[f"dead {name}"] = dead
        yield terms

    def explain(self, images: Tensor, classes: Tensor) -> Tensor:
        """Grad-CAM of the last named layer for ``classes [B]``: ``[B, H, W]`` in [0, 1]."""
        maps, _ = grad_cam(self.net, images, classes, self.layers[-1:])
        return normalise(enlarge(maps[0], images.shape[-2:]))


def check_options(net, layers, weights, balance, penalty, ramp, batch_norm) -> None:
    """Raises ValueError naming the first option of `ReFF` that is out of range."""
    inner = net.module if isinstance(net, nn.parallel.DistributedDataParallel) else net
    valid = [name for name, _ in inner.named_modules() if name]
    unknown = [name for name in layers if name not in valid]
    if unknown or not layers:
        raise ValueError(f"layers must name modules of the network ({', '.join(valid)}), got {list(layers)}")
    if weights is not None and (len(weights) != len(layers) or min(weights) < 0):
        raise ValueError(f"weights must hold {len(layers)} numbers >= 0, one per layer, got {tuple(weights)}")
    if not (balance >= 0 and 0 <= ramp <= 1):
        raise ValueError(f"balance must be >= 0 and ramp lie in [0, 1], got {balance} and {ramp}")
    if penalty not in PENALTIES:
        raise ValueError(f"penalty must be one of {sorted(PENALTIES)}, got {penalty!r}")
    if batch_norm not in BATCH_NORM:
        raise ValueError(f"batch_norm must be one of {BATCH_NORM}, got {batch_norm!r}")
