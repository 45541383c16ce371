"""What the figures of all theory pages share: one running image, the networks that look at it, and the dot plots.

Every chapter shows the same Textured Digit, so that what a method does to a map can be compared across chapters. The
networks are those of the first lab, kept by `xai_course.runs.lab`: trained once, loaded by labs and pages alike.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Mapping, Sequence
from functools import cache

from torch import Tensor, nn

from xai_course.data.batch import Batch, Splits
from xai_course.data.textured_digits import textured_digits
from xai_course.measure.statistics import paired
from xai_course.methods.base import CrossEntropy, Method
from xai_course.nets.convnets import small_cnn
from xai_course.preset import Preset
from xai_course.runs import lab, records
from xai_course.show.style import CYCLE, style

RUNNING = 0  # the first test image: not chosen because a method does well on it
KNOBS = {"q": 1.0, "contrast": 0.4, "amplitude": 0.1}  # lab 1's
PLAN = Preset(epochs=10, batch_size=64, lr=3e-3, schedule="one_cycle", clip_norm=1.0)


@cache
def world(p: float = 1.0) -> Splits:
    """The first lab's images: the background tells nothing (``p=1``) or gives the label away (``p=0``)."""
    return textured_digits("smoke", p=p, **KNOBS)


def running_image(p: float = 1.0) -> Batch:
    """The book's running image, a batch of one: ``images [1, 3, 32, 32]``, its label and mask ``[1, 32, 32]``.

    With ``p=0`` the same digit stands on the background of its class.
    """
    return world(p).test.__getitems__([RUNNING])


@cache
def trained(build: Callable[[nn.Module], Method] = CrossEntropy, p: float = 1.0) -> Method:
    """The course's small network after ten epochs on `world`, under the given method; trained once and kept."""
    method = build(small_cnn(seed=0))
    with contextlib.redirect_stdout(io.StringIO()):
        lab.fit(method, world(p).train, PLAN)
    return method.cpu().eval()


def dots(
    rows: Mapping[str, str], metrics: Mapping[str, str], *, twin: str = "", lines: Mapping[str, str] | None = None
):
    """Results from the records as dots, a panel per metric: each seed small, the mean large.

    Args:
        rows: label to experiment. metrics: name of the metric to title of its panel; a word before a colon takes the
            place of ``{}`` in the experiments' names.
        twin: experiment that every row is compared with, seed by seed: drawn are then the differences, with Student's
            95 % interval; a row whose interval leaves out zero is coloured.
        lines: ``"experiment metric"`` to label, drawn as dotted lines in the panel whose metric the name begins with;
            for scores of trivial maps.
    """
    import matplotlib.pyplot as plt

    with style():
        size = (1.9 * len(metrics) + 1.5, 0.26 * len(rows) + 0.75)
        figure, axes = plt.subplots(1, len(metrics), figsize=size, sharey=True, squeeze=False)
        for axis, (key, title) in zip(axes[0], metrics.items()):
            setting, _, metric = key.rpartition(":")
            beside = records.load(twin.format(setting)) if twin else None
            for place, name in enumerate(rows.values()):
                _row(axis, place, records.load(name.format(setting)), metric, beside)
            if beside:
                axis.axvline(0, color="0.6", lw=0.8, zorder=0)
                title += f"\n(without: {beside.metrics[metric].mean:.3f})"
            _dotted(axis, metric, lines or {})
            axis.set_title(title)
        axes[0, 0].set(yticks=range(len(rows)), yticklabels=list(rows), ylim=(len(rows) - 0.5, -0.5))
        plt.close(figure)
    return figure


def _row(axis, place: int, record, metric: str, twin) -> None:
    values, colour, interval = record.metrics[metric].values, CYCLE[0], None
    if twin is not None:
        found = paired(values, twin.metrics[metric].values)
        values, interval = found.values, (found.low, found.high)
        colour = "0.55" if found.low <= 0 <= found.high else CYCLE[0] if found.mean > 0 else CYCLE[1]
    axis.plot(values, [place] * len(values), ".", ms=5, color=colour, alpha=0.6)
    axis.plot(sum(values) / len(values), place, "o", ms=6, color=colour)
    if interval:
        reach = max(abs(v) for v in values)  # a wild interval of three seeds must not hide the other rows
        axis.plot([max(interval[0], -3 * reach), min(interval[1], 3 * reach)], [place] * 2, color=colour, lw=1.6)


