"""Class activation maps and Grad-CAM as differentiable quantities. Knows no method, no trainer, no data set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BATCH_NORM = ("keep", "frozen")


class GradCam(NamedTuple):
    """What one `grad_cam` call returns: a map ``[B, h, w]`` for each layer, and the logits ``[B, K]`` beside them."""

    maps: list[Tensor]
    logits: Tensor


class UnitMass(NamedTuple):
    """Maps ``[..., h, w]`` that sum to one, and which of them, ``[...]`` bool, had no mass and were left all zero."""

    maps: Tensor
    dead: Tensor


def gap_head(net: nn.Module) -> nn.Linear:
    """The linear layer behind global average pooling of a network with ``features`` and ``head``.

    Raises:
        ValueError: the network has no such head, so it has no class activation maps.
    """
    head = getattr(net, "head", None)
    if not isinstance(head, nn.Linear) or not callable(getattr(net, "features", None)):
        raise ValueError(
            "net must end in global average pooling and one linear layer (attributes features and head), "
            f"got {type(net).__name__}"
        )
    return head


def class_activation_map(
    features: Tensor, weight: Tensor, bias: Tensor | None = None, classes: Tensor | None = None
) -> Tensor:
    r"""Class activation maps (Zhou et al. 2016, Eq. 2), :math:`M_c(i,j) = \sum_d w_{cd} A_d(i,j) \;(+\, b_c)`.

    The spatial mean of the map is the logit: without its bias where ``bias`` is None, with it otherwise. Only the rows
    asked for are computed: the cost is B*k*D*h*w multiply-adds, not B*K*D*h*w.

    Args:
        features: ``[B, D, h, w]``, what global average pooling reads.
        weight: ``[K, D]`` of the linear layer behind the pooling.
        bias: ``[K]`` or None, added to every cell.
        classes: ``[B, k]`` or ``[B]`` int64 in [0, K); None means all K classes.

    Returns:
        ``[B, k, h, w]``, ``[B, h, w]`` or ``[B, K, h, w]``, with its sign; differentiable. Inside autocast the product
        runs in the autocast dtype, as the linear layer does.

    Raises:
        ValueError: shapes that do not fit, or (on the CPU) a class out of range.
    """
    check_linear(features, weight, bias)
    dtype = torch.promote_types(features.dtype, weight.dtype)
    flat, weight = features.flatten(2).to(dtype), weight.to(dtype)
    if classes is None:
        shape, rows, shift = (len(features), len(weight)), weight, bias
    else:
        check_classes(classes, len(features), len(weight), dims=(1, 2))
        # index_select and not weight[classes]: its backward is one index_add instead of a sorted scatter
        shape, chosen = tuple(classes.shape), trackable(classes).flatten()
        rows = weight.index_select(0, chosen).view(len(features), -1, weight.shape[1])
        shift = None if bias is None else bias.index_select(0, chosen).view(len(features), -1)
    maps = rows @ flat
    if shift is not None:
        maps = maps + shift.unsqueeze(-1)
    return maps.view(*shape, *features.shape[2:])


def grad_cam(
    net: nn.Module,
    images: Tensor,
    classes: Tensor,
    layers: Sequence[str | nn.Module],
    *,
    create_graph: bool = False,
    relu: bool = True,
    batch_norm: str = "keep",
) -> GradCam:
    r"""Grad-CAM (Selvaraju et al. 2017, Eq. 1-2) of several layers from one forward and one ``autograd.grad``.

    .. math:: \alpha_d = \frac{1}{hw} \sum_{i,j} \frac{\partial s_c}{\partial A_d(i,j)}, \qquad
              L(i,j) = \mathrm{ReLU}\Bigl(\sum_d \alpha_d A_d(i,j)\Bigr), \qquad s_c \text{ the logit.}

    The network comes back as it went in: no hook left (even after an error), train/eval mode and ``.grad`` as before.
    Works on frozen networks, under ``no_grad`` and ``inference_mode``, under autocast, and where an in-place operation
    follows the layer (the operation gets a copy).

    **BatchNorm.** In train mode every sample's logit depends on all images of the batch. One backward pass of the
    summed logits then yields the gradient of the *sum*, not of the own logit: exact behind the last BatchNorm, off by
    tens of per cent before it. ``"keep"`` accepts this (and, like any forward, updates the running statistics);
    ``"frozen"`` uses the running statistics in this call, for the maps and the logits, and leaves them untouched.

    Args:
        net: ``[B, C, H, W] -> [B, K]`` logits; may be wrapped in DistributedDataParallel without static_graph.
        images: ``[B, C, H, W]``.
        classes: ``[B]`` int64 in [0, K), one target for each image.
        layers: names as in ``net.named_modules()`` or the modules themselves; each must output ``[B, D, h, w]``, once.
        create_graph: keep maps and logits differentiable with respect to parameters and images, second-order term
            included. False detaches both and frees the graph.
        relu: cut negative evidence.
        batch_norm: ``"keep"`` or ``"frozen"``.

    Returns:
        Maps ``[B, h, w]`` in the order of ``layers``, float32 (float64 for float64 networks), and the logits.

    Raises:
        ValueError: unknown layer (the message lists the valid ones), a layer that did not run exactly once or does not
            lead to the logits, wrong shapes, an empty batch, a network that is compiled, made in inference mode, or DDP
            with static_graph.
    """
    _check_net(net)
    inner = net.module if isinstance(net, nn.parallel.DistributedDataParallel) else net
    if batch_norm not in BATCH_NORM:
        raise ValueError(f"batch_norm must be one of {BATCH_NORM}, got {batch_norm!r}")
    named = _find_layers(inner, [layers] if isinstance(layers, (str, nn.Module)) else layers)
    seen: list[list[Tensor]] = [[] for _ in named]
    with ExitStack() as stack:
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        if batch_norm == "frozen":
            stack.enter_context(frozen_batch_norm(inner))
        for (name, layer), outputs in zip(named, seen):
            stack.callback(layer.register_forward_hook(_capture(name, outputs)).remove)
        logits = net(trackable(images))
        for (name, _), outputs in zip(named, seen):
            if len(outputs) != 1:
                raise ValueError(f"layers: {name!r} must run once in a forward pass, it ran {len(outputs)} times")
        features = [outputs[0] for outputs in seen]
        names = [f"layers: {name!r}" for name, _ in named]
        maps = _weighted_sums(logits, features, names, classes, create_graph, create_graph, relu)
    return GradCam(maps, logits if create_graph else logits.detach())


def grad_cam_from(
    logits: Tensor,
    features: Sequence[Tensor],
    classes: Tensor,
    *,
    create_graph: bool = False,
    relu: bool = True,
) -> list[Tensor]:
    """`grad_cam` for who holds the graph already: maps of ``features`` that ``logits`` were computed from.

    Args:
        logits: ``[B, K]``.
        features: tensors ``[B, D, h, w]`` of the same forward pass, not detached, not changed in place afterwards.
        classes: ``[B]`` int64.
        create_graph: keep the maps differentiable; False detaches them. The caller's graph survives in both cases.
        relu: cut negative evidence.

    Returns:
        One map ``[B, h, w]`` for each feature tensor, float32 (float64 for float64 features).

    Raises:
        ValueError: a tensor without a path to the logits, wrong shapes, an empty batch.
    """
    names = [f"features[{i}]" for i in range(len(features))]
    with torch.enable_grad():
        return _weighted_sums(logits, list(features), names, classes, create_graph, True, relu)


@contextmanager
def frozen_batch_norm(net: nn.Module) -> Iterator[None]:
    """Inside, every BatchNorm of ``net`` normalises with its running statistics and does not update them.

    Raises:
        ValueError: a BatchNorm without running statistics has nothing to freeze to.
    """
    norms = [m for m in net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    if any(norm.running_mean is None for norm in norms):
        raise ValueError('batch_norm="frozen" needs running statistics, got a BatchNorm with track_running_stats=False')
    modes = [norm.training for norm in norms]
    try:
        for norm in norms:
            norm.training = False
        yield
    finally:
        for norm, mode in zip(norms, modes):
            norm.training = mode


def normalise(maps: Tensor) -> Tensor:
    """Each map ``[..., h, w]``, non-negative, divided by its maximum; a map without positive entry stays as it is."""
    peak = maps.amax(dim=(-2, -1), keepdim=True)
    return maps / torch.where(peak <= 0, torch.ones_like(peak), peak)  # a NaN stays visible


def enlarge(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Maps ``[B, h, w]`` at the size ``(H, W)`` of the images, bilinear between the centres of the cells.

    Example:
        >>> enlarge(torch.tensor([[[0.0, 1.0]]]), (1, 4))
        tensor([[[0.0000, 0.2500, 0.7500, 1.0000]]])
    """
    return F.interpolate(maps.unsqueeze(1), tuple(size), mode="bilinear", align_corners=False)[:, 0]


