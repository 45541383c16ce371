r"""Loss-Attention as a method on a network of patches, and the heads it is compared with.

Shi et al., IEEE TIP 30 (2021), Sec. V-B. All weigh the same patches, each by its own rule, which decides who receives
gradient: who speaks loudest (`loss_attention`), everybody alike (mean), whom a separate little network points at (Ilse,
Tomczak and Welling 2018), or whom the output capsules agree with (Sabour, Frosst and Hinton 2017).
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._require import require
from ..data.batch import Batch
from ..maps import normalise
from ..measure.patches import Attends
from ..nets.capsules import CapsuleNet, RoutingNet
from ..nets.patch_nets import MapPatches, PatchNet, patches_of
from ..preset import Clock, gaussian_ramp_up
from .base import Losses, Method, reduced, wide
from .loss_attention import Attended, LossBasedAttention, attended_logits, image_loss, patch_loss

#: Arguments of `LossAttention` as in the released convolutional code (its capsules share the ramp, not the cut).
OFFICIAL = {"cut_by": "map", "ramp_steepness": 5.0, "zero_first": True}


class PatchMethod(Method, Attends):
    r"""A network of patches, a rule that weighs them, and :math:`L = L_{image} + \gamma(\tau) L_{patch}` (Eqs. 9, 10).

    Args:
        net: `nets.patch_nets.PatchNet`, `nets.capsules.CapsuleNet`, or a classifier that `patches_of` can read.
        balance: :math:`\gamma_{max} \ge 0`; 0 leaves the patch term out, as the compared heads do.
        ramp: share of the run until gamma is full, the paper's 80 of 200 epochs; 0 switches the ramp off.
        ramp_steepness: 1 as printed (Sec. V-A: gamma starts at 0.368 of its maximum); the official code has 5 (0.0067)
            and, with ``zero_first``, 0 in epoch 0.
        detach_alpha: no gradient from the patch term into the weights.
        select_above: :math:`\xi`; a patch counts as selected when its weight exceeds ``select_above / M``.

    Raises:
        ValueError: a negative ``balance``, a ``ramp`` outside [0, 1], a network without patches.

    Example:
        >>> from xai_course.nets.patch_nets import patch_net
        >>> class Loudest(PatchMethod):
        ...     def attend(self, images):
        ...         logits = self.net.patch_logits(images)
        ...         weights = F.one_hot(logits.amax(2).argmax(1), logits.shape[1]).float()
        ...         return Attended(attended_logits(weights, logits), weights, logits)
        >>> method = Loudest(patch_net("small", 4, seed=0))
        >>> method.selected(method.attend(torch.rand(2, 3, 32, 32)).weights).sum(1)  # patches per image
        tensor([1, 1])
    """

    net: PatchNet | MapPatches | CapsuleNet

    def __init__(
        self,
        net: nn.Module,
        *,
        balance: float = 0.0,
        ramp: float = 80 / 200,
        ramp_steepness: float = 1.0,
        zero_first: bool = False,
        detach_alpha: bool = False,
        select_above: float = 0.0,
    ):
        super().__init__(patches_of(net))
        require(balance >= 0 and 0 <= ramp <= 1, "balance must not be negative and ramp lie in [0, 1]", balance, ramp)
        self.balance, self.ramp, self.ramp_steepness, self.zero_first = balance, ramp, ramp_steepness, zero_first
        self.detach_alpha, self.select_above = detach_alpha, select_above

    def gamma(self, clock: Clock) -> float:
        r""":math:`\gamma(\tau)` in the clock's epoch."""
        if self.zero_first and clock.epoch == 0:
            return 0.0
        return self.balance * gaussian_ramp_up(clock.epoch, self.ramp * clock.epochs, self.ramp_steepness)

    def losses(self, batch: Batch, clock: Clock) -> Iterator[Losses]:
        image, weights, patches = self.attend(batch.images)
        classification = image_loss(image, batch.labels)
        if not self.balance:
            yield {"classification": classification, "total": classification}
            return
        term = patch_loss(weights, patches, batch.labels, detach=self.detach_alpha)
        total = classification + self.gamma(clock) * term
        yield {"classification": classification, "patches": term, "total": total}

    def logits(self, images: Tensor) -> Tensor:
        return self.attend(images).image

    def selected(self, weights: Tensor) -> Tensor:
        """Which patches count as selected: ``[B, M]`` bool."""
        return weights > self.select_above / weights.shape[-1]

    def explain(self, images: Tensor, classes: Tensor, *, values: str = "weights") -> Tensor:
        r"""Heat map ``[B, H, W]`` in [0, 1]: a pixel has the mean value of the patches over it, divided by the maximum.

        Args:
            classes: ``[B]``; the paper's map ("weights", Fig. 4) does not depend on it: alpha is blind to the class.
            values: "weights" or "contributions", :math:`\alpha_m \max(p_{mk}, 0)`, ours.
        """
        _, weights, patches = self.attend(images)
        if values == "contributions":
            of_class = patches.gather(2, classes.view(-1, 1, 1).expand(-1, patches.shape[1], 1)).squeeze(2)
            weights = weights * of_class.relu()
        return normalise(self.net.paint(weights, images.shape[-2:]))


