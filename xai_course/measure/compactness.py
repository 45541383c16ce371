"""How much of the image a map covers: what "more compact maps" (AMC-Loss, Figs. 2 and 6) says, as a number."""

from __future__ import annotations

import torch

from ..data.batch import Splits
from .localisation import look


def map_area(method, splits: Splits, *, level: float = 0.5) -> dict[str, float]:
    """``map_area``: mean share of the image in which the predicted class's map reaches ``level`` of its maximum.

    In (0, 1]; small is compact. It needs no masks, and says nothing of *where* the map lies: one bright pixel in
    a corner is as compact as can be. Maps that are zero everywhere are left out.

    Raises:
        ValueError: ``level`` outside (0, 1].
    """
    if not 0 < level <= 1:
        raise ValueError(f"level must lie in (0, 1], got {level}")
    shares = []
    for seen in look(method, splits.test):
        peak = seen.maps.flatten(1).amax(1)
        above = (seen.maps >= level * peak[:, None, None]).flatten(1).double().mean(1)
        shares.append(above[peak > 0])
    return {"map_area": float(torch.cat(shares).mean())}
