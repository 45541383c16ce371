"""BatchNorm for one network that is shown several kinds of images: shared weights, running statistics per role."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RoleNorm(nn.Module):
    """BatchNorm2d with one set of affine parameters and one set of running statistics for each role.

    A trunk that sees whole images as a localiser and masked ones as a classifier normalises each batch by its own
    statistics in training, but by one mixed running mean in evaluation. Keeping the means apart removes the mismatch
    and changes nothing in training.

    Args:
        norm: the BatchNorm to take over; every role starts from its statistics.
        roles: how many.
    """

    def __init__(self, norm: nn.BatchNorm2d, roles: int):
        super().__init__()
        self.weight, self.bias, self.eps, self.momentum, self.role = norm.weight, norm.bias, norm.eps, norm.momentum, 0
        self.register_buffer("means", norm.running_mean.repeat(roles, 1))
        self.register_buffer("variances", norm.running_var.repeat(roles, 1))

    def forward(self, x: Tensor) -> Tensor:
        """``[B, D, h, w]``, normalised by the batch (training) or by this role's running statistics."""
        mean, variance = self.means[self.role], self.variances[self.role]  # views: updated in place
        return F.batch_norm(x, mean, variance, self.weight, self.bias, self.training, self.momentum, self.eps)


def norms_by_role(net: nn.Module, roles: int = 3) -> nn.Module:
    """Replace every BatchNorm2d of ``net`` by a `RoleNorm`, in place.

    Raises:
        ValueError: fewer than two roles.
    """
    if roles < 2:
        raise ValueError(f"roles must be at least 2, got {roles}")
    for name, child in net.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(net, name, RoleNorm(child, roles))
        else:
            norms_by_role(child, roles)
    return net


@contextmanager
def in_role(net: nn.Module, role: int) -> Iterator[None]:
    """Within the block every `RoleNorm` of ``net`` uses the statistics of ``role``; outside, those of role 0."""
    norms = [m for m in net.modules() if isinstance(m, RoleNorm)]
    for norm in norms:
        if not 0 <= role < len(norm.means):
            raise ValueError(f"role must be one of 0..{len(norm.means) - 1}, got {role}")
        norm.role = role
    try:
        yield
    finally:
        for norm in norms:
            norm.role = 0


@torch.no_grad()
def statistics_gap(norm: RoleNorm, role: int) -> float:
    """How far a role's running means lie from those of role 0, in standard deviations of role 0, root mean square."""
    shift = (norm.means[role] - norm.means[0]) / norm.variances[0].clamp_min(norm.eps).sqrt()
    return float(shift.square().mean().sqrt())