def unit_mass(maps: Tensor, floor: float = 1e-20) -> UnitMass:
    """Each map ``[..., h, w]``, non-negative, divided by its sum; value and gradient are zero where the sum <= floor.

    Dividing, not adding an epsilon, keeps the result independent of the scale of the logits. Watch the share of
    ``dead`` maps: a penalty on normalised maps is also satisfied by maps that are zero everywhere.
    """
    total = maps.sum(dim=(-2, -1), keepdim=True)
    dead = total <= floor
    scaled = maps / torch.where(dead, torch.ones_like(total), total)
    return UnitMass(torch.where(dead, torch.zeros_like(scaled), scaled), dead[..., 0, 0])


def _weighted_sums(
    logits: Tensor,
    features: list[Tensor],
    names: list[str],
    classes: Tensor,
    create_graph: bool,
    retain_graph: bool,
    relu: bool,
) -> list[Tensor]:
    """Eq. 1 and 2 for all layers: one gradient of the summed logits, then a channel-weighted sum for each layer."""
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(f"the network must return logits [B, K], got {got}")
    check_classes(classes, *logits.shape, dims=(1,))
    if not features:
        raise ValueError("at least one layer is needed, got none")
    for name, feature in zip(names, features):
        if feature.ndim != 4 or len(feature) != len(logits) or not feature.requires_grad:
            raise ValueError(
                f"{name} must be maps [B, D, h, w] with B={len(logits)} in the graph of the logits, "
                f"got {tuple(feature.shape)}, requires_grad={feature.requires_grad}"
            )
    with torch.autocast(logits.device.type, enabled=False):  # in the precision of the graph or better
        score = logits.gather(1, trackable(classes).unsqueeze(1).to(logits.device)).sum()
        gradients = torch.autograd.grad(
            score, features, create_graph=create_graph, retain_graph=retain_graph, allow_unused=True
        )
        maps = []
        for name, feature, gradient in zip(names, features, gradients):
            if gradient is None:
                raise ValueError(f"{name} has no path to the logits")
            dtype = torch.promote_types(feature.dtype, torch.float32)
            alpha = gradient.to(dtype).mean(dim=(2, 3))  # Eq. 1
            values = (feature if create_graph else feature.detach()).to(dtype)
            total = torch.einsum("bd,bdhw->bhw", alpha, values)  # Eq. 2
            maps.append(total.relu() if relu else total)
    return maps


