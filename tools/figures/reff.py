"""Figures of the ReFF chapter."""

from __future__ import annotations

from itertools import pairwise

import torch

from tools.figures.common import Diagram, dots, running_image, trained
from tools.figures.paired import BLUE, GREEN, ORANGE, differences
from xai_course.runs import records
from xai_course.show import reff as show
from xai_course.show.style import style

DIGITS = "reff/digits/"


def _map() -> torch.Tensor:
    """Grad-CAM of the running image at the second stage of a network that learnt the background, ``[32, 32]``."""
    from xai_course.maps import enlarge, grad_cam

    batch = running_image(p=0.0)
    cam = grad_cam(trained(p=0.0).net, batch.images, batch.labels, ["body.1"]).maps[0]
    return enlarge(cam, (32, 32))[0].detach()


def network():
    """Forward pass, Grad-CAM by a first backward pass, penalty, and the second backward pass."""
    batch, cam = running_image(p=0.0), _map()
    cam, mask = cam / cam.max(), batch.masks[0].float()
    d = Diagram(8.8, 3.6)
    d.picture(0.75, 2.5, batch.images[0], 1.15, "image $x$")
    stages = [2.0 + 0.85 * i for i in range(4)]
    for number, x in enumerate(stages, 1):
        d.box(x, 2.5, f"$A^{number}$", 0.62, 0.9, GREEN)
    d.box(5.55, 2.5, "logit\n$F(x)_y$", 0.8, 0.62, BLUE)
    d.box(7.6, 2.5, "$\\mathcal{L}_{CE} + \\lambda\\,\\mathcal{L}_{ReFF}$", 1.6, 0.62, BLUE)
    d.arrow((1.35, 2.5), (1.68, 2.5))
    for x, after in pairwise(stages):
        d.arrow((x + 0.31, 2.5), (after - 0.31, 2.5))
    d.arrow((4.87, 2.5), (5.14, 2.5))
    d.arrow((5.96, 2.5), (6.79, 2.5))
    d.arrow((5.5, 2.17), (2.95, 2.02), colour=ORANGE, connectionstyle="arc3,rad=-0.12")
    d.text(4.6, 1.72, "1st backward: $\\alpha_k$", fontsize=8.5, color=ORANGE)
    for x, panel, words in (
        (2.85, cam, "map $I'$"),
        (4.35, mask, "object $s$"),
        (5.85, cam * (1 - mask), "$I' \\odot (1 - s)$"),
    ):
        d.picture(x, 0.85, panel, 1.1, words)
    d.arrow((2.85, 2.03), (2.85, 1.42))
    d.arrow((6.45, 0.95), (7.6, 2.16))
    d.text(7.55, 1.2, "squared,\nsummed", fontsize=8.5)
    d.arrow((7.6, 2.83), (2.0, 2.98), colour=BLUE, connectionstyle="arc3,rad=0.12")
    d.text(4.8, 3.5, "2nd backward: through the features and through $\\alpha$", fontsize=8.5, color=BLUE)
    return d.figure


def forces():
    """One map, and what descent on each penalty does to its cells."""
    return show.forces(torch.tensor([[1.0, 4], [6, 1]]), torch.tensor([[0.0, 1], [0, 0]]))


def spread():
    """Half of the mass outside, on few cells or on many: both penalties."""
    return show.spread(6)


def landscape():
    """Both penalties over the outside mass and the number of cells that share it."""
    import matplotlib.pyplot as plt

    mass = torch.linspace(0, 1, 101)
    cells = torch.logspace(0, 1.7, 101)
    panels = {
        "squared norm (paper): $m^2 / N$": (mass[None] ** 2 / cells[:, None]).sqrt(),
        "Energy loss: $m$": mass[None].expand(101, 101),
    }
    with style():
        figure, axes = plt.subplots(1, 2, figsize=(6.8, 2.7), sharey=True)
        for axis, (title, value) in zip(axes, panels.items()):
            drawn = axis.contourf(mass, cells, value, levels=torch.linspace(0, 1, 11).numpy())
            axis.contour(mass, cells, value, levels=torch.linspace(0.1, 0.9, 9).numpy(), colors="white", linewidths=0.5)
            axis.set(title=title, xlabel="outside mass m", yscale="log")
        axes[0].set_ylabel("spread N, in cells")
        figure.colorbar(drawn, ax=axes, label="penalty (left: its root)")
    plt.close(figure)
    return figure


