"""Grad-CAM and the gradient at the image, for any network and target, so that both can stand in a loss."""

import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .._require import require
from ..nets.adapters import Output, logits_of
from .hooks import captured, find_layers, tracking
from .reshape import Layer, Reshape, check_maps
from .targets import Classes, Target, scores, trackable
from .variants import VARIANTS


class GradCam(NamedTuple):
    """What one `grad_cam` call returns: a map ``[B, h, w]`` for each layer, and the logits ``[B, K]`` beside them."""

    maps: list[Tensor]
    logits: Tensor


class InputGradient(NamedTuple):
    """What one `input_gradient` call returns: ``[B, C, H, W]`` with its sign, and the logits ``[B, K]`` beside it."""

    gradient: Tensor
    logits: Tensor


def grad_cam(
    net: nn.Module,
    images: Tensor,
    classes: Classes | None = None,
    layers: str | nn.Module | Sequence[str | nn.Module] = (),
    *,
    target: Target | None = None,
    variant: str = "grad_cam",
    reshape: Reshape | None = None,
    output: Output | None = None,
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

    **Transformers.** Their layers give tokens, or channels last: ``reshape`` says how they lie. Where the class token
    alone is read, the patches' tokens of the last block decide nothing: take what enters the last attention.

    Args:
        net: ``[B, C, H, W] ->`` logits ``[B, K]``; may be wrapped in DistributedDataParallel without static_graph.
        images: ``[B, C, H, W]``.
        classes: what is explained: one class for all images, ``[B]`` ints or int64 in [0, K), or ``[B, k]``: several
            for each image, at one backward pass each.
        layers: a name as in ``net.named_modules()``, a module, or a list of them; each must run once and output
            ``[B, D, h, w]``, or what ``reshape`` makes so.
        target: instead of classes, any differentiable function of the logits, ``-> [B]`` or ``[B, k]``, such as
            ``lambda z: z[:, 3] - z[:, 5]``; row i must read image i alone.
        variant: ``"grad_cam"``, ``"hirescam"``, ``"layer_cam"`` or ``"grad_cam++"``, see `xai_course.maps.variants`.
        reshape: features ``-> [B, D, h, w]``: `tokens` (1), `channels_last`, or any reordering of the entries.
        output: where the network's output holds the logits: a key, an index or a function; None finds them in a tensor,
            ``.logits``, ``["logits"]``, ``["out"]`` or at the head of a tuple.
        create_graph: keep maps and logits differentiable with respect to parameters and images, second-order term
            included. False detaches both and frees the graph.
        relu: cut negative evidence.
        batch_norm: ``"keep"`` or ``"frozen"``.

    Returns:
        Maps ``[B, h, w]`` (``[B, k, h, w]`` for k targets) in the order of ``layers``, float32 (float64 for float64
        networks), and the logits.

    Raises:
        ValueError: unknown layer (the message names the nearest), a layer that did not run exactly once or does not
            lead to the logits, channels last or tokens without reshape, wrong shapes, an empty batch, a network that is
            compiled, made in inference mode, or DDP with static_graph.

    Example:
        >>> from xai_course.nets.convnets import small_cnn
        >>> net, images = small_cnn(10, width=4, seed=0), torch.zeros(2, 3, 32, 32)
        >>> maps, logits = grad_cam(net, images, [3, 7], ["body.1", "body.4"], create_graph=True)
        >>> [tuple(m.shape) for m in maps], maps[0].requires_grad
        ([(2, 16, 16), (2, 8, 8)], True)
    """
    rule = _rule(variant, relu)
    with tracking(net, create_graph, batch_norm) as inner:
        named = find_layers(inner, layers)
        with captured(named) as kept:
            logits = logits_of(net(trackable(images)), output)
        for (name, _), outputs in zip(named, kept):
            require(len(outputs) == 1, f"layers: {name!r} must run once in a forward pass, it ran {len(outputs)} times")
        score = scores(logits, classes, target, type(inner).__name__)
        size = tuple(images.shape[2:]) if images.ndim == 4 and reshape is None else None
        features = [Layer(f"layers: {name!r}", outputs[0], size, m) for (name, m), outputs in zip(named, kept)]
        maps = _maps(score, features, rule, reshape, create_graph, create_graph)
    return GradCam(maps, logits if create_graph else logits.detach())


def grad_cam_from(
    logits: Tensor,
    features: Sequence[Tensor],
    classes: Classes | None = None,
    *,
    target: Target | None = None,
    variant: str = "grad_cam",
    reshape: Reshape | None = None,
    create_graph: bool = False,
    relu: bool = True,
) -> list[Tensor]:
    """`grad_cam` for who holds the graph already: maps of ``features`` that ``logits`` were computed from.

    Without images nothing can tell channels last from channels first. A network with attention must have run inside
    ``torch.nn.attention.sdpa_kernel(SDPBackend.MATH)`` if the maps are to be differentiated.

    Args:
        logits: ``[B, K]``.
        features: tensors ``[B, D, h, w]`` of the same forward pass, not detached, not changed in place afterwards.
        classes, target, variant, reshape, relu: as in `grad_cam`.
        create_graph: keep the maps differentiable; False detaches them. The caller's graph survives in both cases.

    Returns:
        One map ``[B, h, w]`` for each feature tensor, float32 (float64 for float64 features).

    Raises:
        ValueError: a tensor without a path to the logits, wrong shapes, an empty batch.

    Example:
        >>> features = torch.tensor([[[[1.0, 2.0]], [[0.0, 1.0]]]], requires_grad=True)
        >>> logits = features.mean((2, 3)) @ torch.tensor([[1.0, 2.0], [-1.0, 0.5]])
        >>> grad_cam_from(logits, [features], 1)  # the CAM divided by the number of cells
        [tensor([[[1.0000, 2.2500]]])]
    """
    rule = _rule(variant, relu)
    with torch.enable_grad():
        score = scores(logits, classes, target)
        named = [Layer(f"features[{i}]", each) for i, each in enumerate(features)]
        return _maps(score, named, rule, reshape, create_graph, True)


def input_gradient(
    net: nn.Module,
    images: Tensor,
    classes: Classes | None = None,
    *,
    target: Target | None = None,
    output: Output | None = None,
    create_graph: bool = False,
    batch_norm: str = "keep",
) -> InputGradient:
    r"""The gradient at the image, :math:`\partial s_b / \partial x_b`: which pixels a small change would act on.

    What the right-for-the-right-reasons loss (Ross et al., IJCAI 2017) penalises, with
    ``target=lambda z: z.log_softmax(1).sum(1)``; its absolute value is the saliency map of Simonyan et al. (2014).

    Args:
        net, classes, target, output, create_graph, batch_norm: as in `grad_cam`.
        images: ``[B, C, H, W]``, or any floating-point input ``[B, ...]`` of the network.

    Returns:
        The gradient in the shape of ``images`` (``[B, k, ...]`` for k targets), with its sign and in its dtype, and the
        logits.

    Raises:
        ValueError: as `grad_cam`; images that do not lead to the logits.

    Example:
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
        >>> gradient, logits = input_gradient(net, torch.rand(1, 1, 2, 2), 1)
        >>> torch.equal(gradient.flatten(), net[1].weight[1])
        True
    """
    with tracking(net, create_graph, batch_norm) as inner:
        pixels = trackable(images)
        pixels = pixels if pixels.requires_grad else pixels.detach().requires_grad_()
        logits = logits_of(net(pixels.clone()), output)
        score = scores(logits, classes, target, type(inner).__name__)
        columns = [each[0] for each in _gradients(score, [Layer("images", pixels)], create_graph, create_graph)]
    gradient = columns[0] if score.ndim == 1 else torch.stack(columns, 1)
    return InputGradient(gradient, logits if create_graph else logits.detach())


def _rule(variant: str, relu: bool) -> Callable[[Tensor, Tensor], Tensor]:
    """The formula of a variant, with the ReLU at its end where it is wanted."""
    require(variant in VARIANTS, f"variant must be one of {', '.join(VARIANTS)}", repr(variant))
    formula = VARIANTS[variant]
    return (lambda features, gradient: formula(features, gradient).relu()) if relu else formula


def _gradients(score: Tensor, layers: Sequence[Layer], create_graph: bool, retain_graph: bool) -> list[list[Tensor]]:
    """For each target the gradients of its sum over the batch with respect to all features: one backward pass each."""
    columns = [score] if score.ndim == 1 else list(score.unbind(1))
    found = []
    for column in columns:
        keep = retain_graph or column is not columns[-1]
        inputs = [layer.features for layer in layers]
        gradients = torch.autograd.grad(
            column.sum(), inputs, create_graph=create_graph, retain_graph=keep, allow_unused=True
        )
        for layer, gradient in zip(layers, gradients):
            require(gradient is not None, f"{layer.name} has no path to the logits")
        found.append(list(gradients))
    return found


def _maps(
    score: Tensor,
    layers: Sequence[Layer],
    rule: Callable[[Tensor, Tensor], Tensor],
    reshape: Reshape | None,
    create_graph: bool,
    retain_graph: bool,
) -> list[Tensor]:
    """One map for each layer: gradients of the score, then the variant's sum over channels, in float32 at least."""
    require(layers, "at least one layer is needed, got none")
    shaped = [layer.features if reshape is None else reshape(layer.features) for layer in layers]
    for layer, values in zip(layers, shaped):
        check_maps(layer, values, len(score))
    if not create_graph:
        shaped = [values.detach() for values in shaped]
    columns: list[list[Tensor]] = []
    with torch.autocast(score.device.type, enabled=False):  # in the precision of the graph or better
        for gradients in _gradients(score, layers, create_graph, retain_graph):
            columns.append([])
            for layer, values, gradient in zip(layers, shaped, gradients):
                if reshape is not None:
                    gradient = reshape(gradient)
                    _warn_of_dead_tokens(layer.name, gradient)
                dtype = torch.promote_types(values.dtype, torch.float32)
                columns[-1].append(rule(values.to(dtype), gradient.to(dtype)))
    return columns[0] if score.ndim == 1 else [torch.stack(maps, 1) for maps in zip(*columns)]


def _warn_of_dead_tokens(name: str, gradient: Tensor) -> None:
    """Behind its last attention the class token alone counts: maps of the patches are zero there and say nothing."""
    if gradient.device.type == "cpu" and not gradient.any():  # elsewhere the look would stall the device
        warnings.warn(
            f"{name}: no position has an influence on the logits, so the maps are zero; where only a class token is "
            "read, take a layer before the last attention (the norm in front of it)",
            stacklevel=4,
        )
