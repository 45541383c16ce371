"""All declared experiments, found by name."""

from __future__ import annotations

import difflib
import fnmatch
import importlib.util
from collections.abc import Iterable
from functools import cache

from .experiment import Experiment

PAPERS = {
    "looking": "Where does a network look?",
    "amc": "AMC-Loss",
    "hnc": "HNC",
    "loss_attention": "Loss-based attention",
    "minmax": "Min-Max entropy",
    "reff": "ReFF",
    "bench": "The bench",
}


@cache
def experiments() -> dict[str, Experiment]:
    """Name to experiment, in the order of the papers.

    Raises:
        ValueError: two experiments share a name.
    """
    found: dict[str, Experiment] = {}
    for paper in PAPERS:
        if importlib.util.find_spec(f"{__package__}.{paper}") is None:
            continue
        for experiment in importlib.import_module(f"{__package__}.{paper}").EXPERIMENTS:
            if experiment.name in found or experiment.paper != paper:
                raise ValueError(f"experiment name {experiment.name!r} is taken or belongs to another paper")
            found[experiment.name] = experiment
    return found


def find(name: str) -> Experiment:
    """The experiment of that exact name; an unknown one is answered with the nearest."""
    if name not in experiments():
        raise ValueError(unknown("experiment", name, experiments()))
    return experiments()[name]


def matching(pattern: str) -> list[Experiment]:
    """All experiments of a paper (``hnc``), of a table (``hnc/table1``), or of a shell pattern (``hnc/*/mse_1``)."""
    below = [name for name in experiments() if name.startswith(f"{pattern}/")]
    names = below or fnmatch.filter(experiments(), pattern)
    return [experiments()[n] for n in names] if names else [find(pattern)]


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """What to say of a name that is not ``known``, with one that is near, as a whole or in its last part."""
    last = {one.rpartition("/")[2]: one for one in known}
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    near = near or [last[part] for part in difflib.get_close_matches(name, last, n=1, cutoff=0.75)]
    return f"unknown {kind} {name!r}" + (f": did you mean {near[0]!r}?" if near else "")