class LossAttention(PatchMethod):
    r"""Loss-Attention on a convolutional (Eq. 5) or capsule network (Eq. 6), trained by Eq. 9 or 10.

    Args:
        net: see `PatchMethod`.
        cutoff, norm: see `LossBasedAttention`.
        balance: :math:`\gamma_{max}`; further keywords of `PatchMethod` (`OFFICIAL` holds the official code's).
        cut_by: "patches" (:math:`\xi/M`, the paper) or "map" (the official convolutional code, 28 times weaker).
        patch_logits: of a capsule network, see `LossBasedAttention`.

    Raises:
        ValueError: ``cutoff`` outside [0, 1], an unknown choice, a network without patches.

    Example:
        >>> from xai_course.nets.convnets import small_cnn
        >>> method = LossAttention(small_cnn(4, seed=0), ramp=0)  # no patches of its own: each cell of the map is one
        >>> batch = Batch(torch.rand(2, 3, 32, 32), torch.tensor([0, 3]), None, torch.arange(2))
        >>> (terms,) = method.eval().losses(batch, Clock())
        >>> terms["total"] == LossBasedAttention()(method.net.patch_logits(batch.images), batch.labels)
        tensor(True)
    """

    def __init__(
        self,
        net: nn.Module,
        *,
        cutoff: float = 0.1,
        balance: float = 0.1,
        norm: str = "l2",
        cut_by: str = "patches",
        patch_logits: str = "sum",
        detach_alpha: bool = False,
        **keywords: Any,
    ):
        criterion = LossBasedAttention(cutoff, balance, norm, detach_alpha, capsules=patch_logits)
        require(cut_by in ("patches", "map"), "cut_by must be patches or map", repr(cut_by))
        super().__init__(net, balance=balance, detach_alpha=detach_alpha, **keywords)
        self.criterion, self.cut_by = criterion, cut_by

    def attend(self, images: Tensor) -> Attended:
        cells = self.net.map_cells(images.shape[-2:]) if self.cut_by == "map" else None
        return self.criterion.attend(self.net.patch_logits(images), cells)


class MeanPooling(PatchMethod):
    r"""Every patch weighs :math:`\alpha_m = 1/M`, so :math:`z` is the mean of the patch logits. No parameters.

    Example:
        >>> from xai_course.nets.patch_nets import patch_net
        >>> MeanPooling(patch_net("small", 4)).attend(torch.rand(2, 3, 32, 32)).weights.unique()  # 36 patches
        tensor([0.0278])
    """

    def attend(self, images: Tensor) -> Attended:
        logits = wide(self.net.patch_logits(images))
        weights = logits.new_full(logits.shape[:2], 1 / logits.shape[1])
        return Attended(logits.mean(1), weights, logits)


