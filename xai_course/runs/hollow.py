"""Tensors that hold nothing: what a computation costs, counted without doing it."""

import copy
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

SHARE = {"arithmetic": 0.5, "memory": 0.6}  # of the card's peaks: what published trainings reach, see the test
LAUNCH = 40e-6  # s, for Python to start an operation


class Answers(TorchDispatchMode):
    """Where a program asks what a tensor holds it is told something that goes on: True, one half, number 0.

    Of what a mask would pick, one element of every row is picked.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            return True if args[0].dtype is torch.bool else 0.5 if args[0].is_floating_point() else 0
        if func is torch.ops.aten.nonzero.default:
            return args[0].new_empty((args[0].numel(), args[0].ndim), dtype=torch.int64)
        if func is torch.ops.aten.index.Tensor:
            args = (args[0], [each for index in args[1] for each in _whole(index)])
        return func(*args, **(kwargs or {}))


class Counts(TorchDispatchMode):
    """What every operation inside computes and moves, and how many bytes are alive at most, ``fixed`` with them."""

    def __init__(self, fixed: float = 0.0):
        super().__init__()
        self.each: list[tuple[float, float, bool]] = []  # FLOPs and bytes of an operation, whether in half precision
        self.live = self.peak = 0
        self.fixed = fixed
        self._alive: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        given, made = ([t for t in tree_leaves(part) if isinstance(t, Tensor)] for part in ((args, kwargs), out))
        for tensor in made:
            self._hold(tensor.untyped_storage())
        if func.is_view or not made or func.overloadpacket is torch.ops.aten.empty:
            return out
        count = flop_registry.get(func.overloadpacket)
        flops = count(*args, **kwargs, out_val=out) if count else 0
        half = any(t.dtype in (torch.float16, torch.bfloat16) for t in given)
        self.each.append((flops, sum(t.nbytes for t in given + made), half))
        return out

    def _hold(self, storage: Any) -> None:
        key = storage._cdata
        if key not in self._alive:
            self._alive.add(key)
            self.live += storage.nbytes()
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self._free, key, storage.nbytes())

    def _free(self, key: int, size: int) -> None:
        self._alive.discard(key)
        self.live -= size

    @property
    def flops(self) -> float:
        """Of all operations together."""
        return sum(flops for flops, _, _ in self.each)

    @property
    def memory(self) -> float:
        """GB, weights and optimiser with it."""
        return (self.fixed + self.peak) / 1e9

    def seconds(self, gpu: SimpleNamespace) -> float:
        """How long all this takes on a card."""
        rates = {half: SHARE["arithmetic"] * 1e12 * rate for half, rate in ((True, gpu.half), (False, gpu.single))}
        band = SHARE["memory"] * 1e9 * gpu.bandwidth
        return max(sum(max(f / rates[half], b / band) for f, b, half in self.each), LAUNCH * len(self.each))


def _whole(index: Tensor | None) -> list[Tensor | None]:
    """A mask as the positions of one element in every row."""
    if index is None or index.dtype is not torch.bool:
        return [index]
    return [torch.empty(len(index), dtype=torch.int64) for _ in range(index.ndim)]


@contextmanager
def hollow(*modules: Any) -> Iterator[tuple[Any, ...]]:
    """Tensors made inside hold nothing; gives copies of ``modules`` whose weights hold nothing either."""
    from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode

    with FakeTensorMode(allow_non_fake_inputs=True) as fake, Answers():
        with FakeCopyMode(fake):
            copies = copy.deepcopy(modules)
        yield copies
