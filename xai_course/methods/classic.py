"""The losses HNC's Table 1 compares with, and controls: each a function and a criterion, then thin methods.

Angular margins (A-Softmax, LMC, AAM) come from pytorch-metric-learning, an optional extra. The others have no kept-up
library form that is what the paper means: torchvision's focal loss is one sigmoid per class, for detectors.
Label smoothing is `base.CrossEntropy`; the level-only and shape-only controls are penalties of `hnc.HNC`. Losses on
pooled features are in `centers`, on maps in `consistency`; all methods are here.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._require import require
from ..data.batch import Batch
from ..maps import class_activation_map, gap_head
from ..measure.minmax import conditional_entropy
from ..nets.convnets import GapClassifier
from ..preset import Clock
from .base import FunctionCriterion, Losses, Method, check_labels, classification_loss, full_precision, reduced, wide
from .centers import CenterLoss, LargeMarginGaussianLoss, gaussian_logits
from .consistency import attention_consistency
from .hnc import HNC

# --- losses on logits [B, n] and labels [B] int64 in [0, n), each reduced over the images as `reduced` says -----------


def _checked(logits: Tensor, labels: Tensor) -> Tensor:
    require(logits.ndim == 2, "logits must be [B, n]", tuple(logits.shape))
    check_labels(labels, *logits.shape)
    return wide(logits)


def focal_loss(
    logits: Tensor, labels: Tensor, gamma: float = 2.0, weight: Tensor | None = None, reduction: str = "mean"
) -> Tensor:
    r"""Softmax focal loss (Lin et al. 2017, Eq. 4), :math:`-w_y (1 - p_y)^\gamma \log p_y` of each image.

    Args:
        gamma: 0 gives cross-entropy.
        weight: ``[n]`` per class, None for all ones; see `class_balanced_weights`. The mean stays over the images.

    Example:
        >>> logits, labels = torch.tensor([[0.0, 0.0], [3.0, 0.0]]), torch.tensor([0, 0])
        >>> focal_loss(logits, labels, gamma=0, reduction="none"), focal_loss(logits, labels, reduction="none")
        (tensor([0.6931, 0.0486]), tensor([0.1733, 0.0001]))
    """
    log_p = F.log_softmax(_checked(logits, labels), dim=1).gather(1, labels[:, None])[:, 0]
    # 1 - p as -expm1(log p): exact where p is near 1. The floor keeps the power's derivative finite at p = 1.
    loss = -((-log_p.expm1()).clamp_min(1e-12) ** gamma) * log_p
    return reduced(loss if weight is None else loss * weight[labels], reduction)


def class_balanced_weights(counts: Tensor, beta: float = 0.9999) -> Tensor:
    r"""Inverse effective numbers :math:`(1-\beta)/(1-\beta^{n_c})` (Cui et al. 2019), scaled to sum to n.

    ``counts [n]`` images per class, at least 1 each. Equal counts give all ones: on CIFAR-100 CB focal *is* focal.

    Example:
        >>> class_balanced_weights(torch.tensor([500, 500])), class_balanced_weights(torch.tensor([10, 1000]), 0.99)
        (tensor([1., 1.]), tensor([1.8254, 0.1746]))
    """
    sound = 0 <= beta < 1 and (counts >= 1).all()
    require(sound, "counts must be at least 1 and beta in [0, 1)", counts.tolist(), beta)
    weight = (1 - beta) / (1 - beta ** counts.double())
    return (weight / weight.sum() * len(counts)).float()


def sigmoid_focal_loss(
    logits: Tensor, labels: Tensor, gamma: float = 2.0, weight: Tensor | None = None, reduction: str = "mean"
) -> Tensor:
    """One binary focal term per class, as the class-balanced reference code has it, summed over the classes.

    torchvision's form (``alpha=-1``) has the same values, but where a score is certain and gamma < 1 its gradient is
    NaN. Arguments as in `focal_loss`.

    Example:
        >>> sigmoid_focal_loss(torch.tensor([[20.0, -20.0]]), torch.tensor([1]), gamma=0.5)
        tensor(40.)
    """
    logits = _checked(logits, labels)
    targets = F.one_hot(labels, logits.shape[1]).to(logits.dtype)
    binary = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    wrong = torch.where(targets > 0, -logits, logits)  # probability of the wrong answer is its sigmoid
    terms = (gamma * F.logsigmoid(wrong)).exp() * binary
    return reduced((terms if weight is None else terms * weight[labels][:, None]).sum(dim=1), reduction)


def anchor_loss(
    logits: Tensor, labels: Tensor, gamma: float = 0.5, slack: float = 0.05, reduction: str = "mean"
) -> Tensor:
    r"""Anchor loss (Ryou et al. 2019): sigmoid cross-entropy whose background terms grow where they near the target.

    .. math:: -\log q_y - \sum_{o \ne y} (1 + q_o - q_*)^\gamma \log(1 - q_o), \qquad q_* = \max(q_y - \delta, 0)

    The anchor :math:`q_*` carries no gradient.

    Example:
        >>> logits, labels = torch.tensor([[1.0, 3.0]]), torch.tensor([0])  # a background class above the target
        >>> [round(anchor_loss(logits, labels, gamma=g).item(), 2) for g in (0.0, 0.5, 2.0)]
        [3.36, 3.75, 5.24]
    """
    logits = _checked(logits, labels)
    targets = F.one_hot(labels, logits.shape[1]).to(logits.dtype)
    q = logits.sigmoid()
    anchor = (q.gather(1, labels[:, None]) - slack).clamp_min(0).detach()
    scale = torch.where(targets > 0, torch.ones_like(q), (1 + q - anchor) ** gamma)
    terms = scale * F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return reduced(terms.sum(dim=1), reduction)


def negative_entropy(logits: Tensor, reduction: str = "mean") -> Tensor:
    r"""Confidence penalty (Pereyra et al. 2017), :math:`\sum_o p_o \log p_o` of each image, in [-log n, 0].

    Example:
        >>> negative_entropy(torch.tensor([[0.0, 0.0], [2.0, 0.0]]), reduction="none")
        tensor([-0.6931, -0.3653])
    """
    return reduced(-conditional_entropy(logits), reduction)


class FocalLoss(FunctionCriterion, of=focal_loss):
    """`focal_loss` as a criterion; ``weight`` is a buffer, so that it follows the criterion to its device.

    Example:
        >>> criterion = FocalLoss(gamma=2.0, weight=class_balanced_weights(torch.tensor([10, 1000])))
        >>> net, images, labels = nn.Linear(4, 2), torch.rand(3, 4), torch.tensor([0, 1, 1])
        >>> criterion(net(images), labels).backward()
    """


class SigmoidFocalLoss(FunctionCriterion, of=sigmoid_focal_loss):
    """`sigmoid_focal_loss` as a criterion, otherwise as `FocalLoss`.

    Example:
        >>> SigmoidFocalLoss(gamma=0.0)(torch.zeros(1, 3), torch.tensor([2])) / 3  # log 2 for each of three classes
        tensor(0.6931)
    """


class AnchorLoss(FunctionCriterion, of=anchor_loss):
    """`anchor_loss` as a criterion.

    Example:
        >>> AnchorLoss(reduction="none")(torch.tensor([[3.0, -3.0], [0.0, 3.0]]), torch.tensor([0, 0]))
        tensor([0.0671, 4.4301])
    """


class NegativeEntropy(FunctionCriterion, of=negative_entropy, takes=1):
    """`negative_entropy` as a criterion: added with a weight, it is the confidence penalty.

    Example:
        >>> criterion, logits, labels = NegativeEntropy(), torch.zeros(2, 4, requires_grad=True), torch.tensor([0, 3])
        >>> (F.cross_entropy(logits, labels) + 0.1 * criterion(logits)).backward()
    """


# --- methods ----------------------------------------------------------------------------------------------------------


class LogitLoss(Method):
    """Trains with one function of logits and labels, after ``warm_up`` epochs of cross-entropy.

    Args:
        loss: ``(logits, labels) -> scalar``, such as `focal_loss` or `FocalLoss`.
        warm_up: 5 for `anchor_loss` (its official code).

    Example:
        >>> method = LogitLoss(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), FocalLoss(gamma=1.0), warm_up=5)
        >>> batch = Batch(torch.rand(2, 1, 2, 2), torch.tensor([0, 2]), None, torch.arange(2))
        >>> early, late = (next(method.losses(batch, Clock(epoch=e)))["total"] for e in (4, 5))
        >>> bool(early > late)  # cross-entropy first, then focal loss
        True
    """

    def __init__(self, net: nn.Module, loss: Callable[[Tensor, Tensor], Tensor], *, warm_up: int = 0):
        super().__init__(net)
        self.loss, self.warm_up = loss, warm_up

    def losses(self, batch: Batch, clock: Clock) -> Iterator[Losses]:
        rule = classification_loss if clock.epoch < self.warm_up else self.loss
        yield {"total": rule(self.net(batch.images), batch.labels)}


class ConfidencePenalty(Method):
    """Cross-entropy plus ``balance`` times `negative_entropy`: a control for HNC that never looks at a map.

    Example:
        >>> method = ConfidencePenalty(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), balance=0.2)
        >>> batch = Batch(torch.rand(2, 1, 2, 2), torch.tensor([0, 2]), None, torch.arange(2))
        >>> (terms,) = method.losses(batch, Clock())
        >>> bool(terms["total"] < terms["classification"])  # the entropy is subtracted
        True
    """

    def __init__(self, net: nn.Module, balance: float = 0.1):
        super().__init__(net)
        require(balance >= 0, "balance must be at least 0", balance)
        self.balance = balance

    def losses(self, batch: Batch, clock: Clock) -> Iterator[Losses]:
        logits = self.net(batch.images)
        answer, penalty = classification_loss(logits, batch.labels), negative_entropy(logits)
        yield {"classification": answer, "negative_entropy": penalty, "total": answer + self.balance * penalty}


class Center(Method):
    """Cross-entropy plus ``balance`` times `CenterLoss` on the pooled features; centres follow their class.

    Example:
        >>> from xai_course.nets.convnets import small_cnn
        >>> method = Center(small_cnn(3, channels=1, width=2))
        >>> batch = Batch(torch.rand(4, 1, 8, 8), torch.tensor([0, 0, 2, 2]), None, torch.arange(4))
        >>> (terms,) = method.losses(batch, Clock())
        >>> method.spread.centers.abs().sum(dim=1) > 0  # class 1 was not in the batch
        tensor([ True, False,  True])
    """

    net: GapClassifier

    def __init__(self, net: nn.Module, balance: float = 0.003, rate: float = 0.5):
        super().__init__(net)
        head = gap_head(net)
        self.balance, self.spread = balance, CenterLoss(head.out_features, head.in_features, rate)

    def losses(self, batch: Batch, clock: Clock) -> Iterator[Losses]:
        embeddings = self.net.embed(batch.images)
        answer = classification_loss(self.net.head(embeddings), batch.labels)
        spread = self.spread(embeddings, batch.labels)
        yield {"classification": answer, "center": spread, "total": answer + self.balance * spread}


class LargeMarginGaussian(Method):
    r"""`LargeMarginGaussianLoss`: the head's rows are the class means :math:`\mu_o`, its bias is unused.

    :math:`-\frac12\|x-\mu_o\|^2` differs from the linear score :math:`\mu_o\cdot x - \frac12\|\mu_o\|^2` by a term all
    classes share, so class activation maps stay meaningful.

    Example:
        >>> from xai_course.nets.convnets import small_cnn
        >>> method = LargeMarginGaussian(small_cnn(3, channels=1, width=2), margin=0.3)
        >>> bool((method.logits(torch.rand(2, 1, 8, 8)) <= 0).all())  # minus half a squared distance
        True
    """

    net: GapClassifier

    def __init__(self, net: nn.Module, margin: float = 0.1, balance: float = 0.01):
        super().__init__(net)
        head = gap_head(net)
        if head.bias is not None:
            head.bias.requires_grad_(False)
        self.criterion = LargeMarginGaussianLoss(margin, balance)

    def logits(self, images: Tensor) -> Tensor:
        return gaussian_logits(self.net.embed(images), self.net.head.weight)

    def losses(self, batch: Batch, clock: Clock) -> Iterator[Losses]:
        answer, likelihood = self.criterion.terms(self.net.embed(batch.images), self.net.head.weight, batch.labels)
        total = answer + self.criterion.balance * likelihood
        yield {"classification": answer, "likelihood": likelihood, "total": total}


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

    Example:
        >>> AngularMargin(nn.Linear(2, 2), "magface")
        Traceback (most recent call last):
        ValueError: kind must be one of a_softmax, lmc, aam, got 'magface'
    """

    net: GapClassifier
    margin_loss: Any

    def __init__(self, net: nn.Module, kind: str, **options: float):
        super().__init__(net)
        require(kind in ANGULAR, f"kind must be one of {', '.join(ANGULAR)}", repr(kind))
        try:
            from pytorch_metric_learning import losses
        except ImportError as error:
            raise ImportError("angular margins need an extra: pip install pytorch-metric-learning") from error
        head = gap_head(net).requires_grad_(False)
        self.margin_loss = getattr(losses, ANGULAR[kind])(head.out_features, head.in_features, **options)

    def logits(self, images: Tensor) -> Tensor:
        return self.margin_loss.get_logits(self.net.embed(images))

    def class_weights(self) -> Tensor:
        return F.normalize(self.margin_loss.W.T, dim=1)

    def losses(self, batch: Batch, clock: Clock) -> Iterator[Losses]:
        with full_precision(features := wide(self.net.embed(batch.images))):  # the library mixes in float32 weights
            yield {"total": self.margin_loss(features, batch.labels)}


