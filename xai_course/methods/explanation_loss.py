"""What the explanation losses share: how a map is scaled, one term for each layer, dead maps, the reduction."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .._require import require
from ..maps import enlarge, unit_mass
from .base import REDUCTIONS, Criterion, full_precision, reduced, wide


class Focus(NamedTuple):
    """A loss and what one must watch beside it: per-layer terms ``[L]`` and shares of dead maps ``[L]``."""

    loss: Tensor
    layers: Tensor
    dead: Tensor


def normalised_shares(maps: Tensor, size: Sequence[int]) -> tuple[Tensor, Tensor]:
    r"""Normalised explanations :math:`I'_l = I_l / \|I_l\|_1` at the size of the annotation (ReFF, Section 3.1).

    Resized first, divided afterwards: only then does each map sum to one over the annotation's pixels.

    Args:
        maps: ``[B, h, w]`` >= 0, any float dtype; computed in float32 at least (:math:`I'^2` underflows in half).
        size: ``(H, W)`` of the annotation.

    Returns:
        ``[B, H, W]`` that sum to 1 each, and ``[B]`` bool: True for a dead (all-zero) map, whose shares are zero with
        zero gradient instead of 0/0.

    Example:
        >>> shares, dead = normalised_shares(torch.tensor([[[1.0, 3.0]], [[0.0, 0.0]]]), (1, 2))
        >>> shares.tolist(), dead.tolist()
        ([[[0.25, 0.75]], [[0.0, 0.0]]], [False, True])
    """
    return unit_mass(enlarge(wide(maps), size))


def peak_maps(maps: Tensor, size: Sequence[int]) -> tuple[Tensor, Tensor]:
    r"""Maps at the size of the annotation over their largest absolute value, Rao et al.'s :math:`\hat A`, in [-1, 1].

    Enlarged first, as their text has it; their code divides first. The peak carries its gradient.

    Args:
        maps: ``[B, h, w]``, with their sign. size: ``(H, W)`` of the annotation.

    Returns:
        ``[B, H, W]`` and ``[B]`` bool: dead maps, which stay zero with zero gradient.

    Example:
        >>> peak_maps(torch.tensor([[[1.0, -4.0]]]), (1, 2))[0].tolist()
        [[[0.25, -1.0]]]
    """
    maps = enlarge(wide(maps), size)
    peak = maps.abs().amax(dim=(1, 2), keepdim=True)
    dead = peak <= 1e-20
    scaled = maps / torch.where(dead, torch.ones_like(peak), peak)
    return torch.where(dead, torch.zeros_like(scaled), scaled), dead[:, 0, 0]


class ExplanationLoss(Criterion):
    r"""What the family shares: :math:`\sum_l w_l \, \mathrm{cost}(I_l, s)` for each image, then ``reduction``.

    A subclass says how a map is scaled (`prepare`) and what it costs (`cost`). A dead map costs nothing, has zero
    gradient, and is counted in `look`: it is an escape to be watched. An annotation that covers the whole image says
    nothing: its image costs nothing, and so a data set marks images that nobody annotated.

    Args:
        weights: :math:`w_l` >= 0, one for each layer; None for 1, or the squared strides where ``strided`` says so.
        relu: cut negative evidence first. Without it signed maps are refused (where reading values would stall a GPU
            the loss becomes NaN instead); criteria that are ``signed`` take them as they are.
        reduction: over the images: "mean", "sum" or "none" (a loss ``[B]``).

    Raises:
        ValueError: unknown reduction; in a call, maps or masks of another shape, weights that do not fit, an empty
            batch, masks outside [0, 1], or negative maps.

    Example:
        >>> class Peak(ExplanationLoss):
        ...     def cost(self, maps, masks):
        ...         return (maps * (1 - masks)).amax(dim=(1, 2))
        >>> maps, masks = torch.tensor([[[3.0, 1.0]]]), torch.tensor([[[True, False]]])
        >>> Peak(reduction="none")(maps, masks)
        tensor([0.2500])
    """

    signed = False
    strided = False

    def __init__(self, *, weights: Sequence[float] | None = None, relu: bool = False, reduction: str = "mean"):
        super().__init__(weights=weights, relu=relu, reduction=reduction)
        require(reduction in REDUCTIONS, f"reduction must be one of {', '.join(REDUCTIONS)}", repr(reduction))
        self.weights, self.relu, self.reduction = weights, relu, reduction

    def prepare(self, maps: Tensor, size: Sequence[int]) -> tuple[Tensor, Tensor]:
        """The scaled maps that `cost` reads and which of them are dead, ``[B, h, w] -> [B, H, W], [B]``."""
        return normalised_shares(maps, size)

    def cost(self, maps: Tensor, masks: Tensor) -> Tensor:
        """Prepared maps and masks in the same dtype, ``[B, H, W]`` twice ``-> [B]``."""
        raise NotImplementedError(f"{type(self).__name__} must define cost(maps, masks)")

    def forward(self, maps: Tensor | Sequence[Tensor], masks: Tensor) -> Tensor:
        """The loss of maps ``[B, h, w]``, one for each layer or a single tensor, under ``masks [B, H, W]`` in [0, 1].

        1 (True) is where the network may look; soft masks are allowed.
        """
        return self.look(maps, masks).loss

    def look(self, maps: Tensor | Sequence[Tensor], masks: Tensor) -> Focus:
        """The loss, the unweighted mean of each layer's term, and the share of each layer's maps that are dead."""
        layers = [maps] if isinstance(maps, Tensor) else list(maps)
        shapes = [tuple(each.shape) for each in layers]
        fit = layers and all(len(s) == 3 and s[0] == shapes[0][0] >= 1 for s in shapes)
        require(fit, "maps must be one or more [B, h, w] with one B >= 1", shapes)
        check_masks(masks, len(layers[0]))
        weights = self._layer_weights(layers, masks.shape[1:])
        with full_precision(masks):
            costs, dead = zip(*(self._term(self._checked(each), masks) for each in layers))
            first, *others = [w * reduced(cost, self.reduction) for w, cost in zip(weights, costs)]
            loss = sum(others, first)
        of_layers = torch.stack([cost.mean() for cost in costs]).detach()
        return Focus(loss, of_layers, torch.stack([share.float().mean() for share in dead]))

    def _term(self, maps: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        if maps.shape == masks.shape or not maps.requires_grad:
            return self._layer(maps, masks)
        # recomputed in the backward pass: the maps are small, their enlargements to the size of the image are not
        return checkpoint(self._layer, maps, masks, use_reentrant=False, preserve_rng_state=False)

    def _layer(self, maps: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        maps, dead = self.prepare(maps.relu() if self.relu else maps, masks.shape[1:])
        cost, unknown = self.cost(maps, masks.to(maps.dtype)), masks.flatten(1).amin(1) == 1
        return torch.where(dead | unknown, torch.zeros_like(cost), cost), dead

    def _checked(self, maps: Tensor) -> Tensor:
        if self.signed or self.relu:
            return maps
        if maps.device.type != "cpu":
            return maps.masked_fill(maps < 0, torch.nan)
        low, kind = maps.min().item(), type(self).__name__
        got = f"got values down to {low:.3g}: relu=True cuts negative evidence"
        require(not low < 0, f"maps must be >= 0 for {kind}, {got}")
        return maps

    def _layer_weights(self, maps: Sequence[Tensor], size: Sequence[int]) -> Sequence[float]:
        if self.weights is None:
            return squared_strides(maps, size) if self.strided else [1.0] * len(maps)
        check_weights(self.weights, len(maps))
        return self.weights


def squared_strides(maps: Sequence[Tensor], size: Sequence[int]) -> list[float]:
    r"""The squared stride :math:`HW / (h_l w_l)` of each layer, which makes squared norms of different layers alike.

    Nearest upsampling spreads each cell's share over stride² pixels and so divides the squared norm by stride²; this
    weight undoes exactly that. ReFF's grid-searched (15, 60, 250, 1000) are (4, 8, 16, 32)² rounded.

    Example:
        >>> squared_strides([torch.zeros(1, n, n) for n in (56, 28, 14, 7)], (224, 224))
        [16.0, 64.0, 256.0, 1024.0]
    """
    return [size[0] * size[1] / (each.shape[1] * each.shape[2]) for each in maps]


def check_weights(weights: Sequence[float], layers: int) -> None:
    """Refuses other than one number >= 0 for each layer.

    Example:
        >>> check_weights((1.0, 2.0), layers=2)
    """
    fit = len(weights) == layers and all(w >= 0 for w in weights)
    require(fit, f"weights must hold one number per layer ({layers}), each >= 0", tuple(weights))


def check_masks(masks: Tensor, batch: int) -> None:
    """Raises ValueError unless ``masks`` is ``[batch, H, W]`` within [0, 1] (values are read on the CPU only).

    Example:
        >>> check_masks(torch.full((1, 2, 2), 2.0), batch=1)
        Traceback (most recent call last):
        ValueError: masks must lie in [0, 1], got values from 2 to 2
    """
    require(masks.ndim == 3 and len(masks) == batch and masks.numel(), f"masks must be [{batch}, H, W]", masks)
    if masks.device.type != "cpu" or masks.dtype == torch.bool:  # elsewhere the look would stall the device
        return
    low, high = masks.min().item(), masks.max().item()
    require(0 <= low <= high <= 1, f"masks must lie in [0, 1], got values from {low:.3g} to {high:.3g}")
