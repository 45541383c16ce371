"""Figures of the pages of tables: ``<paper>_<item>``, the paper's numbers beside those of its twin."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from tools import twins
from xai_course.measure.metrics import metric
from xai_course.runs.catalogue import PAPERS
from xai_course.show.style import CYCLE, style

MARKS = "osD^vP*X"


def __getattr__(name: str) -> Callable:
    """A figure of every item that has a page."""
    paper = next((paper for paper in PAPERS if name.startswith(f"{paper}_")), "")
    item = name.removeprefix(f"{paper}_")
    if not paper or item not in twins.pages(paper):
        raise AttributeError(name)
    return partial(beside, paper, item)


def beside(paper: str, item: str):
    """Two panels, paper and twin, or the twin alone where the paper prints no number; each with its own scale."""
    import matplotlib.pyplot as plt

    found = twins.points(paper, item)
    both = any(twins.printed(p.row, p.metric) is not None for p in found)
    xs, lines = list(dict.fromkeys(p.x for p in found)), list(dict.fromkeys(p.line for p in found))
    names = {p.line: twins.label(paper, item, p) for p in found}
    flat = xs == [""]
    with style():
        size = (7.4, 0.24 * len(lines) + 0.9) if flat else (7.4, 2.6 + 0.05 * len(lines))
        figure, axes = plt.subplots(1, 1 + both, figsize=size, squeeze=False)
        panels = [("paper", _told), ("twin", _ours)][1 - both :]
        for axis, (title, values) in zip(axes[0], panels):
            for i, line in enumerate(lines):
                own = [p for p in found if p.line == line]
                colour, mark = CYCLE[0] if flat else CYCLE[i % 7], "o" if flat else MARKS[i % 8]
                parts = dict.fromkeys(p.x.rpartition("_")[0] for p in own)  # "symmetric_0.2": a line for each kind
                for part in parts:
                    places = [(i if flat else xs.index(p.x), values(p)) for p in own if p.x.rpartition("_")[0] == part]
                    _line(axis, places, colour, mark, "" if part != next(iter(parts)) else names[line], flat)
            axis.set_title(title)
            metrics = list(dict.fromkeys(p.metric for p in found))
            shown = _unit(metrics[0]) if len(metrics) == 1 else ", ".join(dict.fromkeys(map(_scale, metrics)))
            axis.set(**{"xlabel" if flat else "ylabel": shown})
            if not flat:
                long = {"rotation": 40, "ha": "right"} if max(map(len, xs)) > 5 else {}
                axis.set_xticks(range(len(xs)), [x.replace("_", " ") for x in xs], **long)
        if flat:
            for k, axis in enumerate(axes[0]):
                axis.set(ylim=(len(lines) - 0.5, -0.5), yticks=range(len(lines)))
                axis.set_yticklabels([] if k else [names[line] for line in lines])
        else:
            figure.legend(*axes[0, -1].get_legend_handles_labels(), loc="outside right upper", fontsize=8)
        plt.close(figure)
    return figure


def _told(point: twins.Point) -> tuple[float, ...]:
    value = twins.printed(point.row, point.metric)
    return () if value is None else (value,)


def _ours(point: twins.Point) -> tuple[float, ...]:
    return twins.values(point.row, point.metric)


def _line(axis, places, colour: str, mark: str, name: str, flat: bool) -> None:
    """Seeds as faint dots, their means joined."""
    there = [(x, v) for x, v in places if v]
    means = [sum(v) / len(v) for _, v in there]
    seeds = [(x, one) for x, v in there for one in v if len(v) > 1]
    order = (lambda x, y: (y, x)) if flat else (lambda x, y: (x, y))
    axis.plot(*order([x for x, _ in seeds], [y for _, y in seeds]), ".", ms=4, color=colour, alpha=0.45)
    axis.plot(*order([x for x, _ in there], means), mark, ls="-", lw=1.3, ms=5, color=colour, label=name)


def _scale(name: str) -> str:
    return "%" if twins.scale(name) == 100 else "s" if name == "seconds" else metric(name).unit


def _unit(name: str) -> str:
    return f"{name.replace('_', ' ')}{', %' if twins.scale(name) == 100 else ''}"
