"""Figures of the ReFF chapter: pure functions from tensors or records to a matplotlib figure."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.boxes import masks_to_boxes
from ..maps import grad_cam, normalise
from ..methods.explanation_loss import ExplanationLoss, normalised_shares
from ..methods.guidance import Energy, RelevantFocus
from .style import CYCLE, MAP_COLOURS, bare, canvas, draw, frame, image_grid, sheet

NAMES = {"ce": "cross-entropy", "reff": "ReFF", "energy": "Energy loss", "abn": "ABN"}
COLOURS = dict(zip(NAMES, CYCLE))  # a method keeps its colour in every figure


def _numbers(axis, values: Tensor, text: str = "{:.2g}", **how) -> None:
    """A small matrix with its numbers written in, black or white by the background."""
    drawn = axis.imshow(values.numpy(), **how)
    for (i, j), value in np.ndenumerate(values.numpy()):
        # Not quite black: pages in dark mode turn black ink into light ink, and this stands on a light cell.
        colour = "#010101" if sum(drawn.cmap(drawn.norm(value))[:3]) > 1.5 else "white"
        axis.text(j, i, text.format(value), ha="center", va="center", color=colour, fontsize=8)
    bare(axis)


COMPARED = {"squared norm (paper)": RelevantFocus(), "Energy loss": Energy()}


def forces(cam: Tensor, relevant: Tensor, penalties: Mapping[str, ExplanationLoss] = COMPARED, columns: int = 3):
    """A map and what gradient descent on each penalty does to it: up (red) or down (blue).

    Args:
        cam: ``[h, w]`` >= 0. relevant: ``[h, w]`` in {0, 1}, outlined.
        penalties: name to criterion. columns: panels in a row.
    """
    raw, masks = cam.double()[None].requires_grad_(), relevant.double()[None]
    share, _ = normalised_shares(raw.detach(), cam.shape)
    rows = -(-(len(penalties) + 1) // columns)
    with canvas(2.2 * columns, 2.3 * rows, columns, rows) as (figure, axes):
        first, *others = axes.flatten()
        _numbers(first, share[0], cmap=MAP_COLOURS, vmin=0)
        first.set_title("share of the map")
        for axis, (name, penalty) in zip(others, penalties.items()):
            (step,) = torch.autograd.grad(-penalty(raw, masks), raw)
            _numbers(axis, step[0] / step.abs().max(), "{:+.2f}", cmap="RdBu_r", vmin=-1.4, vmax=1.4)
            axis.set_title(f"push: {name}")
        for axis in (first, *others[: len(penalties)]):
            for i, j in relevant.nonzero().tolist():
                frame(axis, (j, i, j + 1, i + 1))
        for axis in others[len(penalties) :]:
            axis.set_axis_off()
    return figure


def spread(cells: int, inside: float = 0.5, side: int = 7):
    """One map with ``inside`` of its mass on a 3x3 object and the rest on ``cells`` outside cells; both penalties.

    Args:
        cells: 1 to ``side ** 2 - 9``.
    """
    cam, relevant = spread_map(cells, inside, side)
    counts = range(1, side**2 - 8)
    norms = [RelevantFocus()(spread_map(n, inside, side)[0][None], relevant[None]).item() for n in counts]
    mass = Energy()(cam[None], relevant[None]).item()
    with canvas(6.6, 2.5, 2, width_ratios=(1, 1.6)) as (figure, (left, right)):
        left.imshow(cam.numpy(), vmin=0, vmax=0.2)
        left.set(xticks=[], yticks=[], title=f"{1 - inside:.0%} of the mass on {cells} outside cells")
        frame(left, masks_to_boxes(relevant[None].bool())[0])
        right.axhline(mass, color=CYCLE[2], label=f"Energy loss = {mass:.2f}")
        right.plot(counts, norms, color=CYCLE[1], label=f"squared norm = {norms[cells - 1]:.4f}")
        right.plot([cells], [norms[cells - 1]], "o", color=CYCLE[1])
        right.plot([cells], [mass], "o", color=CYCLE[2])
        right.set(xlabel="outside cells that share the mass", ylabel="penalty", yscale="log", ylim=(3e-3, 1.5))
        right.legend(loc="center right")
    return figure


def spread_map(cells: int, inside: float = 0.5, side: int = 7) -> tuple[Tensor, Tensor]:
    """The map of `spread` and its 3x3 object in the middle, both ``[side, side]``."""
    relevant = torch.zeros(side, side)
    centre = side // 2
    relevant[centre - 1 : centre + 2, centre - 1 : centre + 2] = 1
    outside = (relevant == 0).flatten().nonzero().flatten()
    chosen = outside[torch.randperm(len(outside), generator=torch.Generator().manual_seed(0))[:cells]]
    cam = relevant * inside / 9
    cam.view(-1)[chosen] = (1 - inside) / cells
    return cam, relevant


def compare_maps(methods: Mapping[str, Any], images: Tensor, labels: Tensor, masks: Tensor):
    """Image, mask and every method's map of the true class, one row per image; with the predicted class as heading."""
    columns = ["image", "mask", *methods]
    drawn = [m.explain(images, labels) for m in methods.values()]
    rows = [[images[i], masks[i].float(), *(d[i] for d in drawn)] for i in range(len(images))]
    return image_grid(rows, columns, [f"{y}" for y in labels.tolist()])


