"""Figures of the bench: pure functions of differences and scores that the caller reads from the records."""

from collections.abc import Mapping, Sequence
from typing import Any

from .style import CYCLE, canvas, seed_rows

COLOURS = {"open": "0.55", "higher": CYCLE[0], "lower": CYCLE[1]}


def forest(panels: Mapping[str, Mapping[str, Any]], said: Mapping[str, Mapping[str, str]]):
    """Paired differences with their 95 % intervals, a panel per column of the bench, a line per method.

    Args:
        panels: panel title to (method to difference, with ``mean``, ``low``, ``high`` and ``values``).
        said: panel title to (method to verdict): "open" is grey, "higher" blue, "lower" orange.
    """
    methods = list(next(iter(panels.values())))
    with canvas(3.1 * len(panels) + 1.4, 0.3 * len(methods) + 0.9, len(panels), sharey=True) as (figure, axes):
        for axis, (title, found) in zip(axes, panels.items()):
            axis.axvline(0, color="0.8", lw=1, zorder=0)
            for place, (key, d) in enumerate(found.items()):
                colour = COLOURS[said[title][key]]
                axis.plot((d.low, d.high), (place, place), color=colour, lw=2, alpha=0.7)
                axis.plot(d.values, [place] * len(d.values), "|", color="0.3", ms=6)
                axis.plot(d.mean, place, "o", color=colour, ms=5)
            axis.set_title(title)
        axes[0].set(yticks=range(len(methods)), yticklabels=methods)
        axes[0].invert_yaxis()
    return figure


def trade_off(points: Mapping[str, tuple[Sequence[float], Sequence[float]]], trivial: Mapping[str, float], labels):
    """One score against another, small dots for seeds, a large one for their mean; dotted lines for trivial maps.

    Args:
        points: method to (values on the x axis, values on the y axis).
        trivial: name to its height on the y axis.
        labels: of the two axes.
    """
    markers = "osD^vP*X<>hdp8H1234"  # nineteen: with the colours no pair repeats
    with canvas(6.8, 3.8) as (figure, axis):
        for place, (name, (xs, ys)) in enumerate(points.items()):
            colour = CYCLE[place % len(CYCLE)]
            axis.plot(xs, ys, ".", color=colour, ms=3, alpha=0.6)
            middle = sum(xs) / len(xs), sum(ys) / len(ys)
            axis.plot(*middle, markers[place % len(markers)], color=colour, ms=7, label=name)
        for name, height in trivial.items():
            axis.axhline(height, color="0.6", ls=":", lw=1)
            axis.annotate(name, (1, height), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=7)
        axis.set(xlabel=labels[0], ylabel=labels[1])
        axis.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


def column(values: Mapping[str, Mapping[str, Sequence[float]]], label: str):
    """One column of the bench in all settings: a dot per seed, a tick at the mean.

    Args:
        values: setting to (method to values); a method may be absent from a setting.
    """
    figure = seed_rows(values, 2.0, sharex=True)
    figure.supxlabel(label, fontsize="medium")
    return figure