def _dotted(axis, metric: str, lines: Mapping[str, str]) -> None:
    for source, label in lines.items():
        experiment, name = source.split()
        if name.startswith(metric):
            value = records.load(experiment).metrics[name].mean
            axis.axvline(value, color="0.55", lw=1, ls=":", zorder=0)
            axis.annotate(
                label, (value, 1), xycoords=("data", "axes fraction"), rotation=90, fontsize=7, ha="right", va="top"
            )


class Diagram:
    """Boxes, pictures and arrows on an empty sheet in inches, for the networks of the papers.

    Lines and letters are black and grounds empty, so that the page in dark mode can turn the ink.
    """

    def __init__(self, width: float, height: float) -> None:
        import matplotlib.pyplot as plt

        with style():
            self.figure = plt.figure(figsize=(width, height), layout="none")
            self.axis = self.figure.add_axes((0, 0, 1, 1))
            self.axis.set(xlim=(0, width), ylim=(0, height))
            self.axis.set_axis_off()
            plt.close(self.figure)

    def box(self, x: float, y: float, text: str, width: float = 1.0, height: float = 0.5, colour: str = "#000000"):
        """A rounded box around its centre."""
        from matplotlib.patches import FancyBboxPatch

        corner = (x - width / 2, y - height / 2)
        look = {"boxstyle": "round,pad=0,rounding_size=0.06", "fill": False, "ec": colour, "lw": 1.3}
        self.axis.add_patch(FancyBboxPatch(corner, width, height, **look))
        self.text(x, y, text, color=colour)

    def text(self, x: float, y: float, text: str, **how) -> None:
        """Text around its centre, formulas between dollars."""
        self.axis.text(x, y, text, **{"ha": "center", "va": "center", "fontsize": 9, **how})

    def arrow(
        self, start: Sequence[float], end: Sequence[float], text: str = "", colour: str = "#000000", **how
    ) -> None:
        """An arrow with text above its middle."""
        look = {"arrowstyle": "-|>", "color": colour, "lw": 1.2, "shrinkA": 2, "shrinkB": 2, **how}
        self.axis.annotate("", end, start, arrowprops=look)
        if text:
            self.text((start[0] + end[0]) / 2, (start[1] + end[1]) / 2 + 0.13, text, fontsize=8, color=colour)

    def picture(self, x: float, y: float, panel: Tensor, side: float = 0.8, title: str = "", colour="", limit=None):
        """An image ``[C, H, W]``, or a map ``[h, w]``; ``limit`` draws it signed, zero white. Title below."""
        from matplotlib.patches import Rectangle

        box = (x - side / 2, x + side / 2, y - side / 2, y + side / 2)
        show = {"extent": box, "aspect": "auto", "zorder": 2, "interpolation": "nearest"}
        if panel.ndim == 3:
            self.axis.imshow(panel.clamp(0, 1).permute(1, 2, 0).numpy(), **show)
        elif limit:
            self.axis.imshow(panel.detach().numpy(), cmap="RdBu_r", vmin=-limit, vmax=limit, **show)
        else:
            self.axis.imshow(panel.detach().numpy(), **show)
        edge = {"fill": False, "ec": colour or "0.5", "lw": 1.6 if colour else 0.6, "zorder": 3}
        self.axis.add_patch(Rectangle((box[0], box[2]), side, side, **edge))
        self.axis.set(xlim=(0, self.figure.get_figwidth()), ylim=(0, self.figure.get_figheight()))
        if title:
            self.text(x, y - side / 2 - 0.13, title, fontsize=8, color=colour or "#000000")

    def stack(self, x: float, y: float, panels: Sequence[Tensor], side: float = 0.6, shift: float = 0.1) -> None:
        """Several maps behind each other, the first in front."""
        for k in reversed(range(len(panels))):
            self.picture(x + shift * k, y + shift * k, panels[k], side)
            for image in self.axis.images[-1:]:
                image.set_zorder(2 + (len(panels) - k) * 0.1)
            self.axis.patches[-1].set_zorder(2.05 + (len(panels) - k) * 0.1)