def _capture(name: str, outputs: list[Tensor]):
    """A forward hook that keeps a layer's output as a graph node and hands on a copy, which may be changed in place."""

    def hook(_module, _inputs, output):
        if not isinstance(output, Tensor) or output.ndim != 4:
            got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise ValueError(f"layers: {name!r} must output maps [B, D, h, w], got {got}")
        kept = output if output.requires_grad else output.detach().requires_grad_()  # all frozen below: start here
        outputs.append(kept)
        return kept.clone()

    return hook


def _find_layers(net: nn.Module, layers: Sequence[str | nn.Module]) -> list[tuple[str, nn.Module]]:
    """Names and modules of the layers asked for, in that order."""
    by_name = dict(net.named_modules())
    names = {id(module): name for name, module in by_name.items()}
    found = []
    for layer in layers:
        module = by_name.get(layer) if isinstance(layer, str) else layer
        if id(module) not in names or not isinstance(module, nn.Module):
            got = repr(layer) if isinstance(layer, str) else f"a {type(layer).__name__} that is not part of net"
            raise ValueError(f"layers: each must be a module of net or one of {[n for n in by_name if n]}, got {got}")
        found.append((names[id(module)], module))
    if not found:
        raise ValueError("layers must name at least one layer, got none")
    return found


def _check_net(net: nn.Module) -> None:
    """Refuses networks under which gradients of maps are silently wrong or fail in the dark."""
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


def trackable(tensor: Tensor) -> Tensor:
    """The tensor, or a copy of one that inference mode made, which autograd refuses to save (call it outside)."""
    return tensor.clone() if tensor.is_inference() else tensor


def check_linear(features: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    """Raises ValueError unless they are ``[B, D, h, w]``, ``[K, D]`` and ``[K]`` or None."""
    if features.ndim != 4 or weight.ndim != 2 or weight.shape[1] != features.shape[1]:
        raise ValueError(
            f"features must be [B, D, h, w] and weight [K, D], got {tuple(features.shape)} and {tuple(weight.shape)}"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"bias must be [K] with K={len(weight)}, got {tuple(bias.shape)}")


def check_classes(classes: Tensor, batch: int, total: int, *, dims: tuple[int, ...]) -> None:
    """``[B]`` or ``[B, k]`` integers in range, B > 0. The range is read on the CPU only: elsewhere it would stall."""
    if not batch:
        raise ValueError("the batch must hold at least one image, got an empty one")
    if classes.dtype != torch.int64 or classes.ndim not in dims or len(classes) != batch:
        wanted = " or ".join(("[B]", "[B, k]")[d - 1] for d in dims)
        raise ValueError(f"classes must be {wanted} int64 with B={batch}, got {tuple(classes.shape)} {classes.dtype}")
    if classes.device.type == "cpu" and classes.numel() and not 0 <= classes.min() <= classes.max() < total:
        raise ValueError(f"classes must lie in [0, {total}), got {classes.min()} to {classes.max()}")