def layer_maps(methods: Mapping[str, Any], image: Tensor, label: int, layers: Sequence[str]):
    """Maps of one image at every layer, one row per method, divided by their maximum."""
    rows = []
    for method in methods.values():
        cams = grad_cam(method.net, image[None], torch.tensor([label]), layers).maps
        rows.append([image, *(normalise(c)[0] for c in cams)])
    return image_grid(rows, ["image", *layers], list(methods))


def bars(records: Mapping[str, Mapping[str, Any]], metric: str, ylabel: str):
    """Groups of bars with one dot per seed.

    Args:
        records: group to (row of `NAMES` to `Record`); a row that a group lacks leaves a gap.
    """
    rows = list(dict.fromkeys(row for group in records.values() for row in group))
    with canvas(1.0 + 1.25 * max(2, len(records)), 2.6) as (figure, axis):
        for r, row in enumerate(rows):
            axis.bar(0, 0, color=COLOURS[row], alpha=0.55, label=NAMES[row])  # no group need have all rows
            for g, group in enumerate(records.values()):
                if row in group:
                    values, x = group[row].metrics[metric].values, g + (r - (len(rows) - 1) / 2) * 0.8 / len(rows)
                    axis.bar(x, sum(values) / len(values), 0.75 / len(rows), color=COLOURS[row], alpha=0.55)
                    axis.plot([x] * len(values), values, ".", color=COLOURS[row])
        axis.set(ylim=(0, 1), ylabel=ylabel, xticks=range(len(records)), xticklabels=list(records))
        axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def examples_and_bars(images: Tensor, group: Mapping[str, Any], title: str):
    """Training images above, accuracy without the shortcut below: one frame of the slider over p and q."""
    with sheet(6.4, 3.4) as figure:
        top, bottom = figure.subfigures(2, 1, height_ratios=(1, 1.3), squeeze=False)[:, 0]
        for axis, image in zip(top.subplots(1, len(images)), images):
            draw(axis, image)
            bare(axis)
        top.suptitle(title, fontsize=9)
        axis = bottom.subplots()
        for r, name in enumerate(("ce", "reff", "energy")):
            if record := group.get(name):
                values = record.metrics["accuracy"].values
                axis.barh(r, sum(values) / len(values), color=CYCLE[r], alpha=0.55)
                axis.plot(values, [r] * len(values), ".", color=CYCLE[r])
            else:
                axis.text(0.02, r, "no record", va="center")
        axis.set(xlim=(0, 1), xlabel="accuracy without the shortcut")
        axis.set(yticks=range(3), yticklabels=list(NAMES.values())[:3])
        axis.invert_yaxis()
    return figure


def maps_and_pixels(records: Mapping[str, Mapping[str, Any]], layers: Sequence[str] = ("body.1", "body.4")):
    """Where the evidence lies against the accuracy without the shortcut, one dot per seed.

    Args:
        records: task to (row of `NAMES` to `Record`); a marker for each task, a colour for each row.
        layers: panels before the last one, which shows the pixel gradient.
    """
    panels = {f"outside_{layer}": f"map of {layer} outside" for layer in layers}
    panels["outside_pixels"] = "pixel gradient outside"
    with canvas(2.3 * len(panels) + 1.6, 2.7, len(panels), sharey=True) as (figure, axes):
        for axis, (metric, words) in zip(axes, panels.items()):
            for marker, (task, group) in zip("os^D", records.items()):
                for row, record in group.items():
                    x, y = record.metrics[metric].values, record.metrics["accuracy"].values
                    axis.plot(x, y, marker, color=COLOURS[row], label=f"{task}, {NAMES[row]}", ms=4, alpha=0.7)
            axis.set(xlabel=words, xlim=(0, 1), ylim=(0, 1), xticks=(0, 0.5, 1))
        axes[0].set_ylabel("accuracy without the shortcut")
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center")
    return figure


def weights_tried(records: Mapping[float, Any], floor: float, title: str):
    """What the validation split says of each lambda: its accuracy, its outside mass, its dead maps."""
    lines = {"accuracy_seen": "accuracy, shortcut present", "outside_seen": "outside mass", "dead_seen": "dead maps"}
    with canvas(4.2, 2.6) as (figure, axis):
        for metric, words in lines.items():
            found = [r.metrics[metric] for r in records.values()]
            axis.errorbar(list(records), [m.mean for m in found], [m.sd for m in found], marker="o", ms=4, label=words)
        axis.axhline(floor, color="grey", linestyle=":", label="lowest accuracy allowed")
        axis.set(xscale="log", xlabel="λ", ylim=(-0.03, 1.03), title=title)
        axis.set_xticks(list(records), [f"{b:g}" for b in records])
        axis.minorticks_off()
        axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
