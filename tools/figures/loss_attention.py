"""Figures of the Loss-Attention chapter."""

from __future__ import annotations

import torch
from matplotlib.patches import Rectangle

from tools.figures.common import Diagram, running_image
from tools.figures.paired import AMBER, BLUE, GREEN, ORANGE, differences
from xai_course.methods.loss_attention import loss_attention
from xai_course.runs import records
from xai_course.show import loss_attention as show
from xai_course.show.style import CYCLE, style

DIGITS = "loss_attention/digits/"


def network():
    """From the image over patches to weights and verdict, with one matrix for both."""
    d = Diagram(8.2, 2.9)
    d.picture(0.95, 1.5, running_image().images[0], 1.5, "image, one of 36 patches")
    cell = 1.5 / 32
    d.axis.add_patch(
        Rectangle((0.2 + 8 * cell, 2.25 - 17 * cell), 9 * cell, 9 * cell, fill=False, ec=AMBER, lw=2, zorder=4)
    )
    d.box(2.75, 1.5, "convolutions\nwithout strides,\n9 × 9 at the end", 1.25, 1.0, GREEN)
    d.box(4.4, 1.5, "features $h_m$\nof each patch", 1.15, 0.75, GREEN)
    d.box(5.75, 1.5, "$\\theta$", 0.6, 0.75, AMBER)
    d.box(7.2, 2.4, "length $\\Vert p_m\\Vert$\n→ weight $\\alpha_m$", 1.45, 0.6, ORANGE)
    d.box(7.2, 1.5, "logits $p_m$: vote", 1.45, 0.5, BLUE)
    d.box(7.2, 0.55, "$z = \\sum_m \\alpha_m p_m$\nverdict", 1.45, 0.66, BLUE)
    for start, end in (((1.72, 1.5), (2.12, 1.5)), ((3.38, 1.5), (3.82, 1.5)), ((4.98, 1.5), (5.44, 1.5))):
        d.arrow(start, end)
    d.arrow((6.06, 1.5), (6.46, 1.5))
    d.arrow((7.2, 1.76), (7.2, 2.1))
    d.arrow((7.2, 1.24), (7.2, 0.89))
    d.arrow((7.93, 2.3), (7.93, 0.6), colour=ORANGE, connectionstyle="arc3,rad=-0.12")
    d.text(4.7, 0.5, "one matrix $\\theta$ gives\nvotes, weights and verdict")
    d.arrow((5.45, 0.75), (5.75, 1.1))
    return d.figure


def field():
    """What is drawn as a patch and what it depends on."""
    from xai_course.nets import patch_net

    with torch.device("meta"):  # geometry only: no weights are made
        nets = {"small (lab)": patch_net("small"), "VGG11": patch_net("vgg11"), "ResNet-18": patch_net("resnet18")}
    return show.field_figure(nets, running_image().images[0])


def cut():
    """Twelve patches before and after the cut."""
    return show.cut_figure(torch.randn(12, 3, generator=torch.Generator().manual_seed(4)), 0.7)


def forces():
    """Where the weights pull a third patch, and how the pull depends on the weight that a patch has already."""
    import matplotlib.pyplot as plt

    fixed, at = torch.tensor([[0.6, 2.2], [1.8, -0.7]]), torch.linspace(-3, 3, 14)
    free = torch.cartesian_prod(at, at).requires_grad_()
    patches = torch.cat([fixed.expand(len(free), 2, 2), free[:, None]], 1)
    logits = (loss_attention(patches, 0.0)[0][..., None] * patches.detach()).sum(1)
    loss = torch.nn.functional.cross_entropy(logits, torch.zeros(len(free), dtype=torch.long), reduction="sum")
    (slope,) = torch.autograd.grad(loss, free)
    pull = -slope / slope.norm(dim=1, keepdim=True) * slope.norm(dim=1, keepdim=True) ** 0.4
    longer = (pull * free.detach()).sum(1) > 0
    with style():
        figure, (left, right) = plt.subplots(1, 2, figsize=(7.4, 3.3), width_ratios=(1, 0.9))
        for chosen, colour in ((longer, BLUE), (~longer, AMBER)):
            left.quiver(*free.detach()[chosen].T, *pull[chosen].T, color=colour, width=0.006, scale=11)
        for name, (u, v) in zip("12", fixed.tolist()):
            left.annotate("", (u, v), (0, 0), arrowprops={"arrowstyle": "-|>", "color": ORANGE, "lw": 2})
            left.text(u + 0.15, v + 0.1, f"$p_{name}$", color=ORANGE)
        left.plot((-3, 3), (-3, 3), color="0.7", lw=0.8, zorder=0)
        left.set(title="pull through the weights on $p_3$", xlabel="logit of the true class", aspect="equal")
        left.set_ylabel("logit of the other class")
        share = torch.linspace(0, 0.6, 1201)
        right.plot(share, share, color=GREEN, label="softmax attention")
        right.plot(share, (share > 0.1) * 0.36, color=BLUE, label="share of length, with cut")
        right.plot(share, 0 * share, color="0.55", ls="--", label="mean-pooling")
        right.set(xlabel="weight that the patch has already", ylabel="pull, at equal advantage", ylim=(-0.02, 0.8))
        right.set(yticks=())
        right.legend(loc="upper left")
    plt.close(figure)
    return figure


