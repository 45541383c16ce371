"""Controls: an explanation of a trained network must fall apart when the network, or what it learnt, is destroyed."""

import copy
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from .._require import require
from ..data.batch import ArrayData, Batch
from ..nets.modes import evaluating, seeded
from .looking import Measurable

Make = Callable[[nn.Module], Measurable]
M = TypeVar("M", bound=nn.Module)


def cascade(net: nn.Module, seed: int = 0) -> Iterator[tuple[str, nn.Module]]:
    """Networks with the last layer re-initialised, the last two, and so on (Adebayo et al. 2018, Sec. 4.1).

    Yields:
        (name of the layer randomised last, a copy of ``net`` in eval mode). First ("", an untouched copy). The order is
        that of ``named_modules`` from the end, which for feed-forward code is from the logits down.

    Raises:
        ValueError: nothing in ``net`` can be re-initialised.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
        >>> [name for name, _ in cascade(net)]
        ['', '2', '0']
    """
    broken = copy.deepcopy(net).eval()
    layers = _resettable(broken)
    yield "", copy.deepcopy(broken)
    with seeded(seed):
        state = torch.get_rng_state()
        for name, layer in reversed(layers):
            torch.set_rng_state(state)  # the caller may draw numbers between two steps
            layer.reset_parameters()
            state = torch.get_rng_state()
            yield name, copy.deepcopy(broken)


def untrained(module: M, seed: int = 0) -> M:
    """A copy with every layer re-initialised, BatchNorm statistics included: the control for the architecture alone.

    One untrained network is no control: its filters happen to answer to light or to dark, and its scores vary far more
    over ``seed`` than a trained network's. Take several.

    Example:
        >>> layer = nn.Linear(2, 2)
        >>> fresh, again = untrained(layer, seed=5), untrained(layer, seed=5)
        >>> torch.equal(fresh.weight, layer.weight), torch.equal(fresh.weight, again.weight)
        (False, True)
    """
    fresh = copy.deepcopy(module)
    with seeded(seed):
        for _, layer in _resettable(fresh):
            layer.reset_parameters()
    return fresh


def weight_randomisation(method: Measurable, images: Tensor, classes: Tensor, seed: int = 0) -> list[dict[str, Any]]:
    """How fast a method's maps change while its network is randomised from the top.

    Args:
        method: has ``net`` and ``explain(images, classes) -> [B, H, W]``.
        images, classes: ``[B, C, H, W]`` and ``[B]``; the classes stay the same throughout.

    Returns:
        One row per step: ``layer`` ("" for the trained network), ``rank_correlation`` with the trained network's
        maps, mean over the images. Values that stay near one mean that the maps do not show what was learnt.

    Example:
        >>> from xai_course.methods.base import CrossEntropy
        >>> from xai_course.nets.convnets import small_cnn
        >>> rows = weight_randomisation(CrossEntropy(small_cnn(width=2)), torch.rand(1, 3, 16, 16), torch.tensor([0]))
        >>> [row["layer"] for row in rows[:3]], round(rows[0]["rank_correlation"], 6)
        (['', 'head', 'body.4.1'], 1.0)
    """
    rows, trained = [], None
    for name, net in cascade(method.net, seed):
        probe = copy.deepcopy(method, {id(method.net): net})  # wherever the method holds its network: this one instead
        with evaluating(probe), torch.no_grad():
            maps = probe.explain(images, classes)
        trained = maps if trained is None else trained
        rows.append({"layer": name, "rank_correlation": float(rank_correlation(maps, trained).mean())})
    return rows


def rank_correlation(maps: Tensor, others: Tensor) -> Tensor:
    """Spearman's correlation of two maps' pixels, ``[B]`` float64 in [-1, 1]; 0 where one of them is constant.

    Example:
        >>> maps = torch.tensor([[[0.1, 0.2, 0.9]]])
        >>> [round(rank_correlation(maps, other).item(), 6) for other in (maps.square(), -maps)]
        [1.0, -1.0]
    """
    fit = maps.ndim == 3 and maps.shape == others.shape
    require(fit, "both maps must be [B, H, W]", tuple(maps.shape), tuple(others.shape))
    a, b = (_ranks(m.flatten(1).cpu().double()) for m in (maps, others))
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    scale = a.norm(dim=1) * b.norm(dim=1)
    return (a * b).sum(1) / torch.where(scale > 0, scale, torch.ones_like(scale))