class AttentionConsistency(HNC):
    r"""Attention consistency (Guo et al. 2019), the host of HNC's COCO rows, alone (``balance=0``) or with HNC.

    .. math:: L(I) + L(\bar I) + \frac{\gamma}{K hw} \sum_o \|M_o(\bar I) - \overline{M_o(I)}\|^2

    L is Eq. 9 of HNC, the bar a horizontal flip. The head's weights are held fixed in the consistency term, as in its
    official code, which also scales the images; here only the flip is used.

    Args:
        net, penalty, balance: as of `HNC`, and so are all further options.
        consistency: gamma.

    Example:
        >>> from xai_course.nets.convnets import small_cnn
        >>> method = AttentionConsistency(small_cnn(4, channels=1, width=2), balance=0.0)
        >>> batch = Batch(torch.rand(2, 1, 8, 8), torch.tensor([3, 0]), None, torch.arange(2))
        >>> [list(terms) for terms in method.losses(batch, Clock())]
        [['classification', 'hnc', 'consistency', 'total']]
    """

    def __init__(
        self, net: nn.Module, penalty: str = "mse", balance: float = 0.1, *, consistency: float = 1.0, **options: Any
    ):
        super().__init__(net, penalty, balance, **options)
        self.consistency = consistency

    def losses(self, batch: Batch, clock: Clock) -> Iterator[Losses]:
        require(len(batch.images), "batch must hold at least one image, got an empty one")
        head, views = gap_head(self.net), [batch.images, batch.images.flip(-1)]
        features = self.net.features(torch.cat(views))
        logits, labels = head(features.mean(dim=(2, 3))), torch.cat([batch.labels, batch.labels])
        answer = 2 * self.classification(logits, labels)  # mean over both views, times two: the sum of their means
        flatness = 2 * self.homogeneity(features, head.weight, head.bias, labels, logits)
        plain, flipped = class_activation_map(features, head.weight.detach()).chunk(2)
        agree = attention_consistency(plain, flipped)
        total = answer + self.balance * flatness + self.consistency * agree
        yield {"classification": answer, "hnc": flatness, "consistency": agree, "total": total}
