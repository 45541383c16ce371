"""What rows on sets with a shortcut need: the sets under a preset, and held-out images for a last layer."""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

from torch import nn

from ...data.batch import Batch, Splits
from ...data.cues import Cued


@lru_cache(maxsize=24)
def shortcut_set(preset: str = "smoke", *, seed: int = 0, source: Callable[..., Splits], **options: Any) -> Splits:
    """``source(seed=seed, **options)``, kept for the next row; the sets have one size at every preset."""
    return source(seed=seed, **options)


def all_of(data: Cued) -> Batch:
    """All of a data set as one batch."""
    return data.__getitems__(range(len(data)))


def with_held(splits: Splits, *, of: Callable[[Splits], nn.Module]) -> nn.Module:
    """``of`` that knows the balanced held-out images, for `DFR`."""
    net = of(splits)
    net.held = partial(all_of, splits.validation.balanced)  # type: ignore[attr-defined,assignment]
    return net
