"""What rows on sets with a shortcut need: the sets under a preset, and images that a method looks at on its own."""

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


def with_annotated(splits: Splits, *, of: Callable[[Splits], nn.Module]) -> nn.Module:
    """``of`` that knows the annotated training images, for `PastedOften`."""
    net, train = of(splits), splits.train
    assert isinstance(train, Cued) and train.masks is not None
    known = (~train.masks.flatten(1).all(1)).nonzero().flatten()
    net.annotated = partial(train.__getitems__, known.tolist())  # type: ignore[assignment]
    return net
