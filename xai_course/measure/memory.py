"""Peak memory that graphs hold for their backward pass, counted on any device, the CPU included."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks


class SavedActivations:
    """Bytes held now (``live``) and at most so far (``peak``). Parameters are left out: they stay anyway.

    Example:
        >>> SavedActivations(nn.ReLU()).peak
        0
    """

    def __init__(self, module: nn.Module):
        self.live, self.peak = 0, 0
        self._parameters = {p.untyped_storage().data_ptr() for p in module.parameters()}

    def _hold(self, tensor: Tensor) -> _Held:
        counts = tensor.untyped_storage().data_ptr() not in self._parameters
        return _Held(self, tensor, tensor.nbytes if counts else 0)


class _Held:
    """A saved tensor that takes itself off the account when its graph lets it go."""

    def __init__(self, account: SavedActivations, tensor: Tensor, size: int):
        self.account, self.tensor, self.size = account, tensor, size
        account.live += size
        account.peak = max(account.peak, account.live)

    def __del__(self) -> None:
        self.account.live -= self.size


@contextmanager
def saved_activations(module: nn.Module) -> Iterator[SavedActivations]:
    """Counts inside the ``with`` block. A tensor saved by two operations counts twice, as an upper bound.

    Args:
        module: whose parameters are not counted.

    Example:
        >>> import torch
        >>> net = nn.Linear(3, 2)
        >>> with saved_activations(net) as account:
        ...     loss = net(torch.ones(5, 3)).square().sum()
        >>> account.peak  # the input (60 bytes) and what was squared (40)
        100
    """
    account = SavedActivations(module)
    with saved_tensors_hooks(account._hold, lambda held: held.tensor):
        yield account
