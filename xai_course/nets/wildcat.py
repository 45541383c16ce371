"""Class maps and the ways to pool them into one score per class; a localiser and a classifier that share a trunk.

Min-Max entropy (Belharbi et al. 2019) and every weakly supervised method it is compared with in its Table 1 are a
convolutional trunk, a 1x1 convolution to one map per class, and a pooling rule. Only the pooling rule differs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._require import require
from .convnets import conv, small_cnn
from .role_norm import in_role


def cell_count(k: int | float, cells: int) -> int:
    """How many of ``cells`` positions a pooling parameter means: a float in (0, 1] is a share, an int >= 1 a number.

    A share is rounded to the nearest integer and never below 1: ``0.09`` of 225 cells is 20, of 64 cells 6.

    Raises:
        ValueError: ``k`` is neither, or asks for more cells than there are.

    Example:
        >>> cell_count(0.09, 225), cell_count(0.09, 64), cell_count(3, 64)
        (20, 6, 3)
    """
    if isinstance(k, float) and 0 < k <= 1:
        return max(1, round(k * cells))
    if isinstance(k, int) and not isinstance(k, bool) and 1 <= k <= cells:
        return k
    raise ValueError(f"k must be a float in (0, 1] (share) or an int in [1, {cells}] (number of cells), got {k!r}")


class MeanPool(nn.Module):
    """CAM-Avg: the mean over all cells. ``[B, K, h, w] -> [B, K]``.

    Example:
        >>> MeanPool()(torch.tensor([[[[1.0, 3.0]]]]))
        tensor([[2.]])
    """

    def forward(self, maps: Tensor) -> Tensor:
        return maps.mean(dim=(2, 3))


class MaxPool(nn.Module):
    """CAM-Max: the largest cell. ``[B, K, h, w] -> [B, K]``.

    Example:
        >>> MaxPool()(torch.tensor([[[[1.0, 3.0]]]]))
        tensor([[3.]])
    """

    def forward(self, maps: Tensor) -> Tensor:
        return maps.amax(dim=(2, 3))


class LsePool(nn.Module):
    r"""CAM-LSE: :math:`\frac1r \log \frac1{hw} \sum_{ij} e^{r m_{ij}}`, between the mean (r -> 0) and the maximum.

    Args:
        sharpness: r > 0; 10 in the same group's later survey code (the paper gives no value).

    Example:
        >>> LsePool()(torch.tensor([[[[1.0, 3.0]]]]))  # between the mean 2 and the maximum 3
        tensor([[2.9307]])
    """

    def __init__(self, sharpness: float = 10.0):
        super().__init__()
        require(sharpness > 0, "sharpness must be positive", sharpness)
        self.sharpness = sharpness

    def forward(self, maps: Tensor) -> Tensor:
        cells = maps.shape[2] * maps.shape[3]
        # logsumexp subtracts the maximum first; log(mean(exp(r m))) overflows already at r m = 89 in float32
        return (torch.logsumexp(self.sharpness * maps.flatten(2), dim=2) - math.log(cells)) / self.sharpness


class WildcatPool(nn.Module):
    r"""WILDCAT: mean of the ``kmax`` highest cells, plus ``alpha`` times the mean of the ``kmin`` lowest.

    .. math:: s_k = \tfrac12\Bigl(\tfrac1{k^+}\sum_{\text{top}} m + \alpha\,\tfrac1{k^-}\sum_{\text{bottom}} m\Bigr)

    for :math:`\alpha \neq 0`, and the first mean alone for :math:`\alpha = 0` (Min-Max entropy's setting).

    Args:
        kmax, kmin: share or number of cells, see `cell_count`; ``kmin = 0`` switches the negative evidence off.
        alpha: weight of the negative evidence.
        dropout: probability with which each selected activation is dropped, in [0, 1), inverted scaling. It acts on
            the pooling alone, never on the maps that become the mask (paper, Sec. B.2).

    Example:
        >>> WildcatPool(kmax=2, kmin=1, alpha=0.5)(torch.tensor([[[[1.0, 3.0, 5.0, -2.0]]]]))  # (4 - 0.5 * 2) / 2
        tensor([[1.5000]])
    """

    def __init__(self, kmax: int | float = 0.09, kmin: int | float = 0.09, alpha: float = 0.0, dropout: float = 0.0):
        super().__init__()
        require(0 <= dropout < 1, "dropout must lie in [0, 1)", dropout)
        cell_count(kmax, 2**31)
        if kmin != 0:
            cell_count(kmin, 2**31)
        self.kmax, self.kmin, self.alpha, self.dropout = kmax, kmin, alpha, dropout

    def _mean(self, cells: Tensor, k: int | float, largest: bool) -> Tensor:
        # topk, not a full sort: only the chosen cells get a gradient, 1/k each
        chosen = cells.topk(cell_count(k, cells.shape[2]), dim=2, largest=largest, sorted=False).values
        return F.dropout(chosen, self.dropout, self.training).mean(dim=2)

    def forward(self, maps: Tensor) -> Tensor:
        cells = maps.flatten(2)
        top = self._mean(cells, self.kmax, True)
        if self.alpha == 0 or self.kmin == 0:
            return top
        return (top + self.alpha * self._mean(cells, self.kmin, False)) / 2


class MapHead(nn.Module):
    """1x1 convolution to ``modalities`` maps per class, their mean, then a pooling rule.

    Args:
        inputs: channels D of the trunk.
        classes: K >= 2.
        pool: ``[B, K, h, w] -> [B, K]``.
        modalities: maps per class that are averaged (5 in the paper's WILDCAT, 1 in plain CAM).

    Example:
        >>> maps, logits = MapHead(8, 3, MeanPool(), modalities=5)(torch.rand(2, 8, 4, 4))
        >>> maps.shape, logits.shape
        (torch.Size([2, 3, 4, 4]), torch.Size([2, 3]))
    """

    def __init__(self, inputs: int, classes: int, pool: nn.Module, modalities: int = 1):
        super().__init__()
        require(classes >= 2, "classes must be at least 2 (with one class nothing is undecidable)", classes)
        require(modalities >= 1, "modalities must be at least 1", modalities)
        self.conv, self.pool, self.classes = nn.Conv2d(inputs, classes * modalities, 1), pool, classes

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """``[B, D, h, w]`` to class maps ``[B, K, h, w]`` and logits ``[B, K]``."""
        maps = self.conv(features).unflatten(1, (self.classes, -1)).mean(dim=2)
        return maps, self.pool(maps)


class AttentionHead(nn.Module):
    r"""Deep MIL (Ilse et al. 2018) for several classes: one attention over the cells and one linear score per class.

    .. math:: a_k = \operatorname{softmax}_{cells}\bigl(v_k^\top \tanh(U f)\bigr),\qquad
              s_k = w_k^\top \sum_{cells} a_k f + b_k

    The class maps it returns are the attentions themselves: non-negative, sum 1 over the cells.

    Args:
        inputs: channels D of the trunk.
        classes: K >= 2.
        hidden: width of the attention's hidden layer (128).

    Example:
        >>> maps, logits = AttentionHead(8, 3)(torch.rand(2, 8, 4, 4))
        >>> torch.allclose(maps.sum((2, 3)), torch.ones(2, 3)), logits.shape
        (True, torch.Size([2, 3]))
    """

    def __init__(self, inputs: int, classes: int, hidden: int = 128):
        super().__init__()
        require(classes >= 2, "classes must be at least 2 (with one class nothing is undecidable)", classes)
        self.hidden, self.attention = nn.Conv2d(inputs, hidden, 1), nn.Conv2d(hidden, classes, 1)
        self.score = nn.Linear(inputs, classes)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """``[B, D, h, w]`` to attentions ``[B, K, h, w]`` and logits ``[B, K]``."""
        energy = self.attention(torch.tanh(self.hidden(features)))
        attention = energy.flatten(2).softmax(dim=2)
        bags = attention @ features.flatten(2).transpose(1, 2)  # [B, K, D]: what class k looks at
        return attention.view_as(energy), (bags * self.score.weight).sum(dim=2) + self.score.bias


def check_channels(images: Tensor, trunk: nn.Module) -> None:
    """Refuse images whose channels do not fit the first convolution of ``trunk``.

    Raises:
        ValueError: another rank or number of channels (grey images meet a colour trunk).

    Example:
        >>> check_channels(torch.rand(2, 1, 8, 8), nn.Conv2d(3, 8, 3))
        Traceback (most recent call last):
        ValueError: images must be [B, 3, H, W] for this trunk, got (2, 1, 8, 8): repeat the grey channel with \
images.expand(-1, 3, -1, -1)
    """
    wanted = next((m.in_channels for m in trunk.modules() if isinstance(m, nn.Conv2d)), None)
    if images.ndim != 4 or (wanted is not None and images.shape[1] != wanted):
        hint = ": repeat the grey channel with images.expand(-1, 3, -1, -1)" if images.shape[1:2] == (1,) else ""
        raise ValueError(f"images must be [B, {wanted}, H, W] for this trunk, got {tuple(images.shape)}{hint}")


class Localiser(nn.Module):
    """One trunk and one head: every weakly supervised baseline of Table 1, and the paper's M on its own.

    Example:
        >>> trunk, channels = small_trunk(4)
        >>> maps, logits = Localiser(trunk, HEADS["cam_max"](channels, 3)).locate(torch.rand(2, 3, 32, 32))
        >>> maps.shape, torch.equal(maps.amax((2, 3)), logits)
        (torch.Size([2, 3, 8, 8]), True)
    """

    def __init__(self, trunk: nn.Module, head: nn.Module):
        super().__init__()
        self.trunk, self.head = trunk, head

    def features(self, images: Tensor) -> Tensor:
        """Last maps of the trunk, ``[B, D, h, w]``."""
        check_channels(images, self.trunk)
        return self.trunk(images)

    def locate(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Class maps ``[B, K, h, w]`` and logits ``[B, K]`` from one forward pass."""
        return self.head(self.features(images))

    def forward(self, images: Tensor) -> Tensor:
        return self.locate(images)[1]


class LocaliserClassifier(nn.Module):
    """The paper's G (Fig. 2): a localiser M that proposes a mask and a classifier C that judges what it shows.

    Args:
        trunk: features of M, and of C too unless ``classifier_trunk`` is given (the paper shares one ResNet-101).
        localiser_head, classifier_head: features to (class maps, logits).
        classifier_trunk: separate features for C; None shares.

    Example:
        >>> trunk, channels = small_trunk(4)
        >>> net = LocaliserClassifier(trunk, minmax_head(channels, 3), minmax_head(channels, 3))
        >>> net.classify(torch.rand(2, 3, 32, 32)).shape, net.locate(torch.rand(2, 3, 32, 32))[0].shape
        (torch.Size([2, 3]), torch.Size([2, 3, 8, 8]))
    """

    def __init__(
        self,
        trunk: nn.Module,
        localiser_head: nn.Module,
        classifier_head: nn.Module,
        classifier_trunk: nn.Module | None = None,
    ):
        super().__init__()
        self.trunk, self.localiser_head, self.classifier_head = trunk, localiser_head, classifier_head
        self.classifier_trunk = classifier_trunk

    def locate(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """M: class maps ``A [B, K, h, w]`` and logits ``[B, K]``."""
        check_channels(images, self.trunk)
        return self.localiser_head(self.trunk(images))

    def classify(self, images: Tensor, role: int = 1) -> Tensor:
        """C: logits ``[B, K]`` of a masked image; ``role`` 1 is the inside, 2 the outside (see `norms_by_role`)."""
        trunk = self.trunk if self.classifier_trunk is None else self.classifier_trunk
        check_channels(images, trunk)
        with in_role(trunk, role):
            return self.classifier_head(trunk(images))[1]

    def forward(self, images: Tensor) -> Tensor:
        return self.locate(images)[1]


HEADS: dict[str, Callable[[int, int], nn.Module]] = {
    "cam_avg": lambda inputs, classes: MapHead(inputs, classes, MeanPool()),
    "cam_max": lambda inputs, classes: MapHead(inputs, classes, MaxPool()),
    "cam_lse": lambda inputs, classes: MapHead(inputs, classes, LsePool()),
    "wildcat": lambda inputs, classes: MapHead(inputs, classes, WildcatPool(0.5, 0.1, alpha=0.6), modalities=5),
    "deep_mil": lambda inputs, classes: AttentionHead(inputs, classes),
}
"""The poolings that Table 1 compares, by name: ``HEADS[name](inputs, classes)``."""


def minmax_head(inputs: int, classes: int, *, dropout: float = 0.0, modalities: int = 5) -> MapHead:
    """The head of both M and C: WILDCAT with alpha 0, kmax = kmin = 0.09, 5 modalities (paper, Sec. B.2).

    ``dropout`` is 0.75 for GlaS and 0.85 for CUB5 in the paper.

    Example:
        >>> minmax_head(8, 3)(torch.rand(2, 8, 15, 15))[1].shape  # each logit the mean of 20 of 225 cells
        torch.Size([2, 3])
    """
    return MapHead(inputs, classes, WildcatPool(0.09, 0.09, 0.0, dropout), modalities)


REACHES = {9: 3, 17: 4, 33: 5}  # receptive field of the last maps: stages of small_cnn


def small_trunk(width: int = 16, channels: int = 3, reach: int = 33) -> tuple[nn.Module, int]:
    """The body of `small_cnn` or its first stages, 8x8 maps from 32x32 images, and its number of channels.

    Args:
        reach: receptive field of the last maps in pixels: 9, 17 or 33. A cell that sees the whole digit can answer from
            anywhere; one that sees little must lie on what it recognises.

    Example:
        >>> trunk, channels = small_trunk(4, reach=17)
        >>> trunk(torch.rand(1, 3, 32, 32)).shape[1] == channels
        True
    """
    require(reach in REACHES, f"reach must be one of {', '.join(map(str, REACHES))}", reach)
    body = cast(nn.Sequential, small_cnn(2, channels=channels, width=width).body)
    return body[: REACHES[reach]], 4 * width


def resnet_trunk(depth: int = 101, *, deep_stem: bool = True, weights: str | None = None) -> tuple[nn.Module, int]:
    """A torchvision ResNet without its classifier, and its number of channels; maps at 1/32 of the image.

    Args:
        depth: 18, 34, 50, 101 or 152.
        deep_stem: the official code's stem of three 3x3 convolutions (3 -> 64 -> 64 -> 128) for the 7x7 one. Its
            ImageNet weights are distributed outside torchvision, so with ``weights`` only the plain stem will do.
        weights: a torchvision weight name such as "DEFAULT", or None for random ones.

    Raises:
        ValueError: no such depth, or a deep stem asked for with torchvision's weights.

    Example:
        >>> resnet_trunk(18, weights="DEFAULT")
        Traceback (most recent call last):
        ValueError: weights fit torchvision's 7x7 stem only: pass deep_stem=False, got weights='DEFAULT'
    """
    require(depth in (18, 34, 50, 101, 152), "depth must be 18, 34, 50, 101 or 152", depth)
    if deep_stem and weights is not None:
        raise ValueError(f"weights fit torchvision's 7x7 stem only: pass deep_stem=False, got weights={weights!r}")
    from torchvision import models  # costs seconds to import, so only here

    net = getattr(models, f"resnet{depth}")(weights=weights)
    stem = [net.conv1, net.bn1, net.relu]
    if deep_stem:
        stem = [m for i, o, s in ((3, 64, 2), (64, 64, 1), (64, 128, 1)) for m in conv(i, o, stride=s)]
        _widen(net, depth)
    trunk = nn.Sequential(*stem, net.maxpool, net.layer1, net.layer2, net.layer3, net.layer4)
    return trunk, net.fc.in_features


def _widen(net: Any, depth: int) -> None:
    """Give the first residual block 128 input channels, as the deep stem delivers."""
    block = net.layer1[0]
    out = 256 if depth >= 50 else 64
    block.conv1 = nn.Conv2d(128, 64, block.conv1.kernel_size, padding=block.conv1.padding, bias=False)
    block.downsample = nn.Sequential(nn.Conv2d(128, out, 1, bias=False), nn.BatchNorm2d(out))
