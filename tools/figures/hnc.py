"""Figures of the HNC chapter."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from tools.figures.common import Diagram, dots, running_image, trained
from xai_course.maps import class_activation_map
from xai_course.methods.base import CrossEntropy
from xai_course.methods.hnc import HNC, mean_square, spatial_variance, squared_logit, uniform_divergence
from xai_course.methods.negatives import topk_negatives
from xai_course.show import hnc as show
from xai_course.show.style import CYCLE, style

FLAT = partial(HNC, penalty="mse", balance=1.0, keep_top=3)
NAMES = [str(k) for k in range(10)]
DIGITS = {
    "HNC mse, 0.1": "mse_0.1",
    "HNC mse, 1": "mse_1",
    "HNC kd, 0.1": "kd_0.1",
    "HNC kd, 1": "kd_1",
    "squared logit, 0.1": "logit_0.1",
    "squared logit, 1": "logit_1",
    "variance, 0.1": "variance_0.1",
    "variance, 1": "variance_1",
    "label smoothing": "smoothing_0.1",
    "confidence penalty": "confidence_0.1",
}
PENALTIES = {
    "cross-entropy": None,
    "squared logit": squared_logit,
    "variance": spatial_variance,
    "HNC kd": uniform_divergence,
    "HNC mse": mean_square,
}


def running():
    """The running image: maps of its label and of the likeliest wrong classes, without and with the penalty."""
    batch = running_image()
    nets = {"CE": trained(CrossEntropy).net, "HNC mse": trained(FLAT).net}
    return show.negative_maps(nets, batch.images[0], int(batch.labels), NAMES, k=3)


@torch.no_grad()
def network():
    """One convolution gives all maps; the strongest absent classes go to the penalty, the means to cross-entropy."""
    batch, net = running_image(), trained().net
    features = net.features(batch.images)
    logits = net.head(features.mean((2, 3)))
    wrong = topk_negatives(logits, batch.labels, 3)[0][0].tolist()
    every = class_activation_map(features, net.head.weight, net.head.bias)[0]
    limit = float(every.abs().max())
    rest = [c for c in range(10) if c not in (0, *wrong)][:2]
    sheet = Diagram(7.2, 2.9)
    sheet.picture(0.5, 1.45, batch.images[0], 0.8, "image")
    sheet.arrow((0.9, 1.45), (1.2, 1.45))
    sheet.box(1.5, 1.45, "layers", 0.6)
    sheet.arrow((1.8, 1.45), (2.05, 1.45))
    strongest = features[0].mean((1, 2)).topk(3).indices
    sheet.stack(2.4, 1.4, [features[0, c] / features[0].max() for c in strongest], 0.6)
    sheet.text(2.5, 0.95, "$F$", fontsize=9)
    sheet.arrow((2.95, 1.45), (3.5, 1.45), r"$1\times 1$: $W, b$")
    colours = {0: CYCLE[0], **dict.fromkeys(wrong, CYCLE[1])}
    for row, c in enumerate((0, *wrong, *rest)):
        y = 2.6 - 0.46 * row
        sheet.picture(3.8, y, every[c], 0.4, colour=colours.get(c, "0.6"), limit=limit)
        what = "label" if c == 0 else f"{logits[0, c]:+.1f}"
        sheet.text(4.06, y, f"{NAMES[c]}: {what}", fontsize=8, ha="left", color=colours.get(c, "0.55"))
    sheet.arrow((4.7, 2.5), (5.35, 2.4), colour=CYCLE[0])
    sheet.box(6.25, 2.35, "means of all maps:\ncross-entropy", 1.7, 0.5, CYCLE[0])
    sheet.arrow((4.7, 1.6), (5.35, 1.5), colour=CYCLE[1])
    sheet.box(6.25, 1.45, "the $k$ likeliest\nabsent classes: be flat", 1.7, 0.5, CYCLE[1])
    sheet.text(6.25, 0.5, "the rest: left alone", fontsize=8, color="0.55")
    return sheet.figure


def forces():
    """Two maps of one mean, and the gradient of each loss at every cell (Fig. 3 of the paper)."""
    return show.toy(show.toy_maps())


def _family(level: Tensor, height: Tensor, side: int = 7) -> Tensor:
    """Maps ``[..., 1, side, side]`` with a given mean and one cell that much higher than the others."""
    maps = level[..., None, None, None].expand(*level.shape, 1, side, side).clone()
    maps[..., 0, side // 2, side // 2] += height
    return maps - (height / side**2)[..., None, None, None]


def landscape():
    """Each penalty over the level and the height of a lone peak, with the way down."""
    import matplotlib.pyplot as plt

    level, height = torch.meshgrid(torch.linspace(-3, 3, 61), torch.linspace(0, 12, 61), indexing="ij")
    level, height = level.double().requires_grad_(), height.double().requires_grad_()
    with style():
        figure, axes = plt.subplots(1, len(PENALTIES), figsize=(8.4, 2.1), sharey=True, sharex=True)
        for axis, (name, penalty) in zip(axes, PENALTIES.items()):
            maps = _family(level, height).flatten(0, 1)
            values = torch.nn.functional.softplus(level) if penalty is None else penalty(maps).view_as(level)
            down = torch.autograd.grad(values.sum(), (level, height), allow_unused=True)
            x, y = (torch.zeros_like(level) if d is None else -d for d in down)
            x, y = x.detach(), y.detach() * 4  # equal lengths on the two axes
            size = (x**2 + y**2).sqrt().clamp_min(1e-9)
            cut, shown = (slice(5, None, 10), slice(5, None, 10)), values.detach()
            axis.contour(level.detach(), height.detach(), shown, 7, cmap="viridis", linewidths=1.1)
            arrows = (level.detach()[cut], height.detach()[cut], (x / size)[cut], (y / size)[cut])
            axis.quiver(*arrows, color="0.55", scale=11, width=0.011, pivot="mid")
            axis.set_title(name)
            axis.set(xlabel="level $s_o$")
        axes[0].set(ylabel="height of the peak", xlim=(-3, 3), ylim=(0, 12))
        plt.close(figure)
    return figure


def disagree():
    """The worked example: a map of four cells, and what each penalty does to each cell."""
    import matplotlib.pyplot as plt

    values = torch.tensor([[3.0, 1.0], [0.0, 0.0]]).double()
    panels = {
        "map": values,
        "step of mse": -2 * values / 4,
        "step of kd": 0.25 - values.flatten().softmax(0).view(2, 2),
    }
    with style():
        figure, axes = plt.subplots(1, len(panels), figsize=(5.2, 1.75))
        for axis, (title, panel) in zip(axes, panels.items()):
            limit = 3.5 if title == "map" else 1.6
            axis.imshow(panel.numpy(), cmap="RdBu_r", vmin=-limit, vmax=limit)
            for (row, column), value in zip(torch.cartesian_prod(torch.arange(2), torch.arange(2)), panel.flatten()):
                dark = abs(float(value)) > 0.7 * limit
                text = f"{abs(value):g}" if title == "map" or not value else f"{value:+.2f}"
                axis.text(column, row, text, ha="center", va="center", color="#ffffff" if dark else "#010101")
            axis.set(title=title, xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
        plt.close(figure)
    return figure


def bounds():
    """The kd penalty of random maps between its two bounds."""
    return show.bounds()


def results():
    """Accuracy, clean and under two attacks, against cross-entropy."""
    rows = {name: f"hnc/digits/{row}" for name, row in DIGITS.items()}
    metrics = {"accuracy": "accuracy", "fgsm_0.01": "under FGSM", "pgd_margin_0.01": "under margin PGD"}
    return dots(rows, metrics, twin="hnc/digits/ce")


def peaks():
    """Peaks of wrong and right maps, their ratio, and the energy on the digit, against cross-entropy."""
    rows = {name: f"hnc/digits/{row}" for name, row in DIGITS.items()}
    metrics = {
        "negative_peak": "peak, wrong maps",
        "positive_peak": "peak, right map",
        "peak_ratio": "their ratio",
        "energy_in_mask": "energy in mask",
    }
    return dots(rows, metrics, twin="hnc/digits/ce")


def noise():
    """Wrong labels: accuracy against cross-entropy in both regimes, and how many wrong labels were learnt."""
    metrics = {
        "heart:accuracy": "accuracy,\nlearnt by heart",
        "heart:memorised": "wrong labels,\nlearnt by heart",
        "early:accuracy": "accuracy,\nstopped early",
    }
    return dots({name: "hnc/noise/{}/" + row for name, row in DIGITS.items()}, metrics, twin="hnc/noise/{}/ce")
