"""What Loss-Attention's rows need: few or enlarged images."""

from collections.abc import Callable

import torch
import torch.nn.functional as F

from ...data.batch import ArrayData, Splits, fingerprint
from .common import each_part


def few(load: Callable[..., Splits], *, preset: str, seed: int) -> Splits:
    """At "smoke" 16/8/8 images, enough to show that a row of a big network runs; else everything."""
    return load(preset, seed=seed, **({"limit": (16, 8, 8)} if preset == "smoke" else {}))


def enlarged(load: Callable[..., Splits], *, preset: str, seed: int) -> Splits:
    """32-pixel images at 64 pixels, bilinear (Loss-Attention, Table VII); kept as uint8."""
    splits = few(load, preset=preset, seed=seed)

    def large(data: ArrayData) -> ArrayData:
        chunks = [F.interpolate(part.float(), scale_factor=2, mode="bilinear") for part in data.images.split(1024)]
        return ArrayData(torch.cat([(chunk + 0.5).byte() for chunk in chunks]), data.labels)

    return each_part(splits, large, fingerprint(splits.fingerprint, 64))._replace(name=f"{splits.name} at 64 px")
