r"""What masks can do without a penalty on a class map: other backgrounds, no backgrounds, gradients, decompositions.

An image whose mask covers all of it is one that nobody annotated: each method here takes it as it is.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from .._require import require
from ..data.batch import Batch
from ..measure.looking import masks_of
from ..nets.convnets import GapClassifier
from ..preset import Clock
from .base import Losses, Method, classification_loss
from .guidance import right_reasons


def pasted(images: Tensor, masks: Tensor, share: float = 1.0) -> Tensor:
    """Objects on the background of the next image of the batch (Xiao et al. 2021, MIXED-RAND).

    Where the other image's own object would show, its mean background colour is painted. An image without an annotation
    keeps its background, and lends all of itself to the one before.

    Args:
        images: ``[B, C, H, W]``. masks: ``[B, H, W]`` bool or in [0, 1], 1 on the object.
        share: of the batch, in [0, 1]: its first images are changed, the others stay.

    Example:
        >>> images, masks = torch.tensor([[[[1.0, 2.0]]], [[[3.0, 4.0]]]]), torch.tensor([[[1, 0]], [[1, 0]]])
        >>> pasted(images, masks)[:, 0, 0]
        tensor([[1., 4.],
                [3., 2.]])
    """
    inside = masks.unsqueeze(1).to(images.dtype)
    whole = inside.flatten(1).amin(1).view(-1, 1, 1, 1) == 1
    outside = torch.where(whole, torch.ones_like(inside), 1 - inside)
    mean = (images * outside).sum((2, 3), keepdim=True) / outside.sum((2, 3), keepdim=True)
    plates = (images * outside + mean * (1 - outside)).roll(-1, 0)
    count = round(share * len(images))
    return torch.cat([(inside * images + (1 - inside) * plates)[:count], images[count:]])


def masked_input(images: Tensor, masks: Tensor, share: float = 1.0) -> Tensor:
    """The mean colour of the batch outside the masks, in the first ``share`` of the batch. Arguments as in `pasted`.

    Example:
        >>> images, masks = torch.tensor([[[[1.0, 2.0]]], [[[3.0, 6.0]]]]), torch.tensor([[[1, 0]], [[1, 0]]])
        >>> masked_input(images, masks, share=0.5)[:, 0, 0]
        tensor([[1., 3.],
                [3., 6.]])
    """
    inside, count = masks.unsqueeze(1).to(images.dtype), round(share * len(images))
    mean = images.mean((0, 2, 3), keepdim=True)
    return torch.cat([(inside * images + (1 - inside) * mean)[:count], images[count:]])


class _Changed(Method):
    """Cross-entropy on images of which a share is changed."""

    def __init__(self, net: nn.Module, share: float):
        super().__init__(net)
        require(0 <= share <= 1, "share must lie in [0, 1]", share)
        self.share = share

    def change(self, images: Tensor, masks: Tensor) -> Tensor:
        raise NotImplementedError

    def losses(self, batch: Batch, clock: Clock) -> Iterator[Losses]:
        yield {"total": classification_loss(self.net(self.change(batch.images, masks_of(batch))), batch.labels)}


class Pasted(_Changed):
    """Mean cross-entropy where the first ``share`` of every batch is `pasted` (Xiao et al. 2021).

    Example:
        >>> method, masks = Pasted(nn.Sequential(nn.Flatten(), nn.Linear(4, 3))), torch.eye(2).expand(2, 2, 2)
        >>> batch = Batch(torch.rand(2, 1, 2, 2), torch.tensor([0, 2]), masks, torch.arange(2))
        >>> list(next(method.losses(batch, Clock())))
        ['total']
    """

    def __init__(self, net: nn.Module, share: float = 1.0):
        super().__init__(net, share)

    def change(self, images: Tensor, masks: Tensor) -> Tensor:
        return pasted(images, masks, self.share)


class MaskedInput(_Changed):
    """Mean cross-entropy where the first ``share`` of every batch is a `masked_input`.

    Example:
        >>> method, masks = MaskedInput(nn.Sequential(nn.Flatten(), nn.Linear(4, 3))), torch.eye(2).expand(2, 2, 2)
        >>> batch = Batch(torch.rand(2, 1, 2, 2), torch.tensor([0, 2]), masks, torch.arange(2))
        >>> list(next(method.losses(batch, Clock())))
        ['total']
    """

    def __init__(self, net: nn.Module, share: float = 0.5):
        super().__init__(net, share)

    def change(self, images: Tensor, masks: Tensor) -> Tensor:
        return masked_input(images, masks, self.share)


class PastedOften(Method):
    """Mean cross-entropy where annotated objects on annotated backgrounds take the place of a share of every batch.

    `Pasted` shows an annotated image once in an epoch, which is little where few are; here ``share`` says how often.
    Object and background are drawn anew in every step (torch's global generator), each from all annotated images.

    Args:
        net: any classifier.
        annotated: called without arguments gives the annotated images as a `Batch`; None for ``net.annotated``.
        share: of the batch, in [0, 1]: its first images make room.

    Raises:
        ValueError: a share outside [0, 1], or no annotated image.

    Example:
        >>> few = Batch(torch.rand(2, 1, 2, 2), torch.tensor([0, 2]), torch.eye(2).expand(2, 2, 2), torch.arange(2))
        >>> method = PastedOften(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), lambda: few)
        >>> many = Batch(torch.rand(4, 1, 2, 2), torch.tensor([0, 1, 1, 2]), None, torch.arange(4))
        >>> list(next(method.losses(many, Clock())))
        ['total']
    """

    def __init__(self, net: nn.Module, annotated: Callable[[], Batch] | None = None, share: float = 0.5):
        super().__init__(net)
        require(0 <= share <= 1, "share must lie in [0, 1]", share)
        self.few, self.share = (annotated or vars(net)["annotated"])(), share
        require(len(self.few.labels), "annotated must give at least one image, got none")

    def losses(self, batch: Batch, clock: Clock) -> Iterator[Losses]:
        count, few = round(self.share * len(batch.labels)), self.few.to(batch.images.device)
        drawn = torch.randint(len(few.labels), (2 * count,)).to(batch.images.device)
        made = pasted(few.images[drawn], masks_of(few)[drawn])[::2]  # each on the one after it, which only lends
        images, labels = (
            torch.cat([made, batch.images[count:]]),
            torch.cat([few.labels[drawn[::2]], batch.labels[count:]]),
        )
        yield {"total": classification_loss(self.net(images), labels)}


class RightReasons(Method):
    r"""Cross-entropy plus ``balance`` times the mean of `guidance.right_reasons` (Ross et al. 2017, Eq. 1).

    They add the images of a batch up; the mean makes the weight independent of the size of the batch.

    Example:
        >>> method, masks = RightReasons(nn.Sequential(nn.Flatten(), nn.Linear(4, 3))), torch.ones(2, 2, 2)
        >>> batch = Batch(torch.rand(2, 1, 2, 2), torch.tensor([0, 2]), masks, torch.arange(2))
        >>> next(method.losses(batch, Clock()))["reasons"]  # everything is relevant
        tensor(0.)
    """

    def __init__(self, net: nn.Module, balance: float = 1.0):
        super().__init__(net)
        require(balance >= 0, "balance must be >= 0", balance)
        self.balance = balance

    def losses(self, batch: Batch, clock: Clock) -> Iterator[Losses]:
        images = batch.images.detach().clone().requires_grad_()
        logits = self.net(images)
        main, reasons = classification_loss(logits, batch.labels), right_reasons(logits, images, masks_of(batch)).mean()
        yield {"total": main + self.balance * reasons, "classification": main.detach(), "reasons": reasons.detach()}


def decomposed(net: GapClassifier, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    r"""Contextual decomposition of the logits, :math:`\beta + \gamma`: what the masked pixels add, and all others.

    Singh, Murdoch and Yu (ICLR 2019) as Rieger et al. 2020 (Section 3) use it: linear layers split their bias in
    proportion to :math:`|\beta|` and :math:`|\gamma|`, a ReLU gives :math:`\beta' = ReLU(\beta)` and
    :math:`\gamma' = ReLU(\beta + \gamma) - ReLU(\beta)`. BatchNorm is the linear layer that it is for this batch.

    Args:
        net: stages of convolution, BatchNorm and ReLU, then pooling and a linear layer (`small_cnn`).
        images: ``[B, C, H, W]``. masks: ``[B, H, W]``, 1 on the pixels of :math:`\beta`.

    Returns:
        :math:`\beta` and :math:`\gamma`, ``[B, K]`` each.

    Raises:
        ValueError: a layer without a rule.

    Example:
        >>> from xai_course.nets.convnets import small_cnn
        >>> net, images, masks = small_cnn(3, width=2).eval(), torch.rand(2, 3, 8, 8), torch.rand(2, 8, 8) > 0.5
        >>> torch.allclose(sum(decomposed(net, images, masks)), net(images), atol=1e-5)
        True
    """
    beta = images * masks.unsqueeze(1).to(images.dtype)
    gamma = images - beta
    for layer in (each for each in net.body.modules() if not list(each.children())):
        if isinstance(layer, nn.ReLU):
            first = beta.relu()
            beta, gamma = first, (beta + gamma).relu() - first
        elif isinstance(layer, nn.BatchNorm2d):
            scale, shift = _as_linear(layer, beta + gamma)
            beta, gamma = _with_bias(beta * scale, gamma * scale, shift)
        elif isinstance(layer, nn.Conv2d) and layer.bias is None:
            beta, gamma = layer(beta), layer(gamma)
        else:
            raise ValueError(f"net must be of Conv2d without bias, BatchNorm2d and ReLU, got {layer}")
    weight = net.head.weight.t()
    return _with_bias(beta.mean((2, 3)) @ weight, gamma.mean((2, 3)) @ weight, net.head.bias)


def _as_linear(norm: nn.BatchNorm2d, x: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and shift ``[1, C, 1, 1]`` with which BatchNorm maps ``x``."""
    assert norm.running_mean is not None and norm.running_var is not None
    mean, var = (x.mean((0, 2, 3)), x.var((0, 2, 3), False)) if norm.training else (norm.running_mean, norm.running_var)
    scale = norm.weight / (var + norm.eps).sqrt()
    return scale.view(1, -1, 1, 1), (norm.bias - mean * scale).view(1, -1, 1, 1)


