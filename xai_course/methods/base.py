"""What every loss, method and baseline shares: the criterion, the method, the classification loss, and prediction.

A *criterion* is a loss as the field calls it: an ``nn.Module`` with options, at home in anybody's training loop. A
*method* is a criterion with a network and a place in this course's loop: losses to train with, logits and maps to be
measured by.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._require import require
from ..data.batch import Batch, Dataset
from ..maps import class_activation_map, enlarge, gap_head, normalise
from ..measure.looking import Measurable, collect
from ..nets.convnets import GapClassifier
from ..preset import Clock

Losses = dict[str, Tensor]
REDUCTIONS = ("mean", "sum", "none")


# --- criteria ---------------------------------------------------------------------------------------------------------


class Criterion(nn.Module):
    """A loss function with its options: made once, called with tensors, printed with what it was made with.

    Example:
        >>> class Brier(Criterion):
        ...     def forward(self, logits, labels):
        ...         errors = logits.softmax(1) - F.one_hot(labels, logits.shape[1])
        ...         return reduced(errors.square().sum(1), **self.options)
        >>> Brier(reduction="sum")
        Brier(reduction='sum')
        >>> Brier(reduction="sum")(torch.zeros(3, 2), torch.tensor([0, 1, 1]))
        tensor(1.5000)
    """

    def __init__(self, **options: Any):
        super().__init__()
        self.options = options

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in self.options.items())


class FunctionCriterion(Criterion):
    """A function of tensors and options as a criterion: ``forward`` gives it the tensors, the object keeps the options.

    A subclass says ``of`` which function, and how many tensors it ``takes`` first. Its other parameters are the
    criterion's, with their defaults; a tensor among the options is a buffer that no checkpoint holds. Where there is a
    ``trial``, tensors for ``forward``, it runs when the object is made: a wrong option is refused then.

    Example:
        >>> def brier(logits, labels, reduction="mean"):
        ...     return reduced((logits.softmax(1) - F.one_hot(labels, logits.shape[1])).square().sum(1), reduction)
        >>> class Brier(FunctionCriterion, of=brier): ...
        >>> Brier(), Brier("sum")(torch.zeros(3, 2), torch.tensor([0, 1, 1]))
        (Brier(reduction='mean'), tensor(1.5000))
    """

    function: Callable[..., Tensor]
    __signature__: inspect.Signature
    trial: tuple[Tensor | None, ...] = ()

    def __init_subclass__(cls, of: Callable[..., Tensor] | None = None, takes: int = 2):
        super().__init_subclass__()
        if of is not None:
            options = list(inspect.signature(of).parameters.values())[takes:]
            cls.function = staticmethod(of)
            cls.__signature__ = inspect.Signature([o.replace(kind=o.POSITIONAL_OR_KEYWORD) for o in options])

    def __init__(self, *given: Any, **options: Any):
        bound = self.__signature__.bind(*given, **options)
        bound.apply_defaults()
        tensors = {name: value for name, value in bound.arguments.items() if isinstance(value, Tensor)}
        super().__init__(**{name: value for name, value in bound.arguments.items() if name not in tensors})
        for name, value in tensors.items():
            self.register_buffer(name, value, persistent=False)
        if self.trial:
            self(*self.trial)

    def forward(self, *tensors: Tensor | None) -> Tensor:
        return self.function(*tensors, **self.options, **dict(self.named_buffers()))


def reduced(losses: Tensor, reduction: str = "mean") -> Tensor:
    """One number for a batch, or one for each sample, under the names that torch's own criteria use.

    Args:
        losses: ``[B]``, or ``[B, ...]`` where the loss of a sample is the mean over its other dimensions.
        reduction: ``"mean"`` or ``"sum"`` over the samples, or ``"none"``.

    Returns:
        A scalar, 0 for an empty batch (with a graph); ``[B]`` for ``"none"``.

    Raises:
        ValueError: an unknown reduction.

    Example:
        >>> losses = torch.tensor([[1.0, 3.0], [4.0, 6.0]])
        >>> [reduced(losses, how).tolist() for how in REDUCTIONS]
        [3.5, 7.0, [2.0, 5.0]]
    """
    require(reduction in REDUCTIONS, f"reduction must be one of {', '.join(REDUCTIONS)}", repr(reduction))
    if reduction == "mean":
        return losses.sum() / max(1, losses.numel())
    each = losses if losses.ndim == 1 else losses.flatten(1).mean(dim=1)
    return each.sum() if reduction == "sum" else each


def wide(x: Tensor) -> Tensor:
    """float16 and bfloat16 as float32: their rounding would flip comparisons and overflow in squares.

    Example:
        >>> wide(torch.tensor([300.0], dtype=torch.float16)).square()  # 65504 is float16's largest number
        tensor([90000.])
    """
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def full_precision(x: Tensor) -> AbstractContextManager[Any]:
    """Autocast off on the device of ``x``, inside; costs nothing where it is off already.

    Example:
        >>> x = torch.ones(1, 1)
        >>> with torch.autocast("cpu", torch.bfloat16):
        ...     with full_precision(x):
        ...         (x @ x).dtype
        torch.float32
    """
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()


def check_labels(labels: Tensor, batch: int, classes: int) -> None:
    """Refuses labels other than ``[batch]`` int64 in [0, classes). The range is read on the CPU only: elsewhere the
    host would have to wait for the device.

    Raises:
        ValueError: another shape or dtype, or a label out of range.

    Example:
        >>> check_labels(torch.tensor([0, -1]), batch=2, classes=3)
        Traceback (most recent call last):
        ValueError: labels must lie in [0, 3), got -1 to 0
    """
    require(labels.shape == (batch,) and labels.dtype == torch.int64, f"labels must be [{batch}] int64", labels)
    if batch and labels.device.type == "cpu":
        low, high = int(labels.min()), int(labels.max())
        require(0 <= low <= high < classes, f"labels must lie in [0, {classes}), got {low} to {high}")


def classification_loss(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy for ``labels [B]`` int64, mean binary cross-entropy for ``labels [B, K]`` float. Scalar mean.

    Args:
        label_smoothing: share of the target spread over all classes, in [0, 1); for ``labels [B]`` only.

    Raises:
        ValueError: an empty batch, whose mean is no number, or smoothing of multi-label targets.

    Example:
        >>> logits = torch.zeros(2, 4)
        >>> classification_loss(logits, torch.tensor([0, 3])).exp(), classification_loss(logits, logits).exp()
        (tensor(4.), tensor(2.))
    """
    require(len(logits), "logits must hold at least one image", tuple(logits.shape))
    if labels.ndim == 1:
        return F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
    require(not label_smoothing, "label_smoothing must be 0 for labels [B, K]", label_smoothing)
    return F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype))


