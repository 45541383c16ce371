"""What every measure starts with: the trained network looks at a whole data set, in eval mode, on its own device."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .._require import require
from ..data.batch import Batch, Dataset, Splits, batches
from ..nets.modes import device_of, evaluating


class Measurable(nn.Module):
    """What a measure asks of a method: class scores, maps, and (for costs and controls) losses.

    `methods.base.Method` is one; any module with these will do.

    Example:
        >>> class Bright(Measurable):
        ...     def logits(self, images):
        ...         return images.mean((2, 3))
        >>> Bright().logits(torch.ones(1, 2, 4, 4))
        tensor([[1., 1.]])
    """

    net: Any  # any network; what else a measure needs of it (features, embed, head) stands there
    classifies = True  # False: no image-level prediction, its maps are asked for class 0

    def losses(self, batch: Batch, clock: Any) -> Iterator[dict[str, Tensor]]:
        """Named scalar terms, each dictionary with a ``total``."""
        raise TypeError(f"{type(self).__name__} defines no losses: override its method losses")

    def logits(self, images: Tensor) -> Tensor:
        """Class scores ``[B, K]``."""
        raise TypeError(f"{type(self).__name__} defines no logits: override its method logits")

    def explain(self, images: Tensor, classes: Tensor) -> Tensor:
        """Maps of ``classes [B]``: ``[B, H, W]`` in [0, 1] at the size of the images."""
        raise TypeError(f"{type(self).__name__} defines no maps: override its method explain")


class Looked(NamedTuple):
    """A batch after the network has looked, all on the CPU.

    Attributes:
        images: ``[B, C, H, W]``. labels: ``[B]`` or ``[B, K]``. masks: ``[B, H, W]`` bool or None.
        logits: ``[B, K]`` float32; None for a method without image-level prediction.
        maps: ``[B, H, W]`` float32.
    """

    images: Tensor
    labels: Tensor
    masks: Tensor | None
    logits: Tensor | None
    maps: Tensor


def masks_of(shown: Batch | Looked) -> Tensor:
    """The masks of a batch whose maps are to be judged by them.

    Raises:
        ValueError: there are none.

    Example:
        >>> masks_of(Batch(torch.rand(1, 3, 2, 2), torch.tensor([0]), None, torch.tensor([0])))
        Traceback (most recent call last):
        ValueError: masks must be [B, H, W], got None: use a data set with masks or a pseudo-annotator
    """
    if shown.masks is None:
        raise ValueError("masks must be [B, H, W], got None: use a data set with masks or a pseudo-annotator")
    return shown.masks


@torch.no_grad()
def collect(
    method: nn.Module, data: Dataset, see: Callable[[Batch], Sequence[Tensor]], *, size: int = 256
) -> list[Tensor]:
    """What ``see(batch)`` finds in every batch, in eval mode and without a graph, joined and moved to the CPU.

    Args:
        method: on whose device the batches are.
        see: ``Batch -> tensors [B, ...]``, equally many for every batch.

    Returns:
        As many tensors ``[N, ...]``.

    Raises:
        ValueError: no image.

    Example:
        >>> from xai_course.data.batch import ArrayData
        >>> data = ArrayData(torch.rand(5, 3, 2, 2), torch.arange(5))
        >>> collect(nn.Identity(), data, lambda batch: (batch.labels, batch.images.amax((1, 2, 3)) <= 1), size=2)
        [tensor([0, 1, 2, 3, 4]), tensor([True, True, True, True, True])]
    """
    require(len(data), "data must hold at least one image", "none")
    with evaluating(method):
        found = [see(batch) for batch in batches(data, size, device_of(method))]
    return [torch.cat(column).cpu() for column in zip(*found)]


@torch.no_grad()
def look(
    method: Measurable, data: Dataset, *, classes: str = "predicted", size: int = 256, multiple: int = 1
) -> Iterator[Looked]:
    """Logits and maps of a whole data set, batch by batch.

    Args:
        classes: explain the "predicted" class, or the "label" (the first one of several). Where the method does not
            classify (``classifies`` False), it is asked about class 0.
        size: images per batch; 1 where they differ in size.
        multiple: the network's stride, see `padded_map`.

    Raises:
        ValueError: another word for ``classes``.

    Example:
        >>> from xai_course.data.batch import ArrayData
        >>> from xai_course.methods.base import CrossEntropy
        >>> from xai_course.nets.convnets import small_cnn
        >>> data = ArrayData(torch.rand(3, 3, 16, 16), torch.tensor([0, 1, 2]))
        >>> [len(seen.maps) for seen in look(CrossEntropy(small_cnn(3, width=2)), data, size=2)]
        [2, 1]
    """
    require(classes in ("predicted", "label"), 'classes must be "predicted" or "label"', repr(classes))
    with evaluating(method):
        for batch in batches(data, size, device_of(method)):
            images, labels, masks, index = batch[:4]
            logits = method.logits(images) if getattr(method, "classifies", True) else None
            if classes == "label":
                asked = labels if labels.ndim == 1 else labels.argmax(1)
            else:
                asked = torch.zeros_like(index) if logits is None else logits.argmax(1)
            maps = padded_map(partial(method.explain, classes=asked), images, multiple).float().cpu()
            logits = None if logits is None else logits.float().cpu()
            yield Looked(images.cpu(), labels.cpu(), None if masks is None else masks.cpu(), logits, maps)


def padded_map(explain: Callable[[Tensor], Tensor], images: Tensor, multiple: int) -> Tensor:
    """A map of whole images of any size: reflect-pad to a multiple of the stride, explain, crop back.

    Args:
        explain: ``[B, C, H', W'] -> [B, H', W']``.
        images: ``[B, C, H, W]``.
        multiple: sides are padded up to a multiple of this on the right and below.

    Raises:
        ValueError: the images are smaller than the rim they would need.

    Example:
        >>> images = torch.rand(1, 3, 20, 37)
        >>> padded_map(lambda padded: padded[:, 0] * padded.shape[2], images, 16).shape
        torch.Size([1, 20, 37])
    """
    height, width = images.shape[-2:]
    down, right = -height % multiple, -width % multiple
    fits = down < height and right < width
    require(fits, f"images of {height}x{width} are too small to reflect-pad to a multiple of {multiple}")
    padded = nn.functional.pad(images, (0, right, 0, down), mode="reflect") if down or right else images
    return explain(padded)[:, :height, :width]


def share_right(method: Measurable, data: Dataset) -> float:
    """How often the highest logit is the label's; with several labels, how many yes/no decisions at 0 are right.

    Example:
        >>> from xai_course.data.batch import ArrayData
        >>> class Bright(Measurable):
        ...     def logits(self, images):
        ...         return images.mean((2, 3))
        >>> images = torch.tensor([[0.2, 0.9], [0.8, 0.1]]).view(2, 2, 1, 1)
        >>> share_right(Bright(), ArrayData(images, torch.tensor([1, 1])))
        0.5
    """

    def see(batch: Batch) -> list[Tensor]:
        logits = method.logits(batch.images)
        one = batch.labels.ndim == 1
        return [logits.argmax(1) == batch.labels if one else (logits > 0) == (batch.labels > 0.5)]

    (right,) = collect(method, data, see)
    return float(right.double().view(len(right), -1).mean(1).mean())


def accuracy(method: Measurable, splits: Splits) -> dict[str, float]:
    """``accuracy``: `share_right` on the test split.

    Example:
        >>> from xai_course.data.batch import ArrayData
        >>> class Bright(Measurable):
        ...     def logits(self, images):
        ...         return images.mean((2, 3))
        >>> data = ArrayData(torch.tensor([0.2, 0.9]).view(1, 2, 1, 1), torch.tensor([1]))
        >>> accuracy(Bright(), Splits("toy", data, data, data, ("dark", "bright"), ""))
        {'accuracy': 1.0}
    """
    return {"accuracy": share_right(method, splits.test)}


def validation_accuracy(method: Measurable, splits: Splits) -> dict[str, float]:
    """``validation_accuracy``: `share_right` on the validation split, all that a choice may rest on.

    Example:
        >>> from xai_course.data.batch import ArrayData
        >>> class Bright(Measurable):
        ...     def logits(self, images):
        ...         return images.mean((2, 3))
        >>> data = ArrayData(torch.tensor([0.2, 0.9]).view(1, 2, 1, 1), torch.tensor([0]))
        >>> validation_accuracy(Bright(), Splits("toy", data, data, data, ("dark", "bright"), ""))
        {'validation_accuracy': 0.0}
    """
    return {"validation_accuracy": share_right(method, splits.validation)}


def validation_error(method: Measurable, splits: Splits) -> dict[str, float]:
    """``validation_error``: the share of wrong images on the validation split, what Min-Max's authors stop by.

    Example:
        >>> from xai_course.data.batch import ArrayData
        >>> class Bright(Measurable):
        ...     def logits(self, images):
        ...         return images.mean((2, 3))
        >>> data = ArrayData(torch.tensor([0.2, 0.9]).view(1, 2, 1, 1), torch.tensor([0]))
        >>> validation_error(Bright(), Splits("toy", data, data, data, ("dark", "bright"), ""))
        {'validation_error': 1.0}
    """
    return {"validation_error": 1 - share_right(method, splits.validation)}