class AttentionScores(nn.Module):
    r"""Scores of patches from their features, :math:`w^T\tanh(Vh_m)` or gated
    :math:`w^T(\tanh(Vh_m)\odot\sigma(Uh_m))` (Ilse et al. 2018, Eqs. 8 and 9), with biases.

    Args:
        width: size of the features :math:`h`; hidden: rows of V and U; gated: with U.

    Example:
        >>> AttentionScores(8, gated=True)(torch.rand(2, 36, 8)).shape
        torch.Size([2, 36])
    """

    def __init__(self, width: int, hidden: int = 128, *, gated: bool = False):
        super().__init__()
        self.view = nn.Linear(width, hidden)
        self.gate = nn.Linear(width, hidden) if gated else None
        self.score = nn.Linear(hidden, 1)

    def forward(self, features: Tensor) -> Tensor:
        """``[B, M, C] -> [B, M]``."""
        view = self.view(features).tanh()
        if self.gate is not None:
            view = view * self.gate(features).sigmoid()
        return self.score(view).squeeze(-1)


class AttentionPooling(PatchMethod):
    r"""Softmax attention over patches: :math:`\alpha = s(\text{scores})`, :math:`z = \sum_m\alpha_m p_m`.

    The patch term of Eq. 9 is off (``balance=0``): the paper gives these heads "the same training procedure" without
    saying whether that includes the loss. ``balance=0.1`` is the other reading. A patch counts as selected when its
    weight exceeds :math:`\xi/M` with :math:`\xi` = 0.1 (Sec. V-D).

    Args:
        net: see `PatchMethod`, but no capsules; gated: Gated-Attention; hidden: see `AttentionScores`.
        keywords: of `PatchMethod`.

    Example:
        >>> from xai_course.nets.patch_nets import patch_net
        >>> method = AttentionPooling(patch_net("small", 4), gated=True)
        >>> image, weights, patches = method.attend(torch.rand(2, 3, 32, 32))
        >>> weights.shape, patches.shape, image.shape
        (torch.Size([2, 36]), torch.Size([2, 36, 4]), torch.Size([2, 4]))
    """

    net: PatchNet | MapPatches

    def __init__(
        self, net: nn.Module, *, gated: bool = False, hidden: int = 128, select_above: float = 0.1, **keywords: Any
    ):
        super().__init__(net, select_above=select_above, **keywords)
        self.scores = AttentionScores(self.net.head.in_features, hidden, gated=gated)

    def attend(self, images: Tensor) -> Attended:
        features = self.net.patch_features(images)
        weights = wide(self.scores(features)).softmax(-1)
        logits = wide(self.net.head(features))
        return Attended(attended_logits(weights, logits), weights, logits)


class Separate(Method):
    """Eq. 3 on any classifier without patches: a yes/no decision per class, summed over classes.

    Example:
        >>> method = Separate(nn.Sequential(nn.Flatten(), nn.Linear(12, 4)))
        >>> batch = Batch(torch.zeros(2, 3, 2, 2), torch.tensor([[1.0, 0, 0, 1], [0, 0, 0, 1]]), None, torch.arange(2))
        >>> [list(terms) for terms in method.losses(batch, Clock())]
        [['classification', 'total']]
    """

    def losses(self, batch: Batch, clock: Clock) -> Iterator[Losses]:
        loss = image_loss(self.net(batch.images), batch.labels)
        yield {"classification": loss, "total": loss}


# --- capsules that route ---------------------------------------------------------------------------------------------


def squash(vectors: Tensor) -> Tensor:
    r"""Shrink to a length below 1, :math:`\frac{\lVert s\rVert^2}{1+\lVert s\rVert^2}\frac{s}{\lVert s\rVert}`.

    Sabour et al. 2017, Eq. 1, over the last axis. Written as :math:`s\,\lVert s\rVert/(1+\lVert s\rVert^2)`: no
    division by a length that may be 0.

    Example:
        >>> squash(torch.tensor([[3.0, 0.0], [0.0, 0.1], [0.0, 0.0]]))
        tensor([[0.9000, 0.0000],
                [0.0000, 0.0099],
                [0.0000, 0.0000]])
    """
    length = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    return vectors * (length / (1 + length.square()))


