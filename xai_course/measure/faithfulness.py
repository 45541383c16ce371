"""Deletion and insertion: does the score move when the pixels a map ranks first are taken away, or given back?"""

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .._require import require
from ..data.batch import Splits, batches
from ..nets.modes import device_of, evaluating
from .looking import Measurable
from .trivial import TRIVIAL

Curves = Mapping[str, Callable[..., Tensor]]  # deletion_auc or insertion_auc, by the name that their numbers carry


def deletion_auc(
    score: Callable[[Tensor], Tensor], images: Tensor, maps: Tensor, *, steps: int = 16, baseline: str | Tensor = "mean"
) -> Tensor:
    """Area under the score while pixels are removed, most important first (Petsiuk et al. 2018); lower is better.

    Args:
        score: ``[B, C, H, W] -> [B]``, for example the softmax probability of the explained class.
        images: ``[B, C, H, W]``.
        maps: ``[B, H, W]``; only the order of the pixels counts, equal values in reading order.
        steps: equal portions, rounded to whole pixels.
        baseline: what removed pixels become: "mean" (each image's mean colour), "blur" (Gaussian), or a tensor that
            broadcasts to the images.

    Returns:
        ``[B]`` float64, trapezoid area over the share of pixels removed, from 0 to 1.

    Raises:
        ValueError: shapes that do not fit, no step, another baseline.

    Example:
        >>> image = torch.tensor([1.0, 0.0, 0.0, 0.0, 0.0]).view(1, 1, 1, 5)
        >>> def mean(x):
        ...     return x.mean((1, 2, 3))
        >>> black = torch.zeros(1)
        >>> deletion_auc(mean, image, image[:, 0], steps=5, baseline=black)
        tensor([0.0200], dtype=torch.float64)
        >>> insertion_auc(mean, image, image[:, 0], steps=5, baseline=black)
        tensor([0.1800], dtype=torch.float64)
    """
    return _area(score, images, maps, False, steps, baseline)


def insertion_auc(
    score: Callable[[Tensor], Tensor], images: Tensor, maps: Tensor, *, steps: int = 16, baseline: str | Tensor = "mean"
) -> Tensor:
    """Area under the score while the pixels appear on the baseline, most important first; higher is better.

    Arguments, result and example as in `deletion_auc`.

    Example:
        >>> image = torch.ones(1, 1, 2, 2)
        >>> insertion_auc(lambda x: x.mean((1, 2, 3)), image, image[:, 0], baseline=torch.zeros(1)).item()
        0.5
    """
    return _area(score, images, maps, True, steps, baseline)


def predicted_probability(method: Measurable, images: Tensor) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """The probability that a method gives, in changed images, to the classes it predicts in these; and these classes.

    Example:
        >>> class Bright(Measurable):
        ...     def logits(self, images):
        ...         return images.mean((2, 3))
        >>> images = torch.tensor([0.2, 0.9]).view(1, 2, 1, 1)
        >>> probability, classes = predicted_probability(Bright(), images)
        >>> classes, probability(0 * images)
        (tensor([1]), tensor([0.5000]))
    """
    classes = method.logits(images).argmax(1)

    def probability(changed: Tensor) -> Tensor:
        return method.logits(changed).softmax(1).gather(1, classes.unsqueeze(1))[:, 0]

    return probability, classes


def deletion(
    method: Measurable,
    splits: Splits,
    *,
    images: int = 256,
    steps: int = 8,
    trivial: Sequence[str] = ("random", "edges"),
) -> dict[str, float]:
    """``deletion_auc`` of the predicted class's probability on the first test images, pixels blurred away.

    Beside the method's own map: those named in ``trivial`` (keys of `trivial.TRIVIAL`), each under its name, and
    ``_mask``, the true object as the map. A network that never needed the object keeps its score when that is deleted,
    whatever its maps look like.

    Example:
        >>> from xai_course.data.batch import ArrayData
        >>> from xai_course.methods.base import CrossEntropy
        >>> from xai_course.nets.convnets import small_cnn
        >>> data = ArrayData(torch.rand(4, 3, 16, 16), torch.arange(4), torch.rand(4, 16, 16) < 0.5)
        >>> splits = Splits("toy", data, data, data, tuple("abcd"), "")
        >>> list(deletion(CrossEntropy(small_cnn(width=2)), splits, steps=2))
        ['deletion_auc', 'deletion_auc_random', 'deletion_auc_edges', 'deletion_auc_mask']
    """
    return blurred_areas(method, splits, {"deletion_auc": deletion_auc}, images, steps, trivial, masks=True)


