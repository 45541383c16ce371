"""What the papers' rows need at preset "cpu": data at hand, decoded once."""

import os
import shutil
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from ...data.batch import ArrayData, Splits
from ...data.files import cache_folder, locked
from ...data.folders import in_memory
from ...data.image_sets import tiny_imagenet
from ...data.noise import with_label_noise
from ...data.vision import find_file


@lru_cache(maxsize=8)
def at_hand(load: Callable[..., Splits], *, preset: str, seed: int) -> Splits:
    """``load`` at "smoke" in place of what the paper used, in memory and kept for the next row."""
    splits = load("smoke", seed=seed)
    return splits if isinstance(splits.test, ArrayData) else in_memory(splits)


def tiny20(preset: str = "smoke", *, seed: int = 0, **cut: Any) -> Splits:
    """Tiny ImageNet's 20 classes from ``tiny20/tiny-imagenet-200.zip`` in XAI_COURSE_DATA, unpacked into the cache."""
    home = cache_folder() / "unpacked" / "tiny20"
    there = home / "tiny-imagenet-200"
    with locked(home):
        if not there.is_dir():
            shutil.unpack_archive(find_file("tiny20/tiny-imagenet-200.zip", None), home / "unfinished")
            os.replace(home / "unfinished" / there.name, there)
    return tiny_imagenet(preset, root=home, seed=seed, **cut)._replace(name="Tiny ImageNet, 20 classes")


def noisy(load: Callable[..., Splits], preset: str, *, seed: int, kind: str, rate: float) -> Splits:
    """``load`` with training and validation labels wrong at ``rate``; test labels stay clean."""
    return with_label_noise(load(preset, seed=seed), rate, kind=kind, seed=seed)
