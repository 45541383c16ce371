r"""Rivals that use no mask: they know, or guess, in which training images the shortcut fails.

A group is a class with or without its cue (``Batch.cued``): group :math:`2y + c`, 2K of them. `JTT` needs no groups in
training. All of them, as their authors do, have their one value chosen on validation images that break the cue.
"""

import copy
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._require import require
from ..data.batch import Batch
from ..maps import class_activation_map, enlarge, gap_head, normalise
from ..nets.convnets import GapClassifier
from ..nets.modes import evaluating
from ..preset import Clock
from .base import Losses, Method


def group_of(batch: Batch) -> Tensor:
    """The group :math:`2y + c` of each image, ``[B]`` int64.

    Raises:
        ValueError: the data set does not know where its shortcut agrees with the label.

    Example:
        >>> cued = torch.tensor([True, False])
        >>> group_of(Batch(torch.zeros(2, 1, 1, 1), torch.tensor([0, 3]), None, torch.arange(2), cued))
        tensor([1, 6])
    """
    require(batch.cued is not None, "batch.cued must say where the shortcut holds, got None: use a set of data.cues")
    assert batch.cued is not None
    return 2 * batch.labels + batch.cued


def weighted_loss(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    r"""Cross-entropy :math:`\sum_i w_i \ell_i / \sum_i w_i`, scalar; ``weights [B]`` >= 0, not all 0.

    Example:
        >>> logits = torch.tensor([[0.0, 0.0], [5.0, -5.0]])
        >>> weighted_loss(logits, torch.tensor([0, 0]), torch.tensor([1.0, 0.0])).exp()
        tensor(2.)
    """
    return (weights * F.cross_entropy(logits, labels, reduction="none")).sum() / weights.sum()


class GroupDRO(Method):
    r"""Group distributionally robust optimisation (Sagawa et al. 2020, Algorithm 1), with the losses of a batch.

    .. math:: q_g \leftarrow q_g e^{\eta \ell_g} / \sum_h q_h e^{\eta \ell_h}, \qquad L = \sum_g q_g \ell_g

    where :math:`\ell_g` is the mean loss of the group in this batch, 0 where it has none there (as in their code).

    Args:
        net: with a linear layer ``head``.
        step: :math:`\eta`.

    Example:
        >>> from xai_course.nets.convnets import small_cnn
        >>> method, cued = GroupDRO(small_cnn(3, width=2)), torch.tensor([True, False])
        >>> batch = Batch(torch.rand(2, 3, 8, 8), torch.tensor([0, 2]), None, torch.arange(2), cued)
        >>> terms = next(method.losses(batch, Clock()))
        >>> method.q.argmax() in (1, 4), round(float(method.q.sum()), 4)
        (True, 1.0)
    """

    q: Tensor

    def __init__(self, net: nn.Module, step: float = 0.01):
        super().__init__(net)
        require(step >= 0, "step must be >= 0", step)
        self.step, count = step, 2 * gap_head(net).out_features
        self.register_buffer("q", torch.full((count,), 1 / count))

    def losses(self, batch: Batch, clock: Clock) -> Iterator[Losses]:
        each = F.cross_entropy(self.net(batch.images), batch.labels, reduction="none")
        member = F.one_hot(group_of(batch), len(self.q)).to(each.dtype)
        losses = (each[:, None] * member).sum(0) / member.sum(0).clamp_min(1)
        self.q = self.q * (self.step * losses.detach()).exp()
        self.q = self.q / self.q.sum()
        yield {"total": (self.q * losses).sum(), "classification": each.detach().mean()}


class Reweighted(Method):
    r"""Cross-entropy in which an image of group g weighs :math:`n_g^{-a}`, :math:`n_g` counted in training so far.

    ``power`` a = 1 gives all groups the same weight (the reweighting baseline of Sagawa et al. 2020), 0 is plain.

    Example:
        >>> from xai_course.nets.convnets import small_cnn
        >>> method, cued = Reweighted(small_cnn(3, width=2)), torch.tensor([True, False])
        >>> batch = Batch(torch.rand(2, 3, 8, 8), torch.tensor([0, 2]), None, torch.arange(2), cued)
        >>> terms = next(method.losses(batch, Clock()))
        >>> method.counts
        tensor([0., 1., 0., 0., 1., 0.])
    """

    counts: Tensor

    def __init__(self, net: nn.Module, power: float = 1.0):
        super().__init__(net)
        require(power >= 0, "power must be >= 0", power)
        self.power = power
        self.register_buffer("counts", torch.zeros(2 * gap_head(net).out_features))

    def losses(self, batch: Batch, clock: Clock) -> Iterator[Losses]:
        group = group_of(batch)
        self.counts = self.counts + F.one_hot(group, len(self.counts)).sum(0)
        weights = (self.counts[group] / self.counts.sum()) ** -self.power
        yield {"total": weighted_loss(self.net(batch.images), batch.labels, weights)}


class JTT(Method):
    r"""Just train twice (Liu et al. 2021, Algorithm 1): the errors of a first short run weigh ``up`` times as much.

    .. math:: L = \frac{\lambda \sum_{i \in E} \ell_i + \sum_{i \notin E} \ell_i}{\lambda |E| + |\bar E|}, \qquad
        E = \{i : \hat f(x_i) \ne y_i\}

    The first run trains a copy of the fresh network for the first ``share`` of the steps; the second trains ``net`` in
    the others, so that both together cost as many steps as any other method. E is found anew in each batch by the first
    network in eval mode, which gives the same E as one pass over the training set.

    Args:
        net: fresh. up: :math:`\lambda`. share: of all steps, in (0, 1).

    Example:
        >>> from xai_course.nets.convnets import small_cnn
        >>> batch = Batch(torch.rand(2, 3, 8, 8), torch.tensor([0, 2]), None, torch.arange(2))
        >>> method = JTT(small_cnn(3, width=2), share=0.5)
        >>> [list(next(method.losses(batch, Clock(0, step, 1, 2)))) for step in (0, 1)]
        [['total'], ['total', 'errors']]
    """

    def __init__(self, net: nn.Module, up: float = 20.0, share: float = 0.25):
        super().__init__(net)
        require(up >= 1 and 0 < share < 1, "up must be >= 1 and share lie in (0, 1)", up, share)
        self.first, self.up, self.share = copy.deepcopy(net), up, share

    def losses(self, batch: Batch, clock: Clock) -> Iterator[Losses]:
        if clock.progress < self.share:
            yield {"total": F.cross_entropy(self.first(batch.images), batch.labels)}
            return
        with evaluating(self.first), torch.no_grad():
            wrong = self.first(batch.images).argmax(1) != batch.labels
        weights = torch.where(wrong, self.up, 1.0).to(batch.images.dtype)
        loss = weighted_loss(self.net(batch.images), batch.labels, weights)
        yield {"total": loss, "errors": wrong.float().mean()}


class DFR(Method):
    r"""Deep feature reweighting (Kirichenko et al. 2023): cross-entropy, then a last layer fitted to balanced images.

    Whenever training stops (``eval()``), a logistic regression with penalty :math:`\|W\|^2 / (2 C)` is fitted to the
    standardised pooled features of held-out images, all groups weighing the same, and decides from then on. The authors
    use an L1 penalty and the mean of ten balanced subsets; here every held-out image is used, with group weights.

    Args:
        net: with ``head`` and ``features``.
        held: called without arguments gives the held-out images as a `Batch` with ``cued``; None for ``net.held``.
        c: C, the inverse of the penalty's strength.

    Example:
        >>> from xai_course.nets.convnets import small_cnn
        >>> batch = Batch(torch.rand(8, 3, 8, 8), torch.arange(8) % 2, None, torch.arange(8), torch.arange(8) < 4)
        >>> method = DFR(small_cnn(2, width=2), lambda: batch).eval()
        >>> method.logits(batch.images).shape, torch.equal(method.last.weight, method.net.head.weight)
        (torch.Size([8, 2]), False)
    """

    net: GapClassifier

    def __init__(self, net: GapClassifier, held: Callable[[], Batch] | None = None, c: float = 1.0):
        super().__init__(net)
        require(c > 0, "c must be above 0", c)
        self.held, self.c = held or vars(net)["held"], c
        self.last = copy.deepcopy(gap_head(net)).requires_grad_(False)

    def losses(self, batch: Batch, clock: Clock) -> Iterator[Losses]:
        yield {"total": F.cross_entropy(self.net(batch.images), batch.labels)}

    def train(self, mode: bool = True) -> "DFR":
        super().train(mode)
        if not mode:
            self._refit()
        return self

    @torch.no_grad()
    def _refit(self) -> None:
        from sklearn.linear_model import LogisticRegression

        batch = self.held().to(self.last.weight.device)
        features, group = self.net.embed(batch.images).cpu().double(), group_of(batch).cpu()
        mean, scale = features.mean(0), features.std(0).clamp_min(1e-6)
        weights = 1.0 / group.bincount()[group].double()
        fit = LogisticRegression(C=self.c, max_iter=1000)
        fit.fit((features - mean) / scale, batch.labels.cpu(), sample_weight=weights * len(group) / weights.sum())
        weight, bias = (torch.as_tensor(each) for each in (fit.coef_, fit.intercept_))
        if len(weight) == 1:  # of two classes it gives the second one's
            weight, bias = torch.cat([-weight, weight]) / 2, torch.cat([-bias, bias]) / 2
        weight = weight / scale
        self.last.weight.copy_(weight)
        self.last.bias.copy_(bias - weight @ mean)

    def logits(self, images: Tensor) -> Tensor:
        return self.last(self.net.embed(images))

    def explain(self, images: Tensor, classes: Tensor) -> Tensor:
        maps = class_activation_map(self.net.features(images), self.last.weight, classes=classes)
        return normalise(enlarge(maps.relu(), images.shape[-2:]))
