r"""The family of explanation losses: a map, an annotation of where the network may look, one number to minimise.

Each is a criterion ``(maps, masks) -> loss`` over maps that carry their graph, whatever they are maps of: Grad-CAM,
class activation maps, input gradients, attention. With s the annotation and A a map enlarged to its size,

* `RelevantFocus`, :math:`\sum (I' (1 - s))^2`: ReFF, Adachi and Yamaguchi, ICME 2022, Eq. 3 (I' = A over its sum);
* `Energy`, :math:`\sum I' (1 - s)`: Rao, Böhle, Parchami-Araghi and Schiele, ICCV 2023, Eq. 6;
* `MatchingL1`, `MatchingL2`, :math:`\|I' - s\|`: what ReFF's supplement B compares with;
* `L1`, `PPCE`: Gao et al. 2022 (GRADIA) and Shen et al. 2021 (HAICS), as Rao et al. state them, Eq. 3 and 4;
* `RRR` and `right_reasons`: squares outside, Ross, Hughes and Doshi-Velez, IJCAI 2017, Eq. 1, and Rao et al., Eq. 5;
* `AttentionDistance`: the map loss of attention branch networks, Mitsuhara et al. 2021;

`consistency.AttentionConsistencyLoss` (Guo et al., CVPR 2019) needs no annotation, only the maps of a flipped view.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .._require import require
from ..maps import enlarge
from .base import wide
from .explanation_loss import ExplanationLoss, check_masks, peak_maps

# --- criteria on shares I' --------------------------------------------------------------------------------------------


class RelevantFocus(ExplanationLoss):
    r"""ReFF's squared norm outside the object, :math:`\|I' \odot (1 - s)\|_2^2` (Eq. 3).

    With m the outside share (`Energy`) and :math:`N = m^2 / \sum_p (I'_p(1-s_p))^2` the number of pixels over which it
    spreads, this is :math:`m^2 / N`: it levels the outside before it empties it.

    Example:
        >>> maps, masks = torch.tensor([[[1.0, 4.0], [6.0, 1.0]]]), torch.tensor([[[0, 1], [0, 0]]])
        >>> print(f"{RelevantFocus()(maps, masks):.4f} = 38/144")
        0.2639 = 38/144
    """

    strided = True

    def cost(self, maps: Tensor, masks: Tensor) -> Tensor:
        return (maps * (1 - masks)).square().sum(dim=(1, 2))


class Energy(ExplanationLoss):
    r"""The Energy loss, :math:`m = \sum_p I'_p (1 - s_p)` in [0, 1]: the share of the evidence outside.

    Rao et al. write it as minus the energy-based pointing game, :math:`-\mathrm{EPG} = m - 1` (Eq. 6), and program
    :math:`1 - \mathrm{EPG} = m`. Their code counts a dead map as 1, here it counts as 0. The share does not depend on
    the resolution, so every layer weighs 1.

    Example:
        >>> maps, masks = torch.tensor([[[1.0, 4.0], [6.0, 1.0]]]), torch.tensor([[[0, 1], [0, 0]]])
        >>> print(f"{Energy()(maps, masks):.4f} = 8/12")
        0.6667 = 8/12
    """

    def cost(self, maps: Tensor, masks: Tensor) -> Tensor:
        return (maps * (1 - masks)).sum(dim=(1, 2))


class MatchingL1(ExplanationLoss):
    r""":math:`\|I' - s\|_1` (ReFF, supplement B); for binary s it equals :math:`|s| - 1 + 2m`.

    Example:
        >>> maps, masks = torch.tensor([[[1.0, 4.0], [6.0, 1.0]]]), torch.tensor([[[0, 1], [0, 0]]])
        >>> print(f"{MatchingL1()(maps, masks):.4f} = 1 - 1 + 2 * 8/12")
        1.3333 = 1 - 1 + 2 * 8/12
    """

    strided = True

    def cost(self, maps: Tensor, masks: Tensor) -> Tensor:
        return (maps - masks).abs().sum(dim=(1, 2))


class MatchingL2(ExplanationLoss):
    r""":math:`\|I' - s\|_2^2` (ReFF, supplement B); for binary s it equals :math:`|s| - 2 + 2m + \|I'\|_2^2`.

    Example:
        >>> maps, masks = torch.tensor([[[1.0, 4.0], [6.0, 1.0]]]), torch.tensor([[[0, 1], [0, 0]]])
        >>> print(f"{MatchingL2()(maps, masks):.4f} = 1 - 2 + 2 * 8/12 + 54/144")
        0.7083 = 1 - 2 + 2 * 8/12 + 54/144
    """

    strided = True

    def cost(self, maps: Tensor, masks: Tensor) -> Tensor:
        return (maps - masks).square().sum(dim=(1, 2))


# --- criteria on maps over their peak ---------------------------------------------------------------------------------


class L1(ExplanationLoss):
    r"""The L1 loss of GRADIA, :math:`\frac1{HW} \sum_p |s_p - \hat A^+_p|`, map over its peak (Rao et al., Eq. 3).

    Wants the whole mask lit evenly and all else dark. Another loss than `MatchingL1`, whose maps are over their sum.

    Example:
        >>> maps, masks = torch.tensor([[[1.0, 4.0], [6.0, 1.0]]]), torch.tensor([[[0, 1], [0, 0]]])
        >>> print(f"{L1()(maps, masks):.4f} = (1/6 + 2/6 + 1 + 1/6) / 4")
        0.4167 = (1/6 + 2/6 + 1 + 1/6) / 4
    """

    prepare = staticmethod(peak_maps)

    def cost(self, maps: Tensor, masks: Tensor) -> Tensor:
        return (masks - maps).abs().mean(dim=(1, 2))


class PPCE(ExplanationLoss):
    r"""Per-pixel cross-entropy of HAICS, :math:`-\frac1{|s|} \sum_p s_p \log \hat A^+_p` (Rao et al., Eq. 4).

    Lights the mask and does not look outside. A cell of zero would cost infinitely much: it counts 100 without gradient
    (the limit in PyTorch's binary cross-entropy, which their code calls), and the logarithm is floored at 1e-12. An
    image whose mask is empty costs nothing.

    Example:
        >>> maps, masks = torch.tensor([[[1.0, 4.0], [6.0, 1.0]]]), torch.tensor([[[0, 1], [0, 0]]])
        >>> print(f"{PPCE()(maps, masks):.4f} = log(6/4)")
        0.4055 = log(6/4)
    """

    prepare = staticmethod(peak_maps)

    def cost(self, maps: Tensor, masks: Tensor) -> Tensor:
        logs = torch.where(maps <= 0, torch.full_like(maps, -100.0), maps.clamp_min(1e-12).log())  # NaN stays
        return -(masks * logs).sum(dim=(1, 2)) / masks.sum(dim=(1, 2)).clamp_min(1e-12)


class RRR(ExplanationLoss):
    r"""Right for the right reasons on any map: squares outside, :math:`\sum_p (1 - s_p)^2 A_p^2`, sign and all.

    Ross et al. square gradients of the summed log-probabilities: `right_reasons` is that loss. On an unscaled map the
    cheapest answer is a smaller map; ``peak=True`` is Rao et al.'s RRR*, which divides it by its largest absolute value
    (Eq. 5, printed with 1 - s unsquared: the same for binary s).

    Args:
        peak: divide each map by its largest absolute value.
        options: of `ExplanationLoss`.

    Example:
        >>> maps, masks = torch.tensor([[[1.0, 4.0], [-6.0, 1.0]]]), torch.tensor([[[0, 1], [0, 0]]])
        >>> RRR()(maps, masks).item()
        38.0
        >>> print(f"{RRR(peak=True)(maps, masks):.4f} = 38/36")
        1.0556 = 38/36
    """

    signed = True

    def __init__(self, *, peak: bool = False, **options: Any):
        super().__init__(**options)
        self.peak = self.options["peak"] = peak

    def prepare(self, maps: Tensor, size: Sequence[int]) -> tuple[Tensor, Tensor]:
        if self.peak:
            return peak_maps(maps, size)
        maps = enlarge(wide(maps), size)
        return maps, maps.abs().amax(dim=(1, 2)) <= 1e-20

    cost = RelevantFocus.cost


def right_reasons(logits: Tensor, images: Tensor, masks: Tensor) -> Tensor:
    r"""Ross et al. 2017, Eq. 1: :math:`\sum_d \bigl((1 - s_d) \, \partial_{x_d} \sum_k \log p_k\bigr)^2`, each image.

    Their A is 1 - s. They add the images up and search the weight of the term until it is as large as the
    cross-entropy (1000 in their experiments). The gradient stays differentiable: the network is differentiated twice.

    Args:
        logits: ``[B, K]``, computed from ``images``.
        images: ``[B, C, H, W]`` that required a gradient before the forward pass.
        masks: ``[B, H, W]`` in [0, 1], 1 where the network may look.

    Returns:
        ``[B]`` >= 0.

    Raises:
        ValueError: images without gradient, or masks that do not fit.

    Example:
        >>> images = torch.tensor([[[[1.0, 2.0]]]], requires_grad=True)
        >>> logits = images.flatten(1) @ torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> right_reasons(logits, images, torch.tensor([[[True, False]]])).detach()  # (1 - 2p)^2, p = 0.7311
        tensor([0.2136])
    """
    check_masks(masks, len(images))
    require(images.requires_grad, "images must require a gradient before the forward pass: images.requires_grad_()")
    (gradient,) = torch.autograd.grad(wide(logits).log_softmax(dim=1).sum(), images, create_graph=True)
    return (gradient * (1 - masks.to(gradient.dtype).unsqueeze(1))).square().sum(dim=(1, 2, 3))


# --- maps that are no shares ------------------------------------------------------------------------------------------


class AttentionDistance(ExplanationLoss):
    r"""Distance of an attention map M in [0, 1] to the annotation, mean of :math:`(M - s)^2` over the map's cells.

    Mitsuhara et al. 2021 (ABN's map loss, ReFF's supplement B) print :math:`\|M - s\|_2^2`; the mean does not depend on
    the size of the map. The annotation is brought to that size by averaging areas; the map is not scaled.

    Example:
        >>> attention, masks = torch.tensor([[[0.5, 0.0]]]), torch.tensor([[[1, 1, 0, 0]]])
        >>> AttentionDistance()(attention, masks).item()
        0.125
    """

    def prepare(self, maps: Tensor, size: Sequence[int]) -> tuple[Tensor, Tensor]:
        return wide(maps), torch.zeros(len(maps), dtype=torch.bool, device=maps.device)

    def cost(self, maps: Tensor, masks: Tensor) -> Tensor:
        target = F.adaptive_avg_pool2d(masks.unsqueeze(1), (maps.shape[1], maps.shape[2]))[:, 0]
        return (maps - target).square().mean(dim=(1, 2))


FAMILY: dict[str, Callable[..., ExplanationLoss]] = {
    "outside": RelevantFocus,
    "energy": Energy,
    "l1": MatchingL1,
    "l2": MatchingL2,
    "gradia": L1,
    "ppce": PPCE,
    "rrr": RRR,
    "rrr*": partial(RRR, peak=True),
}


def as_criterion(penalty: str | ExplanationLoss, weights: Sequence[float] | None = None) -> ExplanationLoss:
    """A criterion of the family by its name in `FAMILY`; a criterion itself is handed back.

    Raises:
        ValueError: an unknown name, or weights beside a criterion, which has its own.

    Example:
        >>> as_criterion("rrr*", weights=(1.0, 2.0))
        RRR(weights=(1.0, 2.0), relu=False, reduction='mean', peak=True)
    """
    if isinstance(penalty, ExplanationLoss):
        require(weights is None, f"weights must be given to the criterion itself, got {weights} beside {penalty}")
        return penalty
    require(penalty in FAMILY, f"penalty must be one of {', '.join(FAMILY)} or an ExplanationLoss", repr(penalty))
    return FAMILY[penalty](weights=weights)
