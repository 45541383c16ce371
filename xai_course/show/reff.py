"""Figures of the ReFF chapter: pure functions from tensors or records to a matplotlib figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..maps import grad_cam
from ..methods.explanation_loss import ExplanationLoss, normalised_shares
from ..methods.guidance import Energy, RelevantFocus
from .style import CYCLE, MAP_COLOURS, draw, image_grid, style

NAMES = {"ce": "cross-entropy", "reff": "ReFF", "energy": "Energy loss", "abn": "ABN"}
COLOURS = dict(zip(NAMES, CYCLE))  # a method keeps its colour in every figure


def _numbers(axis, values: Tensor, text: str = "{:.2g}", **how) -> None:
    """A small matrix with its numbers written in, black or white by the background."""
    drawn = axis.imshow(values.numpy(), **how)
    for (i, j), value in zip(
        [(i, j) for i in range(values.shape[0]) for j in range(values.shape[1])], values.flatten()
    ):
        shade = sum(drawn.cmap(drawn.norm(value.item()))[:3])
        colour = "black" if shade > 1.5 else "white"
        axis.text(j, i, text.format(value.item()), ha="center", va="center", color=colour, fontsize=8)
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(False)


COMPARED = {"squared norm (paper)": RelevantFocus(), "Energy loss": Energy()}


def forces(cam: Tensor, relevant: Tensor, penalties: Mapping[str, ExplanationLoss] = COMPARED, columns: int = 3):
    """A map and what gradient descent on each penalty does to it: up (red) or down (blue).

    Args:
        cam: ``[h, w]`` >= 0. relevant: ``[h, w]`` in {0, 1}, outlined.
        penalties: name to criterion. columns: panels in a row.
    """
    import matplotlib.pyplot as plt

    raw, masks = cam.double()[None].requires_grad_(), relevant.double()[None]
    share, _ = normalised_shares(raw.detach(), cam.shape)
    rows = -(-(len(penalties) + 1) // columns)
    with style():
        figure, axes = plt.subplots(rows, columns, figsize=(2.2 * columns, 2.3 * rows), squeeze=False)
        first, *others = axes.flatten()
        _numbers(first, share[0], cmap=MAP_COLOURS, vmin=0)
        first.set_title("share of the map")
        _outline(first, relevant)
        for axis, (name, penalty) in zip(others, penalties.items()):
            (step,) = torch.autograd.grad(-penalty(raw, masks), raw)
            _numbers(axis, step[0] / step.abs().max(), "{:+.2f}", cmap="RdBu_r", vmin=-1.4, vmax=1.4)
            axis.set_title(f"push: {name}")
            _outline(axis, relevant)
        for axis in others[len(penalties) :]:
            axis.set_axis_off()
        plt.close(figure)
    return figure


def _outline(axis, relevant: Tensor) -> None:
    from matplotlib.patches import Rectangle

    for i, j in relevant.nonzero().tolist():
        axis.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, fill=False, edgecolor="#E69F00", linewidth=2.5))


def spread(cells: int, inside: float = 0.5, side: int = 7):
    """One map with ``inside`` of its mass on a 3x3 object and the rest on ``cells`` outside cells; both penalties.

    Args:
        cells: 1 to ``side ** 2 - 9``.
    """
    import matplotlib.pyplot as plt

    cam, relevant = spread_map(cells, inside, side)
    counts = range(1, side**2 - 8)
    norms = [RelevantFocus()(spread_map(n, inside, side)[0][None], relevant[None]).item() for n in counts]
    mass = Energy()(cam[None], relevant[None]).item()
    with style():
        figure, (left, right) = plt.subplots(1, 2, figsize=(6.6, 2.5), width_ratios=(1, 1.6))
        left.imshow(cam.numpy(), vmin=0, vmax=0.2)
        left.set(xticks=[], yticks=[], title=f"{1 - inside:.0%} of the mass on {cells} outside cells")
        _outline_box(left, relevant)
        right.axhline(mass, color=CYCLE[2], label=f"Energy loss = {mass:.2f}")
        right.plot(counts, norms, color=CYCLE[1], label=f"squared norm = {norms[cells - 1]:.4f}")
        right.plot([cells], [norms[cells - 1]], "o", color=CYCLE[1])
        right.plot([cells], [mass], "o", color=CYCLE[2])
        right.set(xlabel="outside cells that share the mass", ylabel="penalty", yscale="log", ylim=(3e-3, 1.5))
        right.legend(loc="center right")
        plt.close(figure)
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


def _outline_box(axis, relevant: Tensor) -> None:
    from matplotlib.patches import Rectangle

    rows, columns = relevant.nonzero().T
    corner = columns.min().item() - 0.5, rows.min().item() - 0.5
    size = (columns.max() - columns.min() + 1).item(), (rows.max() - rows.min() + 1).item()
    axis.add_patch(Rectangle(corner, *size, fill=False, edgecolor="#E69F00", linewidth=2.5))


def compare_maps(methods: Mapping[str, Any], images: Tensor, labels: Tensor, masks: Tensor):
    """Image, mask and every method's map of the true class, one row per image; with the predicted class as heading."""
    columns = ["image", "mask", *methods]
    drawn = [m.explain(images, labels) for m in methods.values()]
    rows = [[images[i], masks[i].float(), *(d[i] for d in drawn)] for i in range(len(images))]
    return image_grid(rows, columns, [f"{y}" for y in labels.tolist()])


