"""Class activation maps and Grad-CAM as differentiable quantities. Knows no method, no trainer, no data set."""

from __future__ import annotations

from torch import Tensor, nn


def gap_head(net: nn.Module) -> nn.Linear:
    """The linear layer behind global average pooling of a network with ``features`` and ``head``.

    Raises:
        ValueError: the network has no such head, so it has no class activation maps.
    """
    head = getattr(net, "head", None)
    if not isinstance(head, nn.Linear) or not callable(getattr(net, "features", None)):
        raise ValueError(
            f"net must end in global average pooling and one linear layer (attributes features and head), got {type(net).__name__}"
        )
    return head


def class_activation_map(features: Tensor, weight: Tensor, bias: Tensor | None = None, classes: Tensor | None = None):
    """Maps ``[B, k, h, w]`` of the chosen ``classes [B, k]`` (all K classes where None)."""
    if classes is None:
        maps = (features.flatten(2).transpose(1, 2) @ weight.T).transpose(1, 2)
    else:
        maps = weight[classes] @ features.flatten(2)
    return maps.unflatten(2, features.shape[2:])


def normalise(maps: Tensor) -> Tensor:
    """Each map ``[..., h, w]``, non-negative, divided by its maximum; an all-zero map stays zero."""
    peak = maps.amax(dim=(-2, -1), keepdim=True)
    return maps / peak.clamp_min(1e-20) * (peak > 0)
