"""What rows of several papers need: Textured Digits kept for the next row, networks of the right size."""

from collections.abc import Callable
from copy import copy
from functools import lru_cache
from typing import Any, cast

import torch
from torch import nn

from ...data.batch import ArrayData, Splits
from ...data.textured_digits import textured_digits


@lru_cache(maxsize=8)
def digits(
    preset: str = "smoke", *, seed: int = 0, smoke: tuple[int, int, int] | None = None, first: int = 0, **knobs: Any
) -> Splits:
    """Textured Digits, kept for the next row; images of each part at "smoke", and the seed that counts as 0."""
    sizes = dict(zip(("train", "validation", "test"), smoke)) if smoke and preset == "smoke" else {}
    return textured_digits(preset, seed=first + seed, **sizes | knobs)


def whole(load: Callable[..., Splits], preset: str, *, seed: int, **options: Any) -> Splits:
    """At "paper" all official training images train, and none is left to choose by; other presets hold some out."""
    splits = load(preset, seed=seed, **options)
    if preset != "paper":
        return splits
    train, held = copy(splits.train), copy(splits.validation)
    for part in vars(train).keys() & {"images", "labels", "items"}:  # in memory, or in files
        ours, other = getattr(train, part), getattr(held, part)
        setattr(train, part, ours + other if part == "items" else torch.cat([ours, other]))
        setattr(held, part, other[:0])
    return splits._replace(train=train, validation=held, fingerprint=f"{splits.fingerprint} whole")


def sized(build: Callable[..., nn.Module], splits: Splits, **options: Any) -> nn.Module:
    """``build`` with the number of classes and, where ``channels`` is "of the data", of channels that the data have."""
    if "channels" in options:
        options["channels"] = splits.train.__getitems__([0]).images.shape[1]
    return build(classes=len(splits.classes), **options)


def each_part(splits: Splits, change: Callable[[ArrayData], ArrayData], name: str) -> Splits:
    """The splits with ``change`` made to all three parts, under another fingerprint."""
    train, validation, test = (change(cast(ArrayData, part)) for part in splits[1:4])
    return splits._replace(train=train, validation=validation, test=test, fingerprint=name)
