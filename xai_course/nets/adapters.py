"""Foreign networks: where their output holds the logits, and whether they end as a class activation map needs it."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from .modes import device_of, evaluating

Output = str | int | Callable[[Any], Tensor]


def logits_of(out: object, output: Output | None = None) -> Tensor:
    """The logits within what a network returned.

    Args:
        out: a tensor, a dict, a tuple, or an object with fields (the outputs of transformers, Inception's tuple).
        output: a key, a field, an index or a function of ``out``; None takes a tensor itself, else ``.logits``,
            ``["logits"]``, ``["out"]`` or the first tensor of a tuple.

    Raises:
        ValueError: nothing of the kind; the message says what came.

    Example:
        >>> logits_of({"out": torch.zeros(2, 21), "aux": torch.ones(2, 21)}).sum()
        tensor(0.)
        >>> logits_of((torch.zeros(2, 3), torch.ones(2, 3)), output=1).sum()
        tensor(6.)
    """
    if output is None:
        fields = [out, getattr(out, "logits", None)]
        fields += [out.get("logits"), out.get("out")] if isinstance(out, Mapping) else []
        fields += out if isinstance(out, (tuple, list)) else []
    elif callable(output):
        fields = [output(out)]
    elif isinstance(output, str) and not isinstance(out, Mapping):
        fields = [getattr(out, output, None)]
    else:
        fields = [_item(out, output)]
    for field in fields:
        if isinstance(field, Tensor):
            return field
    got = f"{type(out).__name__} with {list(out)}" if isinstance(out, Mapping) else type(out).__name__
    wanted = "logits (a tensor, .logits, ['logits'], ['out'] or the first of a tuple)" if output is None else output
    raise ValueError(f"output: no tensor found by {wanted!r} in what the network returned, got {got}")


def _item(out: Any, key: str | int) -> object:
    try:
        return out[key]
    except (KeyError, IndexError, TypeError):
        return None


# How a layer's maps are read: as they are, behind a ReLU that is no module (DenseNet), or from channels last (Swin).
READINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "as it is": lambda maps: maps,
    "relu": torch.relu,
    "channels last": lambda maps: maps.permute(0, 3, 1, 2),
}


class GapView(nn.Module):
    """A foreign network seen as a GAP classifier: same parameters, same logits; made by `gap_classifier`.

    ``net`` is the network itself: its layers are named ``"net.layer4"``, its weights are ``view.net.state_dict()``.

    Args:
        net: the network.
        layer: name of the module whose output, read by ``reading``, is averaged over positions.
        reading: one of `READINGS`.
        linear: name of the linear layer that makes logits of the average.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
        >>> view, images = GapView(net, "1", "as it is", "4"), torch.rand(2, 3, 16, 16)
        >>> torch.allclose(view.head(view.features(images).mean((2, 3))), net(images))
        True
    """

    def __init__(self, net: nn.Module, layer: str, reading: str, linear: str):
        super().__init__()
        self.net, self.layer, self.reading, self.linear = net, layer, reading, linear

    @property
    def head(self) -> nn.Linear:
        """The network's own linear layer ``D -> K``."""
        return cast(nn.Linear, self.net.get_submodule(self.linear))

    def features(self, images: Tensor) -> Tensor:
        """Last maps ``[B, D, h, w]``. The network runs to its end, which costs little behind the maps."""
        kept: list[Tensor] = []

        def hook(_module: nn.Module, _inputs: object, out: Tensor) -> Tensor:
            kept.append(out)
            return out.clone()  # which an operation behind may change in place

        handle = self.net.get_submodule(self.layer).register_forward_hook(hook)
        try:
            self.net(images)
        finally:
            handle.remove()
        return READINGS[self.reading](kept[0])

    def embed(self, images: Tensor) -> Tensor:
        """Pooled deep features ``[B, D]``, what the linear layer reads (dropout in between is left out)."""
        return self.features(images).mean(dim=(2, 3))

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``[B, K]`` as the network itself gives them."""
        return logits_of(self.net(images))


class _Run(NamedTuple):
    """One module in the trial run: what it read and what it gave."""

    name: str
    module: nn.Module
    read: Tensor
    gave: Tensor


def gap_classifier(net: nn.Module, example: Tensor | None = None) -> GapView:
    """A foreign network with the names that class activation maps need: ``features``, ``head``, ``embed``.

    Nothing is assumed about its family: it runs once on ``example`` in eval mode, and its modules are watched. The last
    one whose output, averaged over positions, is what the last linear layer reads, gives the features. So it takes the
    ResNets, DenseNets, RegNets, EfficientNets, MobileNetV2, ShuffleNets, Inceptions and Swins of torchvision, their
    like in timm and transformers, and VGGs with global average pooling.

    Args:
        net: returns logits ``[B, K]``, or an output in which `logits_of` finds them.
        example: images ``[B, C, H, W]`` for the trial run; default two of random 64x64 pixels in the network's dtype.

    Raises:
        ValueError: the network does not run on the example; its logits are no linear layer of averaged maps. Where
            hidden layers (VGG, MobileNetV3) or a LayerNorm (ConvNeXt) stand between, the maps of the linear layer
            would not add up to the logit, and `grad_cam` is the way.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
        >>> gap_classifier(net).layer
        '1'
        >>> _ = net.insert(4, nn.LayerNorm(8))
        >>> gap_classifier(net)
        Traceback (most recent call last):
        ValueError: net must end in global average pooling and one linear layer, so that the logit is a mean over \
positions; got Sequential, where 2 (AdaptiveAvgPool2d), 4 (LayerNorm) stand between the last maps and '5': use grad_cam
    """
    if example is None:
        channels = next((m.in_channels for m in net.modules() if isinstance(m, nn.Conv2d)), 3)
        like = next(net.parameters(), torch.empty(0))
        example = torch.randn(2, channels, 64, 64, generator=torch.Generator().manual_seed(0)).to(like.dtype)
    logits, runs = _trial(net, example.to(device_of(net)))
    heads = [i for i, run in enumerate(runs) if isinstance(run.module, nn.Linear) and _same(run.gave, logits)]
    wanted = "net must end in global average pooling and one linear layer, so that the logit is a mean over positions"
    if not heads:
        raise ValueError(f"{wanted}; got {type(net).__name__}, whose logits no linear layer gives: use grad_cam")
    end = heads[-1]
    last = max((i for i in range(end) if _cells(runs[i].gave) > 1), default=-1)
    times = Counter(run.name for run in runs)
    spots = ((i, how) for i in reversed(range(end)) if times[runs[i].name] == 1 for how in READINGS)
    last, reading = next((spot for spot in spots if _averages(runs, spot, runs[end].read)), (last, ""))
    idle = (nn.Dropout, nn.Identity, nn.Flatten)
    between = [run for run in runs[last + 1 : end] if not [*run.module.children()] and not isinstance(run.module, idle)]
    if not reading or any([*run.module.parameters()] for run in between):  # a norm may be idle before it is trained
        names = [f"{run.name} ({type(run.module).__name__})" for run in between]
        names = names if len(names) <= 5 else ["...", *names[-4:]]
        raise ValueError(
            f"{wanted}; got {type(net).__name__}, where {', '.join(names)} stand between the last maps and "
            f"{runs[end].name!r}: use grad_cam"
        )
    return GapView(net, runs[last].name, reading, runs[end].name)


def _trial(net: nn.Module, example: Tensor) -> tuple[Tensor, list[_Run]]:
    """Logits of the example, and the modules in the order in which they finished."""
    runs: list[_Run] = []

    def watch(name: str) -> Callable[[nn.Module, tuple[object, ...], object], None]:
        def hook(module: nn.Module, inputs: tuple[object, ...], out: object) -> None:
            if isinstance(out, Tensor) and inputs and isinstance(inputs[0], Tensor):
                runs.append(_Run(name, module, inputs[0].clone(), out.clone()))  # an in-place operation may follow

        return hook

    hooks = [module.register_forward_hook(watch(name)) for name, module in net.named_modules() if name]
    try:
        with torch.no_grad(), evaluating(net):
            return logits_of(net(example)), runs
    except (RuntimeError, AssertionError, TypeError, IndexError) as error:
        raise ValueError(f"net must run on the example {tuple(example.shape)}: {error}; pass example=images") from error
    finally:
        for each in hooks:
            each.remove()


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.equal(a, b)


def _cells(maps: Tensor) -> int:
    """Positions of maps ``[B, D, h, w]``; 0 for anything else."""
    return maps[0, 0].numel() if maps.ndim == 4 else 0


def _averages(runs: list[_Run], spot: tuple[int, str], pooled: Tensor) -> bool:
    """Whether the means of a module's maps, of more than one position, are the pooled features, up to rounding."""
    at, reading = spot
    maps = READINGS[reading](runs[at].gave) if runs[at].gave.ndim == 4 else pooled
    if _cells(maps) < 2 or maps.shape[:2] != pooled.shape:
        return False
    gap = (maps.mean((2, 3)) - pooled).norm()
    return bool(gap <= torch.finfo(pooled.dtype).eps ** 0.5 * pooled.norm())