# --- methods ----------------------------------------------------------------------------------------------------------


class Method(Measurable):
    """A network and the rule that trains it.

    A subclass overrides `losses`, and `logits` or `explain` where the network alone does not say them. The contract:

    * ``losses(batch, clock)`` yields one or several dictionaries of named scalars, each with a ``total``. The loop
      back-propagates each total as it is yielded, so gradients add up and each graph is freed before the next.
    * It trains with what is in the batch; where training stands (for ramps) is in the clock.
    * Whatever must be saved or moved to a device is a parameter, a buffer or a submodule.

    Example:
        >>> class Shrink(Method):
        ...     def losses(self, batch, clock):
        ...         logits = self.net(batch.images)
        ...         answer, size = classification_loss(logits, batch.labels), logits.square().mean()
        ...         yield {"classification": answer, "size": size, "total": answer + 0.01 * size}
        >>> method = Shrink(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)))
        >>> batch = Batch(torch.rand(2, 1, 2, 2), torch.tensor([0, 2]), None, torch.arange(2))
        >>> [list(terms) for terms in method.losses(batch, Clock())]
        [['classification', 'size', 'total']]
        >>> method.logits(batch.images).shape
        torch.Size([2, 3])
    """

    net: nn.Module
    needs: tuple[str, ...] = ()  # what the network must offer beside its forward pass
    cure = ""  # where a network that offers it comes from

    def __init__(self, net: nn.Module):
        super().__init__()
        able = all(callable(getattr(net, name, None)) for name in self.needs)
        require(able, f"net must have {' and '.join(self.needs)}{self.cure}", type(net).__name__)
        self.net = net

    def parameter_groups(self) -> list[dict[str, Any]]:
        """What the optimiser trains; a group may carry its own ``lr``."""
        return [{"params": [p for p in self.parameters() if p.requires_grad]}]

    def logits(self, images: Tensor) -> Tensor:
        """Class scores ``[B, K]`` for evaluation.

        Raises:
            ValueError: the method makes maps alone (``classifies`` False).
        """
        require(self.classifies, f"{type(self).__name__} has no image-level prediction")
        return self.net(images)

    def explain(self, images: Tensor, classes: Tensor) -> Tensor:
        """The method's own map of ``classes [B]``: ``[B, H, W]`` in [0, 1] at the size of the images.

        Default: the class activation map of the GAP + linear head, negative evidence cut, divided by its maximum.
        """
        net = cast(GapClassifier, self.net)
        maps = class_activation_map(net.features(images), self.class_weights(), classes=classes)
        return normalise(enlarge(maps.relu(), images.shape[-2:]))

    def class_weights(self) -> Tensor:
        """What makes class maps of features, ``[K, D]``: the weight of the network's linear head."""
        return gap_head(self.net).weight


class CrossEntropy(Method):
    """The baseline of every chapter: classification loss only.

    Args:
        net: any classifier, ``[B, C, H, W] -> [B, K]``.
        label_smoothing: share of the target spread over all classes, in [0, 1); single-label only.

    Example:
        >>> method = CrossEntropy(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)))
        >>> batch = Batch(torch.rand(2, 1, 2, 2), torch.tensor([0, 2]), None, torch.arange(2))
        >>> (terms,) = method.losses(batch, Clock())
        >>> terms["total"].item() == F.cross_entropy(method.logits(batch.images), batch.labels).item()
        True
    """

    def __init__(self, net: nn.Module, label_smoothing: float = 0.0):
        super().__init__(net)
        require(0 <= label_smoothing < 1, "label_smoothing must lie in [0, 1)", label_smoothing)
        self.label_smoothing = label_smoothing

    def losses(self, batch: Batch, clock: Clock) -> Iterator[Losses]:
        yield {"total": classification_loss(self.net(batch.images), batch.labels, self.label_smoothing)}


def predict(method: Method, data: Dataset, *, size: int = 256) -> tuple[Tensor, Tensor]:
    """Logits ``[N, K]`` and labels of a whole data set, in eval mode, on the CPU. Train/eval mode is put back.

    Args:
        method: asked for its `Method.logits`.
        data: read in order, in batches of ``size``.

    Example:
        >>> from xai_course.data.batch import ArrayData
        >>> data = ArrayData(torch.rand(5, 1, 2, 2), torch.tensor([0, 2, 1, 1, 0]))
        >>> method = CrossEntropy(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)))
        >>> logits, labels = predict(method, data, size=2)
        >>> logits.shape, labels
        (torch.Size([5, 3]), tensor([0, 2, 1, 1, 0]))
    """
    logits, labels = collect(method, data, lambda b: (method.logits(b.images).float(), b.labels), size=size)
    return logits, labels
