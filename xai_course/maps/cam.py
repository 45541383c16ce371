"""The class activation map (Zhou et al., CVPR 2016): the logit behind global average pooling, split over positions."""

import torch
from torch import Tensor, nn

from .._require import require
from .targets import Classes, check_classes, trackable


def gap_head(net: nn.Module) -> nn.Linear:
    """The linear layer behind global average pooling of a network with ``features`` and ``head``.

    Raises:
        ValueError: the network has no such head, so it has no class activation maps.

    Example:
        >>> from xai_course.nets.convnets import small_cnn
        >>> gap_head(small_cnn(10, width=4))
        Linear(in_features=16, out_features=10, bias=True)
    """
    head = getattr(net, "head", None)
    if not isinstance(head, nn.Linear) or not callable(getattr(net, "features", None)):
        raise ValueError(
            "net must end in global average pooling and one linear layer (attributes features and head), "
            f"got {type(net).__name__}; xai_course.nets.adapters.gap_classifier gives a foreign network both"
        )
    return head


def class_activation_map(
    features: Tensor, weight: Tensor, bias: Tensor | None = None, classes: Classes | None = None
) -> Tensor:
    r"""Class activation maps (Zhou et al. 2016, Eq. 2), :math:`M_c(i,j) = \sum_d w_{cd} A_d(i,j) \;(+\, b_c)`.

    The spatial mean of the map is the logit: without its bias where ``bias`` is None, with it otherwise. Only the rows
    asked for are computed: the cost is B*k*D*h*w multiply-adds, not B*K*D*h*w.

    Args:
        features: ``[B, D, h, w]``, what global average pooling reads.
        weight: ``[K, D]`` of the linear layer behind the pooling.
        bias: ``[K]`` or None, added to every cell.
        classes: a class for all images, or ``[B]`` or ``[B, k]`` int64 in [0, K); None means all K classes.

    Returns:
        ``[B, h, w]``, ``[B, k, h, w]`` or ``[B, K, h, w]``, with its sign; differentiable. Inside autocast the product
        runs in the autocast dtype, as the linear layer does.

    Raises:
        ValueError: shapes that do not fit, or (on the CPU) a class out of range.

    Example:
        >>> features = torch.tensor([[[[1.0, 2.0]], [[0.0, 1.0]]]])  # two channels, one row of two cells
        >>> class_activation_map(features, torch.tensor([[1.0, -1.0], [2.0, 0.5]]), classes=1)
        tensor([[[2.0000, 4.5000]]])
    """
    check_linear(features, weight, bias)
    dtype = torch.promote_types(features.dtype, weight.dtype)
    flat, weight = features.flatten(2).to(dtype), weight.to(dtype)
    shape: tuple[int, ...]
    if classes is None:
        shape, rows, shift = (len(features), len(weight)), weight, bias
    else:
        chosen = trackable(check_classes(classes, len(features), len(weight), dims=(1, 2))).to(weight.device)
        shape, chosen = tuple(chosen.shape), chosen.flatten()
        # index_select and not weight[classes]: its backward is one index_add instead of a sorted scatter
        rows = weight.index_select(0, chosen).view(len(features), -1, weight.shape[1])
        shift = None if bias is None else bias.index_select(0, chosen).view(len(features), -1)
    maps = rows @ flat
    if shift is not None:
        maps = maps + shift.unsqueeze(-1)
    return maps.view(*shape, *features.shape[2:])


def check_linear(features: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    """Raises ValueError unless they are ``[B, D, h, w]``, ``[K, D]`` and ``[K]`` or None.

    Example:
        >>> check_linear(torch.zeros(2, 5, 4, 4), torch.zeros(5, 10), None)
        Traceback (most recent call last):
        ValueError: features must be [B, D, h, w] and weight [K, D], got (2, 5, 4, 4) and (5, 10)
    """
    fit = features.ndim == 4 and weight.ndim == 2 and weight.shape[1] == features.shape[1]
    require(fit, "features must be [B, D, h, w] and weight [K, D]", tuple(features.shape), tuple(weight.shape))
    fit = bias is None or bias.shape == weight.shape[:1]
    require(fit, f"bias must be [K] with K={len(weight)}", bias)
