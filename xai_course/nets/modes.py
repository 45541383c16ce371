"""Where a module computes, in which mode, and from which seed it draws."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Eval mode inside; every submodule's own mode afterwards, also after an error.

    Example:
        >>> net = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(2).eval())
        >>> with evaluating(net):
        ...     [part.training for part in net]
        [False, False]
        >>> [part.training for part in net]
        [True, False]
    """
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


@contextmanager
def seeded(seed: int | None) -> Iterator[None]:
    """Random numbers of this seed inside, the CPU's global generator as it was afterwards; None changes nothing.

    Example:
        >>> with seeded(0):
        ...     first = torch.rand(1)
        >>> with seeded(0):
        ...     torch.equal(first, torch.rand(1))
        True
    """
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        yield


def device_of(module: nn.Module) -> torch.device:
    """Where the module's parameters are, else its buffers; the CPU for a module without either.

    Example:
        >>> device_of(nn.Linear(2, 1)), device_of(nn.ReLU())
        (device(type='cpu'), device(type='cpu'))
    """
    tensors = (tensor for group in (module.parameters(), module.buffers()) for tensor in group)
    return next((tensor.device for tensor in tensors), torch.device("cpu"))
