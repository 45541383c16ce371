"""The losses HNC's Table 1 compares with, and controls: functions on logits first, then thin methods.

Angular margins (A-Softmax, LMC, AAM) come from pytorch-metric-learning, an optional extra. The others have no kept-up
library form that is what the paper means: torchvision's focal loss is one sigmoid per class, for detectors.
Label smoothing is `base.CrossEntropy`; the level-only and shape-only controls are penalties of `hnc.HNC`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data.batch import Batch
from ..maps import class_activation_map, enlarge, gap_head, normalise
from ..preset import Clock
from .base import Losses, Method
from .hnc import HNC

# --- losses on logits [B, n] and labels [B] int64: scalar means -------------------------------------------------------


def focal_loss(logits: Tensor, labels: Tensor, gamma: float = 2.0, weight: Tensor | None = None) -> Tensor:
    r"""Softmax focal loss (Lin et al. 2017, Eq. 4), :math:`-w_y (1 - p_y)^\gamma \log p_y`, mean over the batch.

    Args:
        gamma: 0 gives cross-entropy.
        weight: ``[n]`` per class, None for all ones; see `class_balanced_weights`.
    """
    log_p = F.log_softmax(logits, dim=1).gather(1, labels[:, None])[:, 0]
    # 1 - p as -expm1(log p): exact where p is near 1. The floor keeps the power's derivative finite at p = 1.
    loss = -((-log_p.expm1()).clamp_min(1e-12) ** gamma) * log_p
    return (loss if weight is None else loss * weight[labels]).mean()


def class_balanced_weights(counts: Tensor, beta: float = 0.9999) -> Tensor:
    r"""Inverse effective numbers :math:`(1-\beta)/(1-\beta^{n_c})` (Cui et al. 2019), scaled to sum to n.

    ``counts [n]`` images per class, at least 1 each. Equal counts give all ones: on CIFAR-100 CB focal *is* focal.
    """
    if not 0 <= beta < 1 or not (counts >= 1).all():
        raise ValueError(f"counts must be at least 1 and beta in [0, 1), got {counts.tolist()} and {beta}")
    weight = (1 - beta) / (1 - beta ** counts.double())
    return (weight / weight.sum() * len(counts)).float()


def sigmoid_focal_loss(logits: Tensor, labels: Tensor, gamma: float = 2.0, weight: Tensor | None = None) -> Tensor:
    """One binary focal term per class, as the class-balanced reference code has it; sum over classes, mean over B."""
    targets = F.one_hot(labels, logits.shape[1]).to(logits.dtype)
    binary = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    wrong = torch.where(targets > 0, -logits, logits)  # probability of the wrong answer is its sigmoid
    terms = (gamma * F.logsigmoid(wrong)).exp() * binary
    return (terms if weight is None else terms * weight[labels][:, None]).sum(dim=1).mean()


def anchor_loss(logits: Tensor, labels: Tensor, gamma: float = 0.5, slack: float = 0.05) -> Tensor:
    r"""Anchor loss (Ryou et al. 2019): sigmoid cross-entropy whose background terms grow where they near the target.

    .. math:: -\log q_y - \sum_{o \ne y} (1 + q_o - q_*)^\gamma \log(1 - q_o), \qquad q_* = \max(q_y - \delta, 0)

    The anchor :math:`q_*` carries no gradient. Summed over classes, mean over the batch.
    """
    targets = F.one_hot(labels, logits.shape[1]).to(logits.dtype)
    q = logits.sigmoid()
    anchor = (q.gather(1, labels[:, None]) - slack).clamp_min(0).detach()
    scale = torch.where(targets > 0, torch.ones_like(q), (1 + q - anchor) ** gamma)
    return (scale * F.binary_cross_entropy_with_logits(logits, targets, reduction="none")).sum(dim=1).mean()


def negative_entropy(logits: Tensor) -> Tensor:
    r"""Confidence penalty (Pereyra et al. 2017), :math:`\sum_o p_o \log p_o`, mean over the batch, in [-log n, 0]."""
    log_p = F.log_softmax(logits, dim=1)
    return (log_p.exp() * log_p).sum(dim=1).mean()


# --- losses on pooled features ----------------------------------------------------------------------------------------


def center_loss(embeddings: Tensor, labels: Tensor, centers: Tensor) -> Tensor:
    r"""Wen et al. 2016, Eq. 2, :math:`\frac12 \|x - c_y\|^2`, mean over the batch (they print the sum)."""
    return 0.5 * (embeddings - centers[labels]).square().sum(dim=1).mean()


@torch.no_grad()
def move_centers(centers: Tensor, embeddings: Tensor, labels: Tensor, rate: float = 0.5) -> None:
    r"""Wen et al. 2016, Eq. 4, in place: :math:`c_j \gets c_j - \alpha \sum_{y_i=j}(c_j - x_i) / (1 + N_j)`."""
    members = F.one_hot(labels, len(centers)).to(embeddings.dtype).T
    count = members.sum(dim=1, keepdim=True)
    centers.sub_(rate * ((count * centers - members @ embeddings) / (1 + count)).to(centers.dtype))


def gaussian_logits(embeddings: Tensor, means: Tensor) -> Tensor:
    r"""L-GM (Wan et al. 2018) with identity covariance: :math:`-\frac12\|x-\mu_o\|^2`, ``[B, c], [n, c] -> [B, n]``."""
    cross = embeddings @ means.T
    return cross - 0.5 * embeddings.square().sum(dim=1, keepdim=True) - 0.5 * means.square().sum(dim=1)


# --- methods ----------------------------------------------------------------------------------------------------------


class LogitLoss(Method):
    """Trains with one function of logits and labels, after ``warm_up`` epochs of cross-entropy.

    Args:
        loss: ``(logits, labels) -> scalar``, such as `focal_loss`, or a partial of it.
        warm_up: 5 for `anchor_loss` (its official code).
    """

    def __init__(self, net: nn.Module, loss: Callable[[Tensor, Tensor], Tensor], *, warm_up: int = 0):
        super().__init__(net)
        self.loss, self.warm_up = loss, warm_up

    def losses(self, batch: Batch, clock: Clock) -> Iterator[Losses]:
        rule = F.cross_entropy if clock.epoch < self.warm_up else self.loss
        yield {"total": rule(self.net(batch.images), batch.labels)}


class ConfidencePenalty(Method):
    """Cross-entropy plus ``balance`` times `negative_entropy`: a control for HNC that never looks at a map."""

    def __init__(self, net: nn.Module, balance: float = 0.1):
        super().__init__(net)
        if not balance >= 0:
            raise ValueError(f"balance must be at least 0, got {balance}")
        self.balance = balance

    def losses(self, batch: Batch, clock: Clock) -> Iterator[Losses]:
        logits = self.net(batch.images)
        answer, penalty = F.cross_entropy(logits, batch.labels), negative_entropy(logits)
        yield {"classification": answer, "negative_entropy": penalty, "total": answer + self.balance * penalty}


class Center(Method):
    """Cross-entropy plus ``balance`` times `center_loss` on the pooled features; centres follow their class."""

    def __init__(self, net: nn.Module, balance: float = 0.003, rate: float = 0.5):
        super().__init__(net)
        head = gap_head(net)
        self.balance, self.rate = balance, rate
        self.register_buffer("centers", torch.zeros(head.out_features, head.in_features))

    def losses(self, batch: Batch, clock: Clock) -> Iterator[Losses]:
        embeddings = self.net.embed(batch.images)
        answer = F.cross_entropy(self.net.head(embeddings), batch.labels)
        spread = center_loss(embeddings, batch.labels, self.centers.clone())
        move_centers(self.centers, embeddings.detach(), batch.labels, self.rate)
        yield {"classification": answer, "center": spread, "total": answer + self.balance * spread}


class LargeMarginGaussian(Method):
    r"""L-GM loss with identity covariance: the head's rows are the class means :math:`\mu_o`, its bias is unused.

    The true class's distance counts ``1 + margin`` times (the paper's alpha), and ``balance`` (its lambda) weighs the
    likelihood term :math:`\frac12\|x-\mu_y\|^2`. :math:`-\frac12\|x-\mu_o\|^2` differs from the linear score
    :math:`\mu_o\cdot x - \frac12\|\mu_o\|^2` by a term all classes share, so class activation maps stay meaningful.
    """

    def __init__(self, net: nn.Module, margin: float = 0.1, balance: float = 0.01):
        super().__init__(net)
        head = gap_head(net)
        if head.bias is not None:
            head.bias.requires_grad_(False)
        self.margin, self.balance = margin, balance

    def logits(self, images: Tensor) -> Tensor:
        return gaussian_logits(self.net.embed(images), self.net.head.weight)

    def losses(self, batch: Batch, clock: Clock) -> Iterator[Losses]:
        logits = self.logits(batch.images)
        own = F.one_hot(batch.labels, logits.shape[1])
        answer = F.cross_entropy(logits * (1 + self.margin * own), batch.labels)
        likelihood = -logits.gather(1, batch.labels[:, None]).mean()
        yield {"classification": answer, "likelihood": likelihood, "total": answer + self.balance * likelihood}


ANGULAR = {"a_softmax": "SphereFaceLoss", "lmc": "CosFaceLoss", "aam": "ArcFaceLoss"}


class AngularMargin(Method):
    """A-Softmax (Liu et al. 2017), LMC (CosFace) or AAM (ArcFace) on the pooled features.

    The library owns the class weights; the network's linear head is not used. Its defaults (scale 64) are for faces
    with 512 features: choose ``scale`` on validation data.

    Args:
        kind: ``"a_softmax"``, ``"lmc"`` or ``"aam"``.
        options: ``margin`` and ``scale`` of the library's loss, in its units (AAM: degrees).

    Raises:
        ValueError: unknown kind. ImportError: pytorch-metric-learning is not installed.
    """

    def __init__(self, net: nn.Module, kind: str, **options: float):
        super().__init__(net)
        if kind not in ANGULAR:
            raise ValueError(f"kind must be one of {', '.join(ANGULAR)}, got {kind!r}")
        try:
            from pytorch_metric_learning import losses
        except ImportError as error:
            raise ImportError("angular margins need an extra: pip install pytorch-metric-learning") from error
        head = gap_head(net)
        head.requires_grad_(False)
        self.margin_loss = getattr(losses, ANGULAR[kind])(head.out_features, head.in_features, **options)

    def logits(self, images: Tensor) -> Tensor:
        return self.margin_loss.get_logits(self.net.embed(images))

    def explain(self, images: Tensor, classes: Tensor) -> Tensor:
        weight = F.normalize(self.margin_loss.W.T, dim=1)
        maps = class_activation_map(self.net.features(images), weight, classes=classes).relu()
        return normalise(enlarge(maps, images.shape[-2:]))

    def losses(self, batch: Batch, clock: Clock) -> Iterator[Losses]:
        yield {"total": self.margin_loss(self.net.embed(batch.images), batch.labels)}


class AttentionConsistency(HNC):
    r"""Attention consistency (Guo et al. 2019), the host of HNC's COCO rows, alone (``balance=0``) or with HNC.

    .. math:: L(I) + L(\bar I) + \frac{\gamma}{K hw} \sum_o \|M_o(\bar I) - \overline{M_o(I)}\|^2

    L is Eq. 9, the bar a horizontal flip. The head's weights are held fixed in the consistency term, as in its official
    code, which also scales the images; here only the flip is used.
    """

    def __init__(self, net: nn.Module, *args, consistency: float = 1.0, **options):
        super().__init__(net, *args, **options)
        self.consistency = consistency

    def losses(self, batch: Batch, clock: Clock) -> Iterator[Losses]:
        if not len(batch.images):
            raise ValueError("batch must hold at least one image, got an empty one")
        head, views = gap_head(self.net), [batch.images, batch.images.flip(-1)]
        features = self.net.features(torch.cat(views))
        logits, labels = head(features.mean(dim=(2, 3))), torch.cat([batch.labels, batch.labels])
        answer = 2 * self.classification(logits, labels)  # mean over both views, times two: the sum of their means
        flatness = 2 * self.homogeneity(features, logits, labels)
        plain, flipped = class_activation_map(features, head.weight.detach()).chunk(2)
        agree = F.mse_loss(flipped, plain.flip(-1))
        total = answer + self.balance * flatness + self.consistency * agree
        yield {"classification": answer, "hnc": flatness, "consistency": agree, "total": total}
