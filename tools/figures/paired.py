"""Paired differences from run records, where each line has a twin of its own; and the colours of the diagrams."""

from __future__ import annotations

from collections.abc import Mapping

from xai_course.measure.statistics import paired
from xai_course.runs import records
from xai_course.show import bench
from xai_course.show.style import CYCLE

BLUE, ORANGE, GREEN, PINK, AMBER = CYCLE[:5]


def differences(panels: Mapping[str, tuple[str, Mapping[str, tuple[str, str]]]]):
    """A row minus its twin, seed by seed, with Student's 95 % interval; coloured where the interval leaves out zero.

    Args:
        panels: title to (metric, line to (row, twin)), rows by their experiment's name.
    """
    drawn, said = {}, {}
    for title, (metric, lines) in panels.items():
        drawn[title] = {
            name: paired(*(records.load(row).metrics[metric].values for row in rows)) for name, rows in lines.items()
        }
        said[title] = {
            name: "higher" if d.low > 0 else "lower" if d.high < 0 else "open" for name, d in drawn[title].items()
        }
    return bench.forest(drawn, said)