def leak():
    """A unit on the object that copies what lies beside it."""
    batch = running_image(p=0.0)
    d, mask = Diagram(6.4, 2.3), batch.masks[0].bool()
    d.picture(1.0, 1.25, batch.images[0], 1.7, "what it reads")
    d.box(3.1, 1.25, "unit with a\nshifted kernel,\nopen on the digit", 1.5, 0.9, GREEN)
    d.picture(5.2, 1.25, mask.float() * 0.9, 1.7, "where its map lies")
    for row in (9, 15, 21):
        columns = mask[row].nonzero().flatten()
        if len(columns):
            x, y = 0.15 + 1.7 / 32 * float(columns[0]), 2.1 - 1.7 / 32 * (row + 0.5)
            d.axis.plot([x - 0.2], [y], "s", color=ORANGE, ms=6, zorder=5)
            d.arrow((x - 0.2, y), (x + 0.25, y), colour=ORANGE, zorder=5)
    d.arrow((1.9, 1.25), (2.32, 1.25))
    d.arrow((3.88, 1.25), (4.3, 1.25))
    return d.figure


def dead():
    """A constant taken from all class weights: the softmax stays, the map dies."""
    import matplotlib.pyplot as plt

    weights = torch.tensor([[2.0, 0.5], [0.4, 1.4], [0.8, 0.9]])
    features = torch.tensor([1.2, 0.8])
    shifts = torch.linspace(0, 2.5, 101)
    alive = (weights[0] - shifts[:, None]).clamp(min=0) @ features
    logits = (weights[None] - shifts[:, None, None]) @ features
    with style():
        figure, axis = plt.subplots(figsize=(4.8, 2.4))
        axis.plot(shifts, logits.softmax(1)[:, 0], color=BLUE, label="probability of the class")
        axis.plot(shifts, alive / alive[0], color=ORANGE, label="what is left of its map")
        axis.set(xlabel="constant taken from all weights of the head", ylim=(-0.03, 1.05))
        axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    plt.close(figure)
    return figure


def results():
    """Accuracy without the shortcut, each method against cross-entropy on the same seeds."""
    tasks = {
        "background, easy": "easy",
        "background, middle": "middle",
        "background, fresh seeds": "fresh",
        "background, hard": "hard",
        "spot, right in 4 of 5": "spot0.2",
        "spot, fresh seeds": "spot0.2_fresh",
        "small digits": "size16",
    }
    rows = {
        title: {name: (f"{DIGITS}{key}/{row}", f"{DIGITS}{key}/ce") for name, key in tasks.items()}
        for title, row in (("ReFF − cross-entropy", "reff"), ("Energy loss − cross-entropy", "energy"))
    }
    return differences({title: ("accuracy", lines) for title, lines in rows.items()})


def level():
    """Accuracy with and without the shortcut in the middle setting, a dot per seed."""
    rows = {
        "cross-entropy": "ce",
        "ReFF": "reff",
        "Energy loss": "energy",
        "ReFF, last layer only": "reff_last",
        "Energy loss, last layer only": "energy_last",
        "L1, printed weight": "l1",
        "L2, printed weight": "l2",
        "L1, λ = 0.01": "l1_strong",
        "L2, λ = 0.01": "l2_strong",
        "Energy loss, 4 × its weight": "energy_strong",
        "ABN": "abn0",
        "ABN with map loss": "abn",
        "ReFF, one mask per class": "reff_n1",
        "Energy loss, one mask per class": "energy_n1",
        "no shortcut in training": "ce_p1",
    }
    lines = {name: f"{DIGITS}middle/{row}" for name, row in rows.items()}
    return dots(lines, {"accuracy": "accuracy\nwithout the shortcut", "accuracy_seen": "accuracy with it"})


def maps():
    """Where maps and pixel gradients lie against the accuracy without the shortcut."""
    task = {row: records.load(f"{DIGITS}middle/{row}") for row in ("ce", "reff", "energy")}
    spot = {row: records.load(f"{DIGITS}spot0.2/{row}") for row in ("ce", "reff", "energy")}
    return show.maps_and_pixels({"background": task, "spot": spot})


def task():
    """The running image and others of its class: the background tells the label in training only."""
    import matplotlib.pyplot as plt

    from tools.figures.common import world
    from xai_course.show.style import draw

    with style():
        figure, axes = plt.subplots(2, 7, figsize=(6.8, 2.1))
        for row, p, words in zip(axes, (0.0, 1.0), ("training:\nthe background tells", "test:\nit tells nothing")):
            batch, test = running_image(p), world(p).test
            own = [i for i, label in enumerate(test.labels.tolist()) if label == int(batch.labels[0])][: len(row)]
            for axis, image in zip(row, test.__getitems__(own).images):
                draw(axis, image)
                axis.set(xticks=[], yticks=[])
                axis.spines[:].set_visible(False)
            row[0].set_ylabel(words, rotation=0, ha="right", va="center", labelpad=6)
    plt.close(figure)
    return figure
