"""Reaching into a foreign network: the layers asked for, their outputs as graph nodes, everything put back."""

import difflib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from .._require import require
from ..nets.modes import evaluating

BATCH_NORM = ("keep", "frozen")


@contextmanager
def frozen_batch_norm(net: nn.Module) -> Iterator[None]:
    """Inside, every BatchNorm of ``net`` normalises with its running statistics and does not update them.

    Raises:
        ValueError: a BatchNorm without running statistics has nothing to freeze to.

    Example:
        >>> net = nn.BatchNorm2d(3)  # in train mode: one image alone would be normalised to zero
        >>> with frozen_batch_norm(net):
        ...     net(torch.ones(1, 3, 1, 1)).flatten().detach()
        tensor([1.0000, 1.0000, 1.0000])
    """
    norms = [m for m in net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    tracked = all(norm.running_mean is not None for norm in norms)
    require(tracked, 'batch_norm="frozen" needs running statistics, got a BatchNorm with track_running_stats=False')
    with ExitStack() as stack:
        for norm in norms:
            stack.enter_context(evaluating(norm))
        yield


@contextmanager
def tracking(net: nn.Module, create_graph: bool, batch_norm: str) -> Iterator[nn.Module]:
    """Inside, a forward pass of ``net`` builds a graph whatever the caller's mode; yields the network behind DDP.

    Where that graph is to be differentiated twice, attention runs in its plain form: the fused kernels have no second
    derivative.

    Raises:
        ValueError: an unknown ``batch_norm``; a network that is compiled, made in inference mode, or DDP(static_graph).

    Example:
        >>> net = nn.Linear(2, 1)
        >>> with torch.no_grad(), tracking(net, create_graph=True, batch_norm="keep"):
        ...     net(torch.ones(1, 2)).requires_grad
        True
    """
    check_net(net)
    inner = net.module if isinstance(net, nn.parallel.DistributedDataParallel) else net
    require(batch_norm in BATCH_NORM, f"batch_norm must be one of {BATCH_NORM}", repr(batch_norm))
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        if batch_norm == "frozen":
            stack.enter_context(frozen_batch_norm(inner))
        if create_graph:
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        yield inner


@contextmanager
def captured(named: Sequence[tuple[str, nn.Module]]) -> Iterator[list[list[Tensor]]]:
    """Inside, what each layer outputs is kept as a graph node, one list for each layer. The hooks go when it ends.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(inplace=True))
        >>> with captured([("0", net[0])]) as kept:
        ...     _ = net(torch.zeros(1, 1, 4, 4))
        >>> kept[0][0].shape
        torch.Size([1, 2, 4, 4])
    """
    kept: list[list[Tensor]] = [[] for _ in named]
    with ExitStack() as stack:
        for (name, layer), outputs in zip(named, kept):
            stack.callback(layer.register_forward_hook(_capture(name, outputs)).remove)
        yield kept


def _capture(name: str, outputs: list[Tensor]) -> Callable[[nn.Module, object, object], object]:
    """A forward hook that keeps a layer's output as a graph node and hands on a copy, which may be changed in place."""

    def hook(_module: nn.Module, _inputs: object, output: object) -> object:
        first = output[0] if isinstance(output, tuple) and output else output
        if not isinstance(first, Tensor):
            raise ValueError(f"layers: {name!r} must output a tensor, got {type(first).__name__}")
        node = first if first.requires_grad else first.detach().requires_grad_()  # all frozen below: start here
        outputs.append(node)
        return (node.clone(), *output[1:]) if isinstance(output, tuple) else node.clone()

    return hook


def find_layers(net: nn.Module, layers: str | nn.Module | Sequence[str | nn.Module]) -> list[tuple[str, nn.Module]]:
    """Names and modules of the layers asked for, in that order.

    Raises:
        ValueError: none asked for, or one that is not in the network; the message names the nearest.

    Example:
        >>> find_layers(nn.Sequential(nn.Identity(), nn.ReLU()), "2")
        Traceback (most recent call last):
        ValueError: layers: '2' is none of the 2 modules of net; nearest are '1', '0'
    """
    net = net.module if isinstance(net, nn.parallel.DistributedDataParallel) else net
    by_name = dict(net.named_modules())
    names = {id(module): name for name, module in by_name.items()}
    found = []
    for layer in [layers] if isinstance(layers, (str, nn.Module)) else layers:
        module = by_name.get(layer) if isinstance(layer, str) else layer
        if isinstance(layer, str) and module is None:
            near = difflib.get_close_matches(layer, filter(None, by_name), n=3, cutoff=0)
            what = f"layers: {layer!r} is none of the {len(by_name) - 1} modules of net"
            raise ValueError(f"{what}; nearest are {', '.join(map(repr, near))}")
        if not isinstance(module, nn.Module) or id(module) not in names:
            kind = type(layer).__name__
            raise ValueError(f"layers must be names or modules of net, got a {kind} that is not part of net")
        found.append((names[id(module)], module))
    require(found, "layers must name at least one layer, got none")
    return found


def check_net(net: nn.Module) -> None:
    """Refuses networks under which gradients of maps are silently wrong or fail in the dark.

    Raises:
        ValueError: DistributedDataParallel with static_graph, a compiled network, one made in inference mode.

    Example:
        >>> with torch.inference_mode():
        ...     net = nn.Linear(2, 1)
        >>> check_net(net)
        Traceback (most recent call last):
        ValueError: net must not be made or loaded inside torch.inference_mode: autograd cannot use its parameters; \
got such a Linear
    """
    if isinstance(net, nn.parallel.DistributedDataParallel) and net.static_graph:
        raise ValueError(
            "net must not be DistributedDataParallel(static_graph=True): the backward pass of the maps uses up the "
            "step's one averaging, and every process silently keeps its own gradients; got static_graph=True, use False"
        )
    for name, module in net.named_modules():
        if hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None:
            raise ValueError(
                "net must not be compiled: compiled graphs ignore hooks added later and do not support the second "
                f"derivative; got a compiled {name or 'net'}, pass the module it was made from"
            )
    if any(t.is_inference() for t in (*net.parameters(), *net.buffers())):
        raise ValueError(
            "net must not be made or loaded inside torch.inference_mode: autograd cannot use its parameters; "
            f"got such a {type(net).__name__}"
        )