def shuffled_labels(data: ArrayData, seed: int = 0) -> ArrayData:
    """The same images and masks with the labels permuted: nothing is left to learn but the images by heart.

    Example:
        >>> shuffled_labels(ArrayData(torch.zeros(4, 3, 2, 2), torch.arange(4))).labels.sort().values
        tensor([0, 1, 2, 3])
    """
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))
    return ArrayData(data.images, data.labels[order.to(data.labels.device)], data.masks)


def training_gap(
    method: Measurable, baseline: Measurable, batch: Batch, clock: Any, *, steps: int = 3, lr: float = 0.1
) -> float:
    """Largest difference between two methods' network weights after the same plain gradient steps.

    A guided method whose weight is zero must train exactly as its baseline: the gap is then 0.0, not just small.

    Args:
        method, baseline: started from equal networks (the caller copies one); both are trained in place.
        batch, clock: given to ``losses`` in every step.

    Raises:
        ValueError: the two networks differ before the first step.

    Example:
        >>> from xai_course.methods.base import CrossEntropy
        >>> from xai_course.nets.convnets import small_cnn
        >>> batch = Batch(torch.rand(4, 3, 16, 16), torch.arange(4), None, torch.arange(4))
        >>> smooth, plain = (CrossEntropy(small_cnn(width=2, seed=0), label_smoothing=s) for s in (0.1, 0.0))
        >>> training_gap(smooth, plain, batch, clock=None) > 0
        True
    """
    both = [dict(m.net.named_parameters()) for m in (method, baseline)]
    equal = both[0].keys() == both[1].keys() and not _gap(*both) > 0
    require(equal, "method and baseline must start from equal networks, got different ones")
    for trained, parameters in zip((method, baseline), both):
        trained.train()
        for _ in range(steps):
            torch.manual_seed(0)  # dropout and the like draw the same numbers in both
            for losses in trained.losses(batch, clock):
                losses["total"].backward()
            with torch.no_grad():
                for parameter in parameters.values():
                    if parameter.grad is not None:
                        parameter -= lr * parameter.grad
                        parameter.grad = None
    return _gap(*both)


def lambda_zero_equals_baseline(make: Make, baseline: Make, net: nn.Module, batch: Batch, clock: Any) -> bool:
    """Whether ``make(net)``, a method with weight zero, and ``baseline(net)`` train to bitwise equal weights.

    Example:
        >>> from functools import partial
        >>> from xai_course.methods.base import CrossEntropy
        >>> from xai_course.nets.convnets import small_cnn
        >>> batch = Batch(torch.rand(4, 3, 16, 16), torch.arange(4), None, torch.arange(4))
        >>> zero = partial(CrossEntropy, label_smoothing=0.0)
        >>> lambda_zero_equals_baseline(zero, CrossEntropy, small_cnn(width=2), batch, clock=None)
        True
    """
    return training_gap(make(copy.deepcopy(net)), baseline(copy.deepcopy(net)), batch, clock) == 0.0


def _gap(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    return max(float((a[name] - b[name]).detach().abs().max()) for name in a)


def _resettable(net: nn.Module) -> list[tuple[str, Any]]:
    found = [(name, m) for name, m in net.named_modules() if callable(getattr(m, "reset_parameters", None))]
    require(found, f"net must have layers with reset_parameters, got {type(net).__name__} without any")
    return found


def _ranks(values: Tensor) -> Tensor:
    """Ranks along the last dimension, equal values sharing their mean rank."""
    ordered = values.sort(dim=1).values.contiguous()
    values = values.contiguous()
    return (torch.searchsorted(ordered, values) + torch.searchsorted(ordered, values, right=True)).double() / 2
