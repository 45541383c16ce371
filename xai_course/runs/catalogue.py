"""All declared experiments, found by name."""

from __future__ import annotations

import difflib
import fnmatch
import importlib.util
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
    """All experiments whose name matches a shell pattern such as ``hnc/table1/*``."""
    names = fnmatch.filter(experiments(), pattern)
    return [experiments()[n] for n in names] if names else [find(pattern)]


def unknown(kind: str, name: str, known) -> str:
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.3)
    return f"unknown {kind} {name!r}" + (f": did you mean {near[0]!r}?" if near else "")
