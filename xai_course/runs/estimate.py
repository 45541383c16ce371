"""How many trainings a command means and how long they take, by the seconds that run records name."""

import statistics
from collections.abc import Iterable
from itertools import takewhile

from . import records
from .catalogue import experiments
from .experiment import Experiment


def plan_text(chosen: Iterable[Experiment], preset: str, seeds: int) -> str:
    """What a run of ``chosen`` would cost, one training after the other, and where the estimate comes from.

    A row takes as long as its own record at this preset says; without one, as long as the nearest row with a record at
    this preset: of the same table, else of the same paper, and there by the same method if there is one.
    """
    rows = list(chosen)
    text = f"{len(rows) * seeds} trainings ({len(rows)} rows × {seeds} seeds at {preset}), "
    there = (name for name in experiments() if records.record_path(name, preset).exists())
    known = {name: statistics.fmean(records.load(name, preset).seconds) for name in there}
    if not known:
        return f"{text}time unknown: no row has a record at {preset}"
    own = sum(row.name in known for row in rows)
    total = seeds * sum(known.get(row.name) or known[_nearest(row.name, known)] for row in rows)
    source = f"{own} of {len(rows)} rows by their own records" + ", the others by the nearest row's" * (own < len(rows))
    return f"{text}about {words(total)}: {source}"


def _nearest(name: str, known: Iterable[str]) -> str:
    parts = name.split("/")

    def shared(other: str) -> tuple[int, bool]:
        theirs = other.split("/")
        return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(parts, theirs))), parts[-1] == theirs[-1]

    return max(known, key=shared)


def words(seconds: float) -> str:
    """Seconds in the largest unit of which there are two."""
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
