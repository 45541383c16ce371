"""One look for all figures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..data.files import course_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAP_COLOURS = "viridis"  # perceptually uniform, readable in grey
# Okabe and Ito's colours: told apart by colour-blind readers.
CYCLE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


@contextmanager
def style():
    """Matplotlib settings for every figure of the book, those of ``data/figures.mplstyle`` and the colours above."""
    import matplotlib.pyplot as plt
    from cycler import cycler

    colours: Any = {"axes.prop_cycle": cycler(color=CYCLE), "image.cmap": MAP_COLOURS}
    with plt.style.context([course_file("figures.mplstyle"), colours]):
        yield


@contextmanager
def sheet(width: float, height: float) -> Iterator[Figure]:
    """An empty figure of so many inches, in the book's style. The notebook shows what is returned, no second copy."""
    import matplotlib.pyplot as plt

    with style():
        figure = plt.figure(figsize=(width, height))
        plt.close(figure)
        yield figure


def curves(lines: Mapping[str, Sequence[Any]], width: float, height: float, **how: Any):
    """One panel of named lines: ``(x, y)`` or ``(x, y, how it looks)`` each; ``how`` sets the axis."""
    with canvas(width, height) as (figure, axis):
        for name, (x, y, *look) in lines.items():
            axis.plot(x, y, label=name, **dict(*look))
        axis.set(**how)
        axis.legend()
    return figure


def seed_rows(
    panels: Mapping[str, Mapping[str, Sequence[float]]],
    width: float,
    colour: Callable[[str], str] = lambda name: CYCLE[0],
    bars: bool = False,
    **how: Any,
):
    """A panel per title, a row per name: every seed as a dot, their mean as a tick or a bar.

    Args:
        panels: title to (name to values); a name may be absent from a panel.
        width: inches per panel. colour: of a name. how: as for `canvas`.
    """
    names = list(dict.fromkeys(name for rows in panels.values() for name in rows))
    size = width * len(panels) + 1.5, 0.26 * len(names) + 0.8
    with canvas(*size, len(panels), titles=list(panels), sharey=True, **how) as (figure, axes):
        for axis, rows in zip(axes, panels.values()):
            for name, values in rows.items():
                place, mean = names.index(name), sum(values) / len(values)
                if bars:
                    axis.barh(place, mean, 0.6, color=colour(name))
                else:
                    axis.plot(mean, place, "|", ms=13, mew=2, color=colour(name))
                axis.plot(values, [place] * len(values), "o", ms=4, alpha=0.6, color="black" if bars else colour(name))
        axes[0].set(yticks=range(len(names)), yticklabels=names, ylim=(len(names) - 0.5, -0.5))
    return figure


def sweep_figure(records: Mapping[float, Any], metrics: Mapping[str, str], label: str, dummies: Sequence[str] = ()):
    """Metrics over a hyper-parameter, a panel each, one dot per seed, and the level of a dummy as a dashed line.

    Args:
        records: value of the hyper-parameter -> `Record`; metrics: name in the record -> title of the panel.
        label: the hyper-parameter; dummies: metric names of dummies, in the order of ``metrics``, "" for none.
    """
    with canvas(1.75 * len(metrics), 2.1, len(metrics), titles=list(metrics.values())) as (figure, axes):
        at = range(len(records))
        for axis, metric, dummy in zip_longest(axes, metrics, dummies):
            found = [record.metrics[metric] for record in records.values()]
            axis.plot(at, [m.mean for m in found], color=CYCLE[0])
            for x, m in zip(at, found):
                axis.plot([x] * len(m.values), m.values, "o", ms=3, color=CYCLE[0], alpha=0.6)
            if dummy:
                level = [record.metrics[dummy].mean for record in records.values()]
                axis.plot(at, level, ls="--", color=CYCLE[1], label="dummy")
                axis.legend()
            axis.set(xlabel=label, xticks=list(at), xticklabels=[f"{v:g}" for v in records])
    return figure


@contextmanager
def canvas(
    width: float, height: float, columns: int = 0, rows: int = 0, titles: Sequence[str] = (), **how: Any
) -> Iterator[tuple[Figure, Any]]:
    """A `sheet` and its axes: one, a row of ``columns``, or ``rows`` of such rows; ``how`` goes to its ``subplots``.

    ``titles`` stand above the panels of the first row.
    """
    with sheet(width, height) as figure:
        axes = figure.subplots(rows or 1, columns or 1, squeeze=False, **how)
        for axis, title in zip(axes[0], titles):
            axis.set_title(title)
        yield figure, axes if rows else axes[0] if columns else axes[0, 0]


def bare(*axes: Any) -> None:
    """Neither ticks nor spines."""
    for axis in axes:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)


def frame(axis: Any, box: Any, colour: str = CYCLE[4], lines: str = "-", width: float = 2.5) -> None:
    """The outline of a box: x0, y0, x1, y1 in pixels, half-open, numbers or a tensor."""
    from matplotlib.patches import Rectangle

    x0, y0, x1, y1 = (float(v) for v in box)
    axis.add_patch(Rectangle((x0 - 0.5, y0 - 0.5), x1 - x0, y1 - y0, fill=False, ec=colour, lw=width, ls=lines))


def image_grid(rows: Sequence[Sequence[Tensor]], columns: Sequence[str] = (), labels: Sequence[str] = (), size=1.3):
    """Images and maps in a grid, one row per example.

    Args:
        rows: each a list of ``[C, H, W]`` images in [0, 1] or ``[H, W]`` maps in [0, 1] (drawn on one colour scale with
            a shared colour bar).
        columns, labels: headings of the columns, names of the rows.
        size: inches per panel.

    Returns:
        A matplotlib figure.
    """
    across = max(len(row) for row in rows)
    with canvas(size * across + 0.6, size * len(rows) + 0.3, across, len(rows), columns) as (figure, axes):
        drawn = None
        for i, row in enumerate(rows):
            for j, panel in enumerate(row):
                drawn = draw(axes[i, j], panel) or drawn
            if i < len(labels):
                axes[i, 0].set_ylabel(labels[i], rotation=0, ha="right", va="center")
        bare(*axes.flat)
        if drawn is not None:
            figure.colorbar(drawn, ax=axes, shrink=0.8, label="map, 0 to 1")
    return figure


def draw(axis, panel: Tensor):
    """One image ``[C, H, W]`` (returns None) or one map ``[H, W]`` (returns the drawn map, for a colour bar)."""
    panel = torch.as_tensor(panel).detach().float().cpu()
    if panel.ndim == 3:
        picture = panel.clamp(0, 1).permute(1, 2, 0)
        axis.imshow(picture.squeeze(-1).numpy(), cmap="gray", vmin=0, vmax=1)
        return None
    return axis.imshow(panel.numpy(), cmap=MAP_COLOURS, vmin=0, vmax=1)