def _with_bias(beta: Tensor, gamma: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    share = beta.abs() / (beta.abs() + gamma.abs()).clamp_min(1e-12)
    return beta + share * bias, gamma + (1 - share) * bias


class CDEP(Method):
    r"""Cross-entropy plus ``balance`` times the mean of :math:`e^\beta / (e^\beta + e^\gamma)` (Rieger et al. 2020).

    :math:`\beta` is what the pixels outside the masks add to each logit, :math:`\gamma` what the inside adds
    (`decomposed`); the mean is over images and classes, as in the authors' code. Its forward pass for the
    decomposition uses the same batch statistics and moves no running ones.

    Example:
        >>> from xai_course.nets.convnets import small_cnn
        >>> batch = Batch(torch.rand(2, 3, 8, 8), torch.tensor([0, 2]), torch.rand(2, 8, 8) > 0.5, torch.arange(2))
        >>> terms = next(CDEP(small_cnn(3, width=2)).losses(batch, Clock()))
        >>> 0 < terms["decomposition"] < 1
        tensor(True)
    """

    net: GapClassifier

    def __init__(self, net: GapClassifier, balance: float = 1.0):
        super().__init__(net)
        require(balance >= 0, "balance must be >= 0", balance)
        self.balance = balance

    def losses(self, batch: Batch, clock: Clock) -> Iterator[Losses]:
        masks = masks_of(batch).to(batch.images.dtype)
        main = classification_loss(self.net(batch.images), batch.labels)
        beta, gamma = decomposed(self.net, batch.images, 1 - masks)
        known = (masks.flatten(1).amin(1) < 1).to(beta.dtype)
        term = ((beta - gamma).sigmoid().mean(1) * known).mean()
        yield {"total": main + self.balance * term, "classification": main.detach(), "decomposition": term.detach()}
