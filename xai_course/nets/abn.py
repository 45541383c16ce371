"""Attention branch networks (Fukui et al., CVPR 2019): a classifier with a second head that draws the attention map.

Layer by layer as in the authors' release; its fixed 14- and 7-pixel pools are adaptive here, so any image size runs.
"""

from __future__ import annotations

import copy
from typing import NamedTuple

from torch import Tensor, nn

from .convnets import GapClassifier


class AttentionOutput(NamedTuple):
    """Logits ``[B, K]`` of the ``attention`` branch and of ``perception``, and the ``map`` ``[B, h, w]`` in (0, 1)."""

    attention: Tensor
    perception: Tensor
    map: Tensor


class AttentionBranch(nn.Module):
    """The branch: a copy of the last stage without stride, K class maps, then class scores and one attention map.

    Args:
        stage: ``[B, C, h, w] -> [B, D, h, w]``.
        width: D.
        classes: K.
    """

    def __init__(self, stage: nn.Module, width: int, classes: int):
        super().__init__()
        self.stage = stage
        self.class_maps = nn.Sequential(
            nn.BatchNorm2d(width), nn.Conv2d(width, classes, 1, bias=False), nn.BatchNorm2d(classes), nn.ReLU()
        )
        self.scores = nn.Conv2d(classes, classes, 1, bias=False)
        self.attention = nn.Sequential(nn.Conv2d(classes, 1, 3, padding=1, bias=False), nn.BatchNorm2d(1), nn.Sigmoid())

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Features ``[B, C, h, w]`` -> logits ``[B, K]`` and the attention map ``[B, h, w]``."""
        maps = self.class_maps(self.stage(features))
        return self.scores(maps).mean(dim=(2, 3)), self.attention(maps)[:, 0]


class AttentionBranchNetwork(nn.Module):
    """Trunk, attention branch, and the last stage that sees the trunk's features times (1 + attention).

    Args:
        trunk: ``[B, 3, H, W] -> [B, C, h, w]``.
        branch: an `AttentionBranch` on those features.
        stage: the last stage, ``[B, C, h, w] -> [B, D, h', w']``.
        head: ``D -> K``.

    Example:
        >>> import torch
        >>> from xai_course.nets.convnets import small_cnn
        >>> out = abn_from(small_cnn(3, width=2)).attend(torch.zeros(2, 3, 32, 32))
        >>> [tuple(each.shape) for each in (out.attention, out.perception)], out.map.ndim
        ([(2, 3), (2, 3)], 3)
    """

    def __init__(self, trunk: nn.Module, branch: AttentionBranch, stage: nn.Module, head: nn.Linear):
        super().__init__()
        self.trunk, self.branch, self.stage, self.head = trunk, branch, stage, head

    def attend(self, images: Tensor) -> AttentionOutput:
        """All three outputs of one forward pass."""
        features = self.trunk(images)
        scores, attention = self.branch(features)
        seen = self.stage(features * (1 + attention.unsqueeze(1)))
        return AttentionOutput(scores, self.head(seen.mean(dim=(2, 3))), attention)

    def forward(self, images: Tensor) -> Tensor:
        """Perception logits ``[B, K]``, the network's answer."""
        return self.attend(images).perception


def without_stride(stage: nn.Module) -> nn.Module:
    """An untied copy of a stage whose convolutions and pools keep the size of the maps; weights re-initialised."""
    stage = copy.deepcopy(stage)
    for module in stage.modules():
        if isinstance(module, nn.Conv2d):
            module.stride = (1, 1)
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
            module.reset_parameters()
    return stage


def abn_from(net: GapClassifier, cut: int = -1) -> AttentionBranchNetwork:
    """ABN on a `GapClassifier` whose body is a chain of stages; shares the net's weights, fresh branch.

    With ``torchvision_resnet("resnet50", ...)`` this is the authors' ImageNet network.

    Args:
        net: its body's children run one after the other.
        cut: the branch reads what enters stage ``cut``; the stages from there on see the attended features.

    Example:
        >>> from xai_course.nets.convnets import small_cnn
        >>> net = small_cnn(3, width=2)
        >>> abn_from(net).head is net.head
        True
    """
    stages = list(net.body.children())
    trunk, stage = nn.Sequential(*stages[:cut]), nn.Sequential(*stages[cut:])
    branch = AttentionBranch(without_stride(stage), net.head.in_features, net.head.out_features).to(net.head.weight)
    return AttentionBranchNetwork(trunk, branch, stage, net.head)