def layer_maps(methods: Mapping[str, Any], image: Tensor, label: int, layers: Sequence[str]):
    """Maps of one image at every layer, one row per method, divided by their maximum."""
    from ..maps import normalise

    rows = []
    for method in methods.values():
        cams = grad_cam(method.net, image[None], torch.tensor([label]), layers).maps
        rows.append([image, *(normalise(c)[0] for c in cams)])
    return image_grid(rows, ["image", *layers], list(methods))


def bars(records: Mapping[str, Mapping[str, Any]], metric: str, ylabel: str, ylim: tuple = (0, 1)):
    """Groups of bars with one dot per seed.

    Args:
        records: group to (row of `NAMES` to `Record`); a row that a group lacks leaves a gap.
    """
    import matplotlib.pyplot as plt
    from matplotlib.patches import Rectangle

    rows = list(dict.fromkeys(row for group in records.values() for row in group))
    with style():
        figure, axis = plt.subplots(figsize=(1.0 + 1.25 * max(2, len(records)), 2.6))
        for r, row in enumerate(rows):
            for g, group in enumerate(records.values()):
                record = group.get(row)
                if record is None:
                    continue
                values, x = record.metrics[metric].values, g + (r - (len(rows) - 1) / 2) * 0.8 / len(rows)
                axis.bar(x, sum(values) / len(values), 0.75 / len(rows), color=COLOURS[row], alpha=0.55)
                axis.plot([x] * len(values), values, ".", color=COLOURS[row])
        axis.set(ylim=ylim, ylabel=ylabel, xticks=range(len(records)), xticklabels=list(records))
        axis.legend(
            handles=[Rectangle((0, 0), 1, 1, color=COLOURS[row], label=NAMES[row]) for row in rows],
            loc="center left",
            bbox_to_anchor=(1, 0.5),
        )
        plt.close(figure)
    return figure


def examples_and_bars(images: Tensor, group: Mapping[str, Any], title: str):
    """Training images above, accuracy without the shortcut below: one frame of the slider over p and q."""
    import matplotlib.pyplot as plt

    with style():
        figure = plt.figure(figsize=(6.4, 3.4))
        top, bottom = figure.subfigures(2, 1, height_ratios=(1, 1.3), squeeze=False)[:, 0]
        for axis, image in zip(top.subplots(1, len(images)), images):
            draw(axis, image)
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
        top.suptitle(title, fontsize=9)
        axis = bottom.subplots()
        for r, name in enumerate(("ce", "reff", "energy")):
            record = group.get(name)
            values = record.metrics["accuracy"].values if record is not None else ()
            if values:
                axis.barh(r, sum(values) / len(values), color=CYCLE[r], alpha=0.55)
                axis.plot(values, [r] * len(values), ".", color=CYCLE[r])
            else:
                axis.text(0.02, r, "no record", va="center")
        axis.set(
            xlim=(0, 1), yticks=range(3), yticklabels=list(NAMES.values())[:3], xlabel="accuracy without the shortcut"
        )
        axis.invert_yaxis()
        plt.close(figure)
    return figure


def maps_and_pixels(records: Mapping[str, Mapping[str, Any]], layers: Sequence[str] = ("body.1", "body.4")):
    """Where the evidence lies against the accuracy without the shortcut, one dot per seed.

    Args:
        records: task to (row of `NAMES` to `Record`); a marker for each task, a colour for each row.
        layers: panels before the last one, which shows the pixel gradient.
    """
    import matplotlib.pyplot as plt

    panels = {f"outside_{layer}": f"map of {layer} outside" for layer in layers}
    panels["outside_pixels"] = "pixel gradient outside"
    with style():
        figure, axes = plt.subplots(1, len(panels), figsize=(2.3 * len(panels) + 1.6, 2.7), sharey=True)
        for axis, (metric, words) in zip(axes, panels.items()):
            for marker, (task, group) in zip("os^D", records.items()):
                for row, record in group.items():
                    x, y = record.metrics[metric].values, record.metrics["accuracy"].values
                    axis.plot(x, y, marker, color=COLOURS[row], label=f"{task}, {NAMES[row]}", ms=4, alpha=0.7)
            axis.set(xlabel=words, xlim=(0, 1), ylim=(0, 1), xticks=(0, 0.5, 1))
        axes[0].set_ylabel("accuracy without the shortcut")
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center")
        plt.close(figure)
    return figure


def weights_tried(records: Mapping[float, Any], floor: float, title: str):
    """What the validation split says of each lambda: its accuracy, its outside mass, its dead maps."""
    import matplotlib.pyplot as plt

    lines = {"accuracy_seen": "accuracy, shortcut present", "outside_seen": "outside mass", "dead_seen": "dead maps"}
    with style():
        figure, axis = plt.subplots(figsize=(4.2, 2.6))
        for metric, words in lines.items():
            found = [r.metrics[metric] for r in records.values()]
            axis.errorbar(list(records), [m.mean for m in found], [m.sd for m in found], marker="o", ms=4, label=words)
        axis.axhline(floor, color="grey", linestyle=":", label="lowest accuracy allowed")
        axis.set(xscale="log", xlabel="λ", ylim=(-0.03, 1.03), title=title)
        axis.set_xticks(list(records), [f"{b:g}" for b in records])
        axis.minorticks_off()
        axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
        plt.close(figure)
    return figure
