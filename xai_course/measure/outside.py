"""Does a network read the object or a shortcut beside it? Maps at several layers, and what the pixels say.

A class map inside the object does not prove that the object was read: features on the object see their surroundings
through their receptive field. The gradient of the logit with respect to the pixels has no such blind spot.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..data.batch import Batch, Dataset, Splits
from ..maps import enlarge, grad_cam, unit_mass
from .looking import Measurable, accuracy, collect, masks_of, share_right


def outside_shares(
    method: Measurable, data: Dataset, layers: Sequence[str], size: int = 256
) -> tuple[Tensor, Tensor, Tensor]:
    """Where the evidence for the true class lies, in eval mode.

    Args:
        method: with ``net``. data: single labels, with masks.
        layers: modules of ``method.net`` to explain by Grad-CAM.

    Returns:
        Mean share of the map outside the mask ``[L]`` over living maps; share of dead maps ``[L]``; mean share of the
        absolute pixel gradient of the logit outside the mask, scalar; all float64.

    Example:
        >>> from xai_course.data.batch import ArrayData
        >>> from xai_course.methods.base import CrossEntropy
        >>> from xai_course.nets.convnets import small_cnn
        >>> data = ArrayData(torch.rand(4, 3, 16, 16), torch.arange(4), torch.rand(4, 16, 16) < 0.5)
        >>> mass, dead, pixels = outside_shares(CrossEntropy(small_cnn(width=2)), data, ["body.1", "body.2"])
        >>> mass.shape, bool(0 < pixels < 1)
        (torch.Size([2]), True)
    """

    @torch.enable_grad()
    def see(batch: Batch) -> tuple[Tensor, ...]:
        images = batch.images.clone().requires_grad_()
        maps, logits = grad_cam(method.net, images, batch.labels, layers, create_graph=True)
        (slope,) = torch.autograd.grad(logits.gather(1, batch.labels[:, None]).sum(), images)
        away = (~masks_of(batch)).float()
        units = [unit_mass(enlarge(m.detach(), away.shape[1:])) for m in maps]
        masses = torch.stack([(u.maps * away).sum(dim=(1, 2)) for u in units], 1)
        pixels = (unit_mass(slope.abs().sum(1)).maps * away).sum(dim=(1, 2))
        return masses, torch.stack([u.dead for u in units], 1), pixels

    mass, dead, pixel = (values.double() for values in collect(method, data, see, size=size))
    return mass.sum(0) / (1 - dead).sum(0).clamp_min(1), dead.mean(0), pixel.mean()


def seen(method: Measurable, splits: Splits, *, layers: Sequence[str]) -> dict[str, float]:
    """What the validation split, which follows training, says: all that a weight may be chosen by.

    Returns:
        ``accuracy_seen``; ``outside_seen`` and ``dead_seen``, the means over the layers.

    Example:
        >>> from xai_course.data.batch import ArrayData
        >>> from xai_course.methods.base import CrossEntropy
        >>> from xai_course.nets.convnets import small_cnn
        >>> data = ArrayData(torch.rand(4, 3, 16, 16), torch.arange(4), torch.rand(4, 16, 16) < 0.5)
        >>> splits = Splits("toy", data, data, data, tuple("abcd"), "")
        >>> list(seen(CrossEntropy(small_cnn(width=2)), splits, layers=["body.1"]))
        ['accuracy_seen', 'outside_seen', 'dead_seen']
    """
    mass, dead, _ = outside_shares(method, splits.validation, layers)
    right = share_right(method, splits.validation)
    return {"accuracy_seen": right, "outside_seen": float(mass.mean()), "dead_seen": float(dead.mean())}


def shortcut(method: Measurable, splits: Splits, *, layers: Sequence[str]) -> dict[str, float]:
    """Accuracy with and without the shortcut, and where the evidence lies.

    Returns:
        ``accuracy`` on the test split, where (if the data say so) the shortcut is gone; ``outside_<layer>`` and
        ``dead_<layer>`` of the maps and ``outside_pixels`` of the pixel gradient, on the same split; and what `seen`
        returns.

    Example:
        >>> from xai_course.data.batch import ArrayData
        >>> from xai_course.methods.base import CrossEntropy
        >>> from xai_course.nets.convnets import small_cnn
        >>> data = ArrayData(torch.rand(4, 3, 16, 16), torch.arange(4), torch.rand(4, 16, 16) < 0.5)
        >>> splits = Splits("toy", data, data, data, tuple("abcd"), "")
        >>> list(shortcut(CrossEntropy(small_cnn(width=2)), splits, layers=["body.1"]))[-3:]
        ['outside_body.1', 'dead_body.1', 'outside_pixels']
    """
    mass, dead, pixels = outside_shares(method, splits.test, layers)
    result = accuracy(method, splits) | seen(method, splits, layers=layers)
    for name, m, d in zip(layers, mass.tolist(), dead.tolist()):
        result |= {f"outside_{name}": m, f"dead_{name}": d}
    return result | {"outside_pixels": float(pixels)}


def with_and_without_cue(method: Measurable, splits: Splits) -> dict[str, float]:
    """``accuracy`` on the test split, whose cue is random, and ``accuracy_seen`` on validation, which follows training.

    Example:
        >>> from xai_course.data.cues import cued_digits
        >>> from xai_course.methods.base import CrossEntropy
        >>> from xai_course.nets.convnets import small_cnn
        >>> list(with_and_without_cue(CrossEntropy(small_cnn(width=2)), cued_digits((2, 2, 2, 2, 2))))
        ['accuracy', 'accuracy_seen']
    """
    return accuracy(method, splits) | {"accuracy_seen": share_right(method, splits.validation)}


def validation_scores(method: Measurable, splits: Splits) -> dict[str, float]:
    """All that a value may be chosen by: ``accuracy_broken`` on ``validation.broken``, and ``accuracy_seen``.

    Example:
        >>> from xai_course.data.cues import cued_digits
        >>> from xai_course.methods.base import CrossEntropy
        >>> from xai_course.nets.convnets import small_cnn
        >>> list(validation_scores(CrossEntropy(small_cnn(width=2)), cued_digits((2, 2, 2, 2, 2))))
        ['accuracy_broken', 'accuracy_seen']
    """
    broken, seen = vars(splits.validation)["broken"], splits.validation
    return {"accuracy_broken": share_right(method, broken), "accuracy_seen": share_right(method, seen)}
