"""Timing that survives a busy machine: all candidates take turns in one process, and ratios are of CPU time.

Wall time on shared cores scatters by tens of per cent; the CPU time of the process does not count waiting. Each round
runs every candidate once in a shuffled order, and a ratio is taken within a round, so slow drift cancels.
"""

from __future__ import annotations

import json
import platform
import random
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch


class Timing(NamedTuple):
    """Ratio of a candidate's CPU time to the reference's (median, quartiles over rounds), and its milliseconds."""

    ratio: float
    low: float
    high: float
    milliseconds: float


def interleave(
    candidates: Mapping[str, Callable[[], object]], reference: str, *, rounds: int = 9, warmup: int = 2, seed: int = 0
) -> dict[str, Timing]:
    """Times every candidate ``rounds`` times in turn.

    Args:
        candidates: name to function without arguments; each must do the whole job it is compared for.
        reference: the name all ratios refer to.
        rounds, warmup: timed and untimed rounds.
        seed: of the shuffled order.

    Returns:
        Name to `Timing`, in the order of ``candidates``.

    Raises:
        ValueError: unknown reference, or fewer than one round.
    """
    if reference not in candidates or rounds < 1:
        raise ValueError(f"reference must be one of {list(candidates)} and rounds >= 1, got {reference!r}, {rounds}")
    order, shuffle = list(candidates), random.Random(seed).shuffle
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for round_ in range(warmup + rounds):
        shuffle(order)
        for name in order:
            start = time.process_time()
            candidates[name]()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if round_ >= warmup:
                seconds[name].append(time.process_time() - start)
    return {name: _timing(seconds[name], seconds[reference]) for name in candidates}


def _timing(own: list[float], reference: list[float]) -> Timing:
    ratios = sorted(a / b for a, b in zip(own, reference))
    low, high = (ratios[0], ratios[-1]) if len(ratios) < 4 else (statistics.quantiles(ratios, n=4)[i] for i in (0, 2))
    return Timing(statistics.median(ratios), low, high, 1000 * statistics.median(own))


def table(title: str, timings: Mapping[str, Timing]) -> str:
    """A plain-text table: ratio, its middle half, milliseconds."""
    width = max(map(len, timings))
    line = "{:<{}}  {:6.2f}  [{:.2f}, {:.2f}]  {:9.1f} ms".format
    rows = [line(name, width, t.ratio, t.low, t.high, t.milliseconds) for name, t in timings.items()]
    return "\n".join([title, *rows])


def save(path: str | Path, machine: str, cases: Mapping[str, Mapping[str, Timing]], **details: object) -> None:
    """Writes all cases with the machine, the versions and ``details`` to one JSON file, replaced in one step."""
    record = {
        "machine": machine,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "measure": "ratio of process CPU time within a round: median, quartiles",
        **details,
        "cases": {case: {name: _rounded(t) for name, t in timings.items()} for case, timings in cases.items()},
    }
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    part.replace(path)


def _rounded(timing: Timing) -> dict[str, float]:
    return {name: float(f"{value:.4g}") for name, value in timing._asdict().items()}