def dynamic_routing(votes: Tensor, iterations: int = 3) -> Tensor:
    """Routing by agreement (Sabour et al. 2017, Procedure 1), each example on its own.

    Only the last iteration carries gradient; the earlier ones find the coupling coefficients.

    Args:
        votes: ``[B, N, K, D]``, what each of N input capsules predicts for each of K output capsules.
        iterations: at least 1.

    Returns:
        Output capsules ``[B, K, D]``, shorter than 1.

    Raises:
        ValueError: votes of another rank, or no iteration.

    Example:
        >>> votes = torch.tensor([[[[2.0, 0], [2, 0]], [[2, 0], [-2, 0]]]])  # two agree on the first output only
        >>> dynamic_routing(votes).norm(dim=2)
        tensor([[0.9376, 0.0000]])
    """
    fit = votes.ndim == 4 and iterations >= 1
    require(fit, "votes must be [B, N, K, D] and iterations >= 1", tuple(votes.shape), iterations)
    votes = wide(votes)
    fixed = votes.detach()
    agreement = votes.new_zeros(votes.shape[:3])
    for _ in range(iterations - 1):
        outputs = squash(torch.einsum("bnk,bnkd->bkd", agreement.softmax(2), fixed))
        agreement = agreement + torch.einsum("bkd,bnkd->bnk", outputs, fixed)
    return squash(torch.einsum("bnk,bnkd->bkd", agreement.softmax(2), votes))


def margin_loss(
    lengths: Tensor,
    labels: Tensor,
    *,
    above: float = 0.9,
    below: float = 0.1,
    absent: float = 0.5,
    reduction: str = "mean",
) -> Tensor:
    r"""Loss of capsule lengths (Sabour et al. 2017, Eq. 4), one or several classes present.

    .. math:: \sum_k y_k\max(0, m^+ - \ell_k)^2 + \lambda(1-y_k)\max(0, \ell_k - m^-)^2

    Args:
        lengths: ``[B, K]`` in [0, 1); labels: ``[B]`` int64 or ``[B, K]`` in {0, 1}.
        above, below, absent: :math:`m^+`, :math:`m^-`, :math:`\lambda`.
        reduction: over images, see `base.reduced`.

    Returns:
        Sum over classes, mean over images; ``[B]`` for "none".

    Example:
        >>> margin_loss(torch.tensor([[0.5, 0.3, 0.1], [0.9, 0.0, 0.0]]), torch.tensor([0, 0]), reduction="none")
        tensor([0.1800, 0.0000])
    """
    lengths = wide(lengths)
    present = F.one_hot(labels, lengths.shape[1]) if labels.ndim == 1 else labels
    present = present.to(lengths.dtype)
    missed, false = (above - lengths).relu().square(), (lengths - below).relu().square()
    return reduced((present * missed + absent * (1 - present) * false).sum(1), reduction)


class DynamicRouting(Method):
    """The capsule baseline: the lengths of routed capsules are the scores, trained by the margin loss.

    Args:
        net: `nets.capsules.RoutingNet`, ``votes(images) -> [B, N, K, D]``.
        iterations: of `dynamic_routing`.

    Raises:
        ValueError: a network without votes.

    Example:
        >>> from xai_course.nets.capsules import capsule_net
        >>> method = DynamicRouting(capsule_net("small", 4, routing=True, seed=0))
        >>> method.logits(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 4])
    """

    net: RoutingNet
    needs, cure = ("votes",), ", as capsule_net(..., routing=True) has"

    def __init__(self, net: RoutingNet, iterations: int = 3):
        super().__init__(net)
        self.iterations = iterations

    def logits(self, images: Tensor) -> Tensor:
        """Lengths ``[B, K]`` of the output capsules in [0, 1)."""
        return torch.linalg.vector_norm(dynamic_routing(self.net.votes(images), self.iterations), dim=-1)

    def losses(self, batch: Batch, clock: Clock) -> Iterator[Losses]:
        yield {"total": margin_loss(self.logits(batch.images), batch.labels)}