def bound():
    """The inequality behind both propositions."""
    return show.bound_figure()


def court():
    """The image says cat, its patches say dog and bird."""
    return show.court_figure(0.3)


def guarantee():
    """Weight of wrong patches against the patch term, for random patches of all kinds, and the bound."""
    import matplotlib.pyplot as plt

    draw = torch.Generator().manual_seed(0)
    scale, lean = 4 * torch.rand(1500, 1, 1, generator=draw), 6 * torch.rand(1500, 1, 1, generator=draw)
    patches = scale * torch.randn(1500, 9, 4, generator=draw)
    patches[..., :1] += lean
    weights, _ = loss_attention(patches, 0.1)
    term = (weights * -patches.log_softmax(-1)[..., 0]).sum(1)
    wrong = (weights * (patches.argmax(-1) != 0)).sum(1)
    with style():
        figure, axis = plt.subplots(figsize=(4.6, 2.7))
        axis.plot(term, wrong, ".", color=BLUE, ms=3, alpha=0.5, label="an image of nine patches")
        axis.plot((0, 0.693), (0, 1), color=ORANGE, lw=1.6, label="Reg / log 2")
        axis.set(xlabel="patch term, Reg", ylabel="weight of wrong patches", xlim=(0, 3), ylim=(0, 1.03))
        axis.legend(loc="lower right", markerscale=3)
    plt.close(figure)
    return figure


def results():
    """Loss-Attention against gated attention and mean-pooling, seed by seed."""
    ours = DIGITS + "loss_attention"
    lines = {
        "against mean-pooling": (ours, DIGITS + "mean"),
        "against gated attention": (ours, DIGITS + "gated"),
        "against no patch term": (ours, DIGITS + "gamma_0"),
        "γ = 1 against γ = 0": (DIGITS + "gamma_1", DIGITS + "gamma_0"),
    }
    metrics = {"accuracy": "accuracy", "weight on the digit": "mass", "patch F (paper's rule)": "f"}
    return differences({title: (metric, lines) for title, metric in metrics.items()})


def ingredients():
    """Patch F with and without each of the two ingredients, beside what selects everything."""
    import matplotlib.pyplot as plt

    grid = {
        "gated attention": ("gated", "gated_patch_loss"),
        "logits' lengths": ("gamma_0", "loss_attention"),
    }
    with style():
        figure, axis = plt.subplots(figsize=(5.2, 2.5))
        for place, rows in enumerate(grid.values()):
            for shift, row, colour in zip((-0.18, 0.18), rows, CYCLE[:2]):
                values = records.load(DIGITS + row).metrics["f"].values
                axis.bar(place + shift, sum(values) / len(values), 0.32, color=colour, alpha=0.6)
                axis.plot([place + shift] * len(values), values, "o", color=colour, ms=4)
        for row, words in (("mean", "mean-pooling"),):
            metrics = records.load(DIGITS + row).metrics
            axis.axhline(metrics["f"].mean, color=CYCLE[2], ls="--", lw=1.2, label=words)
            axis.axhline(metrics["f_dummy"].mean, color=CYCLE[3], ls=":", lw=1.6, label="selects all, calls all right")
        axis.bar(0, 0, color=CYCLE[0], alpha=0.6, label="without the patch term")
        axis.bar(0, 0, color=CYCLE[1], alpha=0.6, label="with the patch term")
        axis.set(
            xticks=range(2), xticklabels=[f"weights from\n{name}" for name in grid], ylabel="patch F", ylim=(0, None)
        )
        axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    plt.close(figure)
    return figure


def sweep():
    """Metrics over the weight of the patch term."""
    names = {0.0: "gamma_0", 0.1: "loss_attention", 1.0: "gamma_1"}
    metrics = {"accuracy": "accuracy", "f": "patch F", "mass": "weight on digit", "kept": "patches kept"}
    return show.sweep_figure(
        {g: records.load(DIGITS + row) for g, row in names.items()}, metrics, "γ", ("", "f_dummy", "base")
    )


def sweep_cut():
    """Metrics over the cut."""
    names = {0.0: "xi_0", 0.1: "loss_attention", 0.5: "xi_0.5", 1.0: "xi_1"}
    metrics = {"recall": "recall", "precision": "precision", "f": "patch F", "kept": "patches kept"}
    return show.sweep_figure({x: records.load(DIGITS + row) for x, row in names.items()}, metrics, "ξ")
