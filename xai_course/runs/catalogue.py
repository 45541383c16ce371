"""All declared experiments, found by name."""

import fnmatch
from functools import cache

from . import declared
from .declared import unknown
from .experiment import Experiment

__all__ = ["PAPERS", "experiments", "find", "matching", "unknown"]

PAPERS = {
    "looking": "Where does a network look?",
    "amc": "AMC-Loss",
    "hnc": "HNC",
    "loss_attention": "Loss-based attention",
    "minmax": "Min-Max entropy",
    "reff": "ReFF",
    "bench": "The bench",
    "masks": "What are masks worth?",
}


@cache
def experiments() -> dict[str, Experiment]:
    """Name to experiment, in the order of the papers.

    Raises:
        ValueError: two experiments share a name.
    """
    found: dict[str, Experiment] = {}
    for paper in PAPERS:
        for experiment in declared.experiments(paper):
            if experiment.name in found:
                raise ValueError(f"experiment name {experiment.name!r} is taken")
            found[experiment.name] = experiment
    return found


def find(name: str) -> Experiment:
    """The experiment of that exact name; an unknown one is answered with the nearest."""
    if name not in experiments():
        raise ValueError(unknown("experiment", name, experiments()))
    return experiments()[name]


def matching(pattern: str) -> list[Experiment]:
    """All experiments of a paper (``hnc``), of a table (``hnc/table1``), or of a shell pattern (``hnc/*/mse_1``)."""
    pattern = pattern.rstrip("/")
    below = [name for name in experiments() if name.startswith(f"{pattern}/")]
    names = below or fnmatch.filter(experiments(), pattern)
    if not names:
        tables = {name.rpartition("/")[0] for name in experiments()}
        raise ValueError(unknown("experiment", pattern, [*PAPERS, *tables, *experiments()]))
    return [experiments()[name] for name in names]
