"""Figures of "Where does a network look?": pure functions of tensors and numbers, each returning a figure."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from ..maps import enlarge, normalise
from ..measure.scores import iou, thresholded
from .style import CYCLE, MAP_COLOURS, bare, canvas, curves, draw, frame, image_grid, seed_rows

SCORES = {"energy_in_mask": "energy in the mask", "pointing": "pointing game", "iou": "IoU"}


def same_image_two_maps(images: Tensor, maps: Mapping[str, Tensor]):
    """Images in the first row, below it one row of maps ``[B, H, W]`` for each named network."""
    return image_grid([list(images), *map(list, maps.values())], labels=["image", *maps], size=1.1)


def enlarged(maps: Tensor, size) -> Tensor:
    """Maps ``[B, h, w]``, negative values cut, at the size of the image and in [0, 1]."""
    return normalise(enlarge(maps.relu(), size))


def threshold_frame(images: Tensor, maps: Tensor, masks: Tensor, level: float):
    """Images with the object outlined in white and the part of the map above ``level`` in orange; IoU in the titles."""
    scores = iou(thresholded(maps, level), masks)
    with canvas(1.45 * len(images), 1.75, len(images)) as (figure, axes):
        for axis, image, map_, mask, score in zip(axes, images, maps, masks, scores):
            draw(axis, image)
            axis.contour(mask.float().numpy(), levels=[0.5], colors="white", linewidths=1.6)
            chosen = (map_ >= level * map_.max()).float().numpy()
            axis.contourf(chosen, levels=[0.5, 1.5], colors=[CYCLE[4]], alpha=0.35)
            axis.contour(chosen, levels=[0.5], colors=[CYCLE[1]], linewidths=1.6)
            axis.set_title(f"IoU {score:.2f}")
        bare(*axes)
    return figure


def scores_beside_trivial(results: Mapping[str, dict | list[dict]], trivial: Sequence[str]):
    """One panel for each score: a dot per network, grey for a trivial map.

    Args:
        results: name to what `measure.localisation` returns, or to a list of that for several networks.
        trivial: suffixes to draw, for example ``("whole", "centre")``; they are taken from the first network.
    """
    several = {name: found if isinstance(found, list) else [found] for name, found in results.items()}
    first, panels = next(iter(several.values()))[0], {}
    for key, title in SCORES.items():
        panels[title] = {name: [result[key] for result in found] for name, found in several.items()}
        panels[title] |= {f"{name} (trivial)": [first[f"{key}_{name}"]] for name in trivial}
    figure = seed_rows(panels, 1.5, lambda name: "0.55" if name.endswith("(trivial)") else CYCLE[0], sharex=True)
    figure.axes[0].set(xlim=(0, 1), xticks=(0, 0.5, 1))
    return figure


def randomisation_curves(found: Mapping[str, Sequence[dict]]):
    """How similar maps stay to the trained network's while layers are re-initialised from the top, a line per name."""
    lines = {
        name: ([row["layer"] or "none" for row in rows], [row["rank_correlation"] for row in rows], {"marker": marker})
        for marker, (name, rows) in zip("os^D", found.items())
    }
    said = {"xlabel": "randomised from the logits down to", "ylabel": "rank correlation"}
    figure = curves(lines, 5.4, 2.6, ylim=(-0.25, 1.05), **said)
    figure.axes[0].tick_params(axis="x", rotation=45)
    figure.axes[0].axhline(0, color="0.7", lw=0.8)
    return figure


def seen_by_one_cell(image: Tensor, weights: Tensor, cell: tuple[int, int], cells: tuple[int, int]):
    """An image, one cell of its last maps, and which pixels that cell's value depends on.

    Args:
        image: ``[C, H, W]``.
        weights: ``[H, W]`` non-negative, mean absolute gradient of the cell with respect to the pixels.
        cell: row and column of the cell. cells: number of rows and columns.
    """
    height, width = image.shape[1] / cells[0], image.shape[2] / cells[1]
    box = cell[1] * width, cell[0] * height, (cell[1] + 1) * width, (cell[0] + 1) * height
    with canvas(4.6, 2.2, 2, titles=("one cell's place", "what it reads")) as (figure, axes):
        draw(axes[0], image)
        drawn = axes[1].imshow((weights / weights.max()).sqrt().numpy(), cmap=MAP_COLOURS, vmin=0, vmax=1)
        for axis in axes:
            frame(axis, box, CYCLE[1], width=2)
        bare(*axes)
        figure.colorbar(drawn, ax=axes, shrink=0.8, label="root of relative weight")
    return figure
