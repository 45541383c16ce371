"""Figures of "What are masks worth?". Each draws what has a record and leaves out what has none."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial

import torch

from tools import masks_page as page
from tools import tuning
from xai_course.runs import records
from xai_course.show import bench
from xai_course.show.style import CYCLE, bare, canvas, draw

WIDTH = 4.6  # inches: letters stay readable on a telephone
LOOK = {  # way to colour and mark; cross-entropy is grey
    "ce": ("0.45", "x"),
    "smoothing": ("#000000", "*"),
    "pasted": (CYCLE[0], "o"),
    "pasted_often": ("#00305a", "p"),
    "masked": (CYCLE[5], "s"),
    "rrr": (CYCLE[3], "D"),
    "energy": (CYCLE[1], "^"),
    "reff": (CYCLE[2], "v"),
    "l1": (CYCLE[4], "P"),
    "groupdro": ("0.45", "<"),
    "reweighted": ("0.45", ">"),
    "dfr": ("0.45", "h"),
    "jtt": ("0.45", "d"),
}


def __getattr__(name: str) -> Callable:
    """A figure of every set: its ways with all masks."""
    if name not in page.SETS:
        raise AttributeError(name)
    return partial(forest, f"{name}/full")


def nothing():
    """What is drawn where nothing has been run."""
    with canvas(WIDTH, 0.6) as (figure, axis):
        axis.text(0.5, 0.5, "not run yet", ha="center", va="center", color="0.55")
        bare(axis)
    return figure


def forest(condition: str):
    """Every way of a condition minus cross-entropy, seed by seed."""
    found, said = page.gaps(condition), page.verdicts(condition)
    if not found:
        return nothing()
    order = sorted(found, key=lambda way: -found[way].mean)
    beside = page.record(page.plain(condition), "ce")
    assert beside is not None
    name = f"accuracy, cue broken (cross-entropy: {beside.metrics['accuracy'].mean:.2f})"
    return bench.forest(
        {name: {page.title(way): found[way] for way in order}}, {name: {page.title(w): said[w] for w in order}}
    )


def weak():
    """Ways with masks beside ways with groups, where the cue fails in a few training images."""
    return forest("digits/weak")


def _legend(figure, ways: Iterable[str]) -> None:
    from matplotlib.lines import Line2D

    used = set(ways)
    marks = [
        Line2D([], [], color=colour, marker=mark, ls="", ms=6, label=page.title(way))
        for way, (colour, mark) in LOOK.items()
        if way in used
    ]
    figure.legend(handles=marks, loc="outside lower center", ncols=3, fontsize=8)


def answers():
    """For each kind of masks: what every way gains over cross-entropy. The page's first screen."""
    lines = {}
    for key in page.SITUATIONS:
        for condition in (f"{name}/{key}" for name in page.SETS):
            found = page.gaps(condition) if condition in page.conditions() else {}
            if found:
                lines[condition] = {way: found[way] for way in LOOK if way in found}
    if not lines:
        return nothing()
    with canvas(WIDTH, sum(0.3 + 0.13 * len(found) for found in lines.values()) + 1.3) as (figure, axis):
        axis.axvline(0, color="0.6", lw=1, ls=":", zorder=0)
        top, ticks = 0.0, []
        for condition, found in lines.items():
            for k, (way, d) in enumerate(found.items()):
                colour, mark = LOOK[way]
                axis.plot((d.low, d.high), (top + k, top + k), color=colour, lw=1.4, alpha=0.7)
                axis.plot(d.mean, top + k, mark, color=colour, ms=6)
            lost = page.lost(condition)
            if lost:
                axis.plot((lost, lost), (top - 0.5, top + len(found) - 0.5), color="#000000", lw=1, ls="--")
            ticks.append(top + (len(found) - 1) / 2)
            top += len(found) + 2
        axis.set(yticks=ticks, ylim=(top - 1, -1), xlabel="accuracy with the cue broken, minus cross-entropy's")
        axis.set_yticklabels([_wrapped(page.called(condition)) for condition in lines], fontsize=8)
        _legend(figure, (way for found in lines.values() for way in found))
    return figure


def _wrapped(words: str, width: int = 18) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(words, width))


def sets():
    """A digit in training and in the test, what two ways make of it, and what annotators may draw."""
    from xai_course.data.cues import cued_digits, spoilt
    from xai_course.methods.shortcuts import masked_input, pasted

    splits = cued_digits((40, 2, 2, 2, 40), contrast=0.6, amplitude=0.05, chroma=0.0, q=1.0)
    images, masks = splits.train.images[:4] / 255, splits.train.masks[:4]
    same = (splits.test.labels == splits.train.labels[0]).nonzero()[0, 0]
    upper = {
        "training": images[0],
        "test": splits.test.images[same] / 255,
        "pasted": pasted(images, masks.float())[0],
        "masked input": masked_input(images, masks.float())[0],
    }
    names = {"": "exact", "dilated": "too wide", "shifted": "off", "boxes": "box"}
    lower = {words: images[0] * (0.3 + 0.7 * spoilt(masks[:1], error)[0]) for error, words in names.items()}
    with canvas(WIDTH, 2.6, 4, 2) as (figure, axes):
        for row, panels in zip(axes, (upper, lower)):
            for axis, (words, panel) in zip(row, panels.items()):
                draw(axis, panel)
                axis.set_title(words)
        bare(*axes.flat)
    return figure


