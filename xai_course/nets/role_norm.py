"""BatchNorm for one network that is shown several kinds of images: running statistics per role, or kept as they are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch.nn.functional as F
from torch import Tensor, nn

from .._require import require


class RoleNorm(nn.Module):
    """BatchNorm2d with one set of affine parameters and one set of running statistics for each role.

    A trunk that sees whole images as a localiser and masked ones as a classifier normalises each batch by its own
    statistics in training, but by one mixed running mean in evaluation. Keeping the means apart removes the mismatch
    and changes nothing in training.

    Args:
        norm: the BatchNorm to take over; every role starts from its statistics.
        roles: how many.

    Raises:
        ValueError: a norm without running statistics.

    Example:
        >>> norm = RoleNorm(nn.BatchNorm2d(1), roles=2)
        >>> with in_role(norm, 1):
        ...     _ = norm(torch.full((2, 1, 2, 2), 5.0))
        >>> norm.means.flatten()  # only the second role has seen something
        tensor([0.0000, 0.5000])
    """

    means: Tensor
    variances: Tensor

    def __init__(self, norm: nn.BatchNorm2d, roles: int):
        super().__init__()
        if norm.running_mean is None or norm.running_var is None or norm.momentum is None:
            raise ValueError(f"norm must keep running statistics with a momentum, got {norm}")
        self.weight, self.bias, self.eps, self.role = norm.weight, norm.bias, norm.eps, 0
        self.momentum: float = norm.momentum
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

    Example:
        >>> norms_by_role(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)))[1].means.shape
        torch.Size([3, 4])
    """
    require(roles >= 2, "roles must be at least 2", roles)
    for name, child in net.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(net, name, RoleNorm(child, roles))
        else:
            norms_by_role(child, roles)
    return net


@contextmanager
def in_role(net: nn.Module, role: int) -> Iterator[None]:
    """Within the block every `RoleNorm` of ``net`` uses the statistics of ``role``; outside, those of role 0.

    Raises:
        ValueError: a role that a norm does not have.

    Example:
        >>> norm = RoleNorm(nn.BatchNorm2d(1), roles=2)
        >>> with in_role(norm, 1):
        ...     norm.role
        1
        >>> norm.role
        0
    """
    norms = [m for m in net.modules() if isinstance(m, RoleNorm)]
    for norm in norms:
        require(0 <= role < len(norm.means), f"role must be one of 0..{len(norm.means) - 1}", role)
        norm.role = role
    try:
        yield
    finally:
        for norm in norms:
            norm.role = 0


@contextmanager
def frozen_statistics(net: nn.Module | None) -> Iterator[None]:
    """BatchNorm in train mode, but its running statistics and their count stay as they are; None does nothing.

    Example:
        >>> norm = nn.BatchNorm2d(1)
        >>> with frozen_statistics(norm):
        ...     _ = norm(torch.full((2, 1, 2, 2), 5.0))
        >>> norm.running_mean, norm.momentum
        (tensor([0.]), 0.1)
    """
    kinds = (nn.modules.batchnorm._BatchNorm, RoleNorm)
    norms = [m for m in net.modules() if isinstance(m, kinds)] if net is not None else []
    counts = [getattr(m, "num_batches_tracked", None) for m in norms]
    kept = [(m.momentum, None if count is None else count.clone()) for m, count in zip(norms, counts)]
    for m in norms:
        m.momentum = 0.0
    try:
        yield
    finally:
        for m, count, (momentum, before) in zip(norms, counts, kept):
            m.momentum = momentum
            if count is not None:
                count.copy_(before)