@torch.no_grad()
def blurred_areas(
    method: Measurable, splits: Splits, curves: Curves, images: int, steps: int, trivial: Sequence[str], masks: bool
) -> dict[str, float]:
    """Mean areas under ``curves`` of the predicted class's probability, pixels blurred, on the first test images.

    Args:
        curves: `deletion_auc` or `insertion_auc`, by the name that their numbers carry.
        images, steps: how many. trivial: maps of `TRIVIAL` beside the method's, as suffixes "_random", ...
        masks: the true mask as a map as well, suffix "_mask", where the data have it.

    Example:
        >>> from xai_course.data.batch import ArrayData
        >>> from xai_course.methods.base import CrossEntropy
        >>> from xai_course.nets.convnets import small_cnn
        >>> data = ArrayData(torch.rand(4, 3, 16, 16), torch.arange(4))
        >>> splits = Splits("toy", data, data, data, tuple("abcd"), "")
        >>> method, curves = CrossEntropy(small_cnn(width=2)), {"kept": insertion_auc}
        >>> list(blurred_areas(method, splits, curves, images=2, steps=2, trivial=["edges"], masks=False))
        ['kept', 'kept_edges']
    """
    batch = next(batches(splits.test, images, device_of(method)))
    with evaluating(method):
        score, classes = predicted_probability(method, batch.images)
        maps = {"": method.explain(batch.images, classes)}
        maps |= {f"_{name}": TRIVIAL[name](batch.images) for name in trivial}
        if masks and batch.masks is not None:
            maps["_mask"] = batch.masks.to(batch.images.dtype)
        return {
            name + suffix: float(area(score, batch.images, each, steps=steps, baseline="blur").mean())
            for suffix, each in maps.items()
            for name, area in curves.items()
        }


@torch.no_grad()
def _area(
    score: Callable[[Tensor], Tensor], images: Tensor, maps: Tensor, insert: bool, steps: int, baseline: str | Tensor
) -> Tensor:
    fit = maps.ndim == 3 and images.ndim == 4 and maps.shape == images[:, 0].shape
    require(fit, f"maps must be [B, H, W] of the images {tuple(images.shape)}", tuple(maps.shape))
    require(steps >= 1, "steps must be at least 1", steps)
    empty = _baseline(images, baseline)
    place = maps.flatten(1).argsort(dim=1, descending=True, stable=True).argsort(dim=1)  # rank of each pixel, 0 first
    rank = place.view(maps.shape).unsqueeze(1)
    pixels = maps[0].numel()
    portions = [round(pixels * step / steps) for step in range(steps + 1)]
    values = [score(torch.where((rank < n) == insert, images, empty)).cpu().double() for n in portions]
    return torch.trapezoid(torch.stack(values, 1), torch.tensor(portions, dtype=torch.float64) / pixels, dim=1)


def _baseline(images: Tensor, kind: str | Tensor) -> Tensor:
    if isinstance(kind, Tensor):
        return kind.to(images).expand_as(images)
    if kind == "mean":
        return images.mean((2, 3), keepdim=True).expand_as(images)
    if kind == "blur":
        side = min(images.shape[-2:])
        sigma, reach = side / 8, max(1, side // 4)
        steps = torch.arange(-reach, reach + 1, device=images.device)
        bell = torch.exp(-0.5 * (steps / sigma).square()).to(images.dtype)
        bell, channels = bell / bell.sum(), images.shape[1]
        rows = F.pad(images, (reach, reach, reach, reach), mode="replicate")
        rows = F.conv2d(rows, bell.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)
        return F.conv2d(rows, bell.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)
    raise ValueError(f'baseline must be "mean", "blur" or a tensor, got {kind!r}')