def frontier():
    """Accuracy with the cue against accuracy without it over the values tried: a line for each way."""
    ways = ("ce", "smoothing", "pasted", "masked", "rrr", "energy", "reff", "l1")
    panels: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for setting, way, values in tuning.tried(page.declared()):
        name = setting.removesuffix("/full")
        if name in page.SETS and way in ways:
            there = [f"masks/trial/{setting}/{way}_{v:g}" for v in values]
            found = [records.load(t).metrics for t in there if records.record_path(t, "smoke").exists()]
            if found:
                panels.setdefault(name, {})[way] = [(m["accuracy_seen"].mean, m["accuracy_broken"].mean) for m in found]
    if not panels:
        return nothing()
    with canvas(WIDTH, 2.7 * len(panels) + 0.6, 1, len(panels)) as (figure, axes):
        for axis, (name, found) in zip(axes[:, 0], panels.items()):
            for way, points in found.items():
                colour, mark = LOOK[way]
                axis.plot(*zip(*points), mark, ls="" if way == "ce" else "-", lw=1, ms=4, color=colour)
                if way != "ce":
                    axis.plot(*points[-1], mark, ms=9, mfc="none", color=colour)
            axis.set(title=page.SETS[name], ylabel="cue broken")
        axes[-1, 0].set_xlabel("accuracy while the cue holds")
        _legend(figure, (way for found in panels.values() for way in found))
    return figure


def _along(panels: Mapping[str, Mapping[str, str]]):
    """Accuracy of the ways along conditions: set to (tick to condition). Not run, or one alone: left out."""
    run = {name: {tick: c for tick, c in places.items() if page.gaps(c)} for name, places in panels.items()}
    drawn = {name: places for name, places in run.items() if len(places) > 1}
    if not drawn:
        return nothing()
    used: set[str] = {"ce"}
    with canvas(WIDTH, 2.4 * len(drawn) + 0.6, 1, len(drawn)) as (figure, axes):
        for axis, (name, places) in zip(axes[:, 0], drawn.items()):
            level = page.record(f"{name}/full", "ce")
            assert level is not None
            axis.axhline(level.metrics["accuracy"].mean, color=LOOK["ce"][0], lw=1, ls=":")
            for k, way in enumerate(page.declared()["several"]["few"]):
                colour, mark = LOOK[way]
                points = []
                for place, condition in enumerate(places.values()):
                    found = page.gaps(condition).get(way)
                    own = page.record(condition, way) if found else None
                    if found and own:
                        points.append((place + 0.06 * (k - 2), own.metrics["accuracy"].mean, found))
                for x, y, found in points:
                    axis.plot((x, x), (y - found.mean + found.low, y - found.mean + found.high), color=colour, lw=1.2)
                if points:
                    axis.plot(
                        [x for x, *_ in points], [y for _, y, _ in points], mark, ls="-", lw=1, ms=5, color=colour
                    )
                    used.add(way)
            axis.set(title=page.SETS[name], ylabel="accuracy, cue broken", xlim=(-0.4, len(places) - 0.6))
            axis.set_xticks(range(len(places)), list(places))
        _legend(figure, used)
    return figure


def counts():
    """Accuracy against the number of masks; dotted: cross-entropy, which needs none."""
    return _along({"digits": {"1 a class": "digits/few1", "10 a class": "digits/few10", "all": "digits/full"}})


def errors():
    """Accuracy against what is wrong with the masks."""
    wrong = {"exact": "full", "too wide": "dilated", "off": "shifted", "boxes": "boxes"}
    return _along(
        {
            "digits": {words: f"digits/{key}" for words, key in wrong.items()},
            "garments": {words: f"garments/{key}" for words, key in wrong.items() if key in ("full", "boxes")},
        }
    )


def inside():
    """Ways where the cue lies in the box and goes along."""
    return forest("tiny20/inside")


def cost():
    """Processor time of a whole run as a multiple of cross-entropy's."""
    there = {way: page.record("digits/full", way) for way in tuning.ways(page.declared(), "digits/full")}
    times = {way: torch.tensor(own.cpu_seconds).median().item() for way, own in there.items() if own}
    if "ce" not in times or len(times) < 2:
        return nothing()
    order = sorted(times, key=times.__getitem__)
    with canvas(WIDTH, 0.24 * len(order) + 0.7) as (figure, axis):
        for place, way in enumerate(order):
            axis.plot((0, times[way] / times["ce"]), (place, place), color=CYCLE[0], lw=1.5)
            axis.plot(times[way] / times["ce"], place, "o", color=CYCLE[0], ms=6)
        axis.axvline(1, color="0.6", lw=1, ls=":")
        axis.set(yticks=range(len(order)), yticklabels=[page.title(way) for way in order], xlim=(0, None))
        axis.set_xlabel("processor time of a run × cross-entropy's")
        axis.invert_yaxis()
    return figure
