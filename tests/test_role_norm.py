"""Running statistics per role: training unchanged, evaluation by the statistics of what was seen in that role."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from xai_course.nets.role_norm import RoleNorm, in_role, norms_by_role


def test_training_is_batchnorm_to_the_bit():
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4)
    nn.init.normal_(norm.weight), nn.init.normal_(norm.bias)
    ours, x = RoleNorm(norm, 3), torch.randn(5, 4, 3, 3)
    with in_role(ours, 2):
        assert torch.equal(ours(x), norm(x))
    assert torch.equal(ours.means[2], norm.running_mean) and torch.equal(ours.variances[2], norm.running_var)
    assert torch.equal(ours.means[0], torch.zeros(4)) and torch.equal(ours.means[1], torch.zeros(4))


def test_evaluation_uses_the_role():
    ours = norms_by_role(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(nn.BatchNorm2d(4))), 2)
    dark, light = torch.randn(64, 3, 8, 8), torch.randn(64, 3, 8, 8) + 5
    for _ in range(80):
        ours(dark)
        with in_role(ours, 1):
            ours(light)
    ours.eval()
    with in_role(ours, 1):
        assert ours(light).mean().abs() < 0.05
    assert ours(dark).mean().abs() < 0.05 and ours(light).mean().abs() > 0.5
    ours_means = ours[1][0].means
    assert (ours_means[1] - ours_means[0]).norm() > 1
    assert ours[1][0].role == 0


def test_affine_parameters_stay_shared():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    before = sum(p.numel() for p in net.parameters())
    assert sum(p.numel() for p in norms_by_role(net).parameters()) == before


def test_bad_roles():
    net = norms_by_role(nn.Sequential(nn.BatchNorm2d(2)), 2)
    with pytest.raises(ValueError, match="role must"), in_role(net, 2):
        pass
    with pytest.raises(ValueError, match="roles must"):
        norms_by_role(net, 1)
