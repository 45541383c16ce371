"""What is explained: one number per image, or several, out of what the network returned."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .._require import require

Classes = int | Sequence[int] | Sequence[Sequence[int]] | Tensor
Target = Callable[[Tensor], Tensor]


def trackable(tensor: Tensor) -> Tensor:
    """The tensor, or a copy of one that inference mode made, which autograd refuses to save (call it outside).

    Example:
        >>> with torch.inference_mode():
        ...     classes = torch.tensor([3])
        >>> trackable(classes).is_inference()
        False
    """
    return tensor.clone() if tensor.is_inference() else tensor


def check_classes(classes: Classes | None, batch: int, total: int, *, dims: tuple[int, ...]) -> Tensor:
    """Classes as a tensor ``[B]`` or ``[B, k]`` int64. A single class stands for every image.

    Args:
        classes: an int, a list of B ints, a list of B lists of k ints, or an int64 tensor of such a shape.
        batch: B > 0.
        total: K; the range [0, K) is read on the CPU only: elsewhere it would stall the device.
        dims: which of 1 (``[B]``) and 2 (``[B, k]``) are allowed.

    Raises:
        ValueError: None, another shape or dtype, a class out of range, an empty batch.

    Example:
        >>> check_classes(3, batch=2, total=10, dims=(1,))
        tensor([3, 3])
        >>> check_classes([0, 12], batch=2, total=10, dims=(1,))
        Traceback (most recent call last):
        ValueError: classes must lie in [0, 10), got 0 to 12
    """
    require(batch, "the batch must hold at least one image, got an empty one")
    wanted = " or ".join(("a class, [B]", "[B, k]")[d - 1] for d in dims) + f" int64 with B={batch}"
    if classes is None:
        raise ValueError(f"classes must be {wanted}, got None; logits.argmax(1) are the predicted ones")
    try:
        chosen = torch.as_tensor(classes)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"classes must be {wanted}, got {classes!r}") from error
    chosen = chosen.expand(batch) if chosen.ndim == 0 else chosen
    fit = chosen.dtype == torch.int64 and chosen.ndim in dims and len(chosen) == batch
    require(fit, f"classes must be {wanted}", chosen)
    if chosen.device.type == "cpu" and chosen.numel():
        low, high = int(chosen.min()), int(chosen.max())
        require(0 <= low <= high < total, f"classes must lie in [0, {total}), got {low} to {high}")
    return chosen


def scores(
    logits: Tensor, classes: Classes | None, target: Target | None, net: str = "logits without a gradient"
) -> Tensor:
    """The numbers to be explained, ``[B]`` or ``[B, k]``: logits of classes, or a function of what came out.

    Args:
        logits: ``[B, K]`` for ``classes``, of any shape ``[B, ...]`` for ``target``.
        classes: as in `check_classes`.
        target: ``logits -> [B]`` or ``[B, k]``, row i a function of image i. Exactly one of the two must be given.
        net: what the message says that it got.

    Raises:
        ValueError: both or none given, wrong shapes, or numbers that carry no gradient.

    Example:
        >>> logits = torch.tensor([[1.0, 4.0, 2.0]], requires_grad=True)
        >>> scores(logits, [[2, 0]], None).tolist(), scores(logits, None, lambda z: z[:, 1] - z[:, 0]).tolist()
        ([[2.0, 1.0]], [3.0])
    """
    one = classes is None or target is None
    require(one, "classes and target are two ways to say what is explained: give one of them, got both")
    if target is not None:
        chosen = target(logits)
        if not isinstance(chosen, Tensor) or chosen.ndim not in (1, 2) or len(chosen) != len(logits):
            got = tuple(chosen.shape) if isinstance(chosen, Tensor) else type(chosen).__name__
            raise ValueError(f"target must return [B] or [B, k] with B={len(logits)}, got {got}")
    else:
        require(logits.ndim == 2, f"net must return logits [B, K], got {tuple(logits.shape)}; target= takes any shape")
        index = trackable(check_classes(classes, len(logits), logits.shape[1], dims=(1, 2))).to(logits.device)
        chosen = logits.gather(1, index.view(len(logits), -1)).view(index.shape)
    wanted = "by differentiable operations (no argmax, detach or rounding)"
    require(chosen.requires_grad, f"net must lead to its logits {wanted}, got {net}")
    return chosen
