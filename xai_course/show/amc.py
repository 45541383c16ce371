"""Figures of the AMC-Loss chapter: pure functions of tensors and numbers, each returning a matplotlib figure."""

from collections.abc import Mapping, Sequence
from math import cos, pi, sin
from typing import Any

import torch
from torch import Tensor

from ..methods.amc import angle
from ..methods.pairs import contrastive
from .style import CYCLE, canvas, curves, sheet, sweep_figure

CLASS_COLOURS = "tab10"


def pair_on_sphere(degrees: float, margin: float = 0.5):
    """Two points on the globe at this angle: arc and chord, and how hard each loss pulls or pushes them."""
    theta = degrees * pi / 180
    with sheet(7.2, 3.1) as figure:
        globe = figure.add_subplot(1, 2, 1, projection="3d")
        _wire(globe)
        arc = torch.linspace(0, theta, 60)
        globe.plot(torch.cos(arc), torch.sin(arc), 0 * arc, color=CYCLE[1], lw=2.5, label=f"angle {theta:.2f} rad")
        ends = [1, cos(theta)], [0, sin(theta)], [0, 0]
        globe.plot(*ends, "--", color=CYCLE[0], label=f"chord {2 * sin(theta / 2):.2f}")
        globe.scatter(*ends, color="black", s=25, depthshade=False)
        cap = torch.linspace(0, 2 * pi, 80)  # the circle at the margin around the first point
        ring = [torch.full_like(cap, cos(margin)), sin(margin) * torch.cos(cap), sin(margin) * torch.sin(cap)]
        globe.plot(*ring, color=CYCLE[2], lw=1.2, label=f"margin {margin:g} rad")
        globe.view_init(35, 40)
        globe.legend(loc="upper left", fontsize=7)
        _forces(figure.add_subplot(1, 2, 2), theta, margin)
    return figure


def _wire(axis) -> None:
    u, v = torch.meshgrid(torch.linspace(0, 2 * pi, 25), torch.linspace(0, pi, 13), indexing="ij")
    shell = torch.cos(u) * torch.sin(v), torch.sin(u) * torch.sin(v), torch.cos(v)
    axis.plot_wireframe(*(s.numpy() for s in shell), color="0.8", lw=0.4)
    axis.set_box_aspect((1, 1, 1), zoom=1.35)
    axis.set_axis_off()


def _forces(axis, theta: float, margin: float) -> None:
    """Derivatives of the pair losses with respect to the angle."""
    t = torch.linspace(0, pi, 181)
    curves = {
        "same class, angle²: 2θ": (lambda at: 2 * at, CYCLE[1], "-"),
        "same class, chord²: 2 sin θ": (lambda at: 2 * torch.sin(at), CYCLE[0], "--"),
        "other class: −2(m − θ)": (lambda at: -2 * (margin - at).clamp_min(0), CYCLE[2], "-"),
    }
    for name, (slope, colour, line) in curves.items():
        axis.plot(t, slope(t), line, color=colour, label=name)
        axis.plot(theta, slope(torch.tensor(theta)), "o", color=colour, zorder=3)
    axis.axvline(theta, color="black", lw=0.8)
    axis.set(xlabel="angle θ (rad)", ylabel="slope of the loss", xlim=(0, pi), ylim=(-1.4, 6.5))
    axis.legend(fontsize=7, loc="upper left")


def arccos_cliff(clips: Sequence[float] = (1e-7, 1e-5), pairs: int = 40, width: int = 128):
    """Relative error of a float32 angle against the true one, for the clipped arccos and the atan2 form."""
    thetas = torch.logspace(-5, 0, 60, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(pairs, width, 2, generator=generator, dtype=torch.float64))[0]
    forms = {"atan2": {"form": "atan2"}} | {f"arccos, clip {c:g}": {"form": "arccos", "clip": c} for c in clips}
    errors = {name: torch.stack([_angle_error(basis, t, form) for t in thetas]) for name, form in forms.items()}
    lines = {name: (thetas, values.clamp_min(1e-9)) for name, values in errors.items()}
    said = {"xlabel": "true angle (rad)", "ylabel": "mean relative error", "ylim": (1e-8, 1e3)}
    figure = curves(lines, 5.2, 3, xscale="log", yscale="log", **said)
    figure.axes[0].axhline(1, color="0.6", lw=0.8, ls=":")
    return figure


def _angle_error(basis: Tensor, theta: Tensor, options: Mapping) -> Tensor:
    u, v = basis[..., 0], torch.cos(theta) * basis[..., 0] + torch.sin(theta) * basis[..., 1]
    return ((angle(u.float(), v.float(), **options).double() - theta).abs() / theta).mean()


def angle_histogram(features: Tensor, labels: Tensor, margin: float = 0.5):
    """Angles of all pairs of one class and of different classes; shaded: the pairs that the margin still pushes."""
    z = torch.nn.functional.normalize(features.double(), dim=1)
    i, j = torch.triu_indices(len(z), len(z), offset=1)
    theta, same = torch.acos((z @ z.T).clamp(-1, 1)[i, j]), labels[i] == labels[j]
    active = float((theta[~same] < margin).double().mean())
    with canvas(5.6, 2.6) as (figure, axis):
        bins = torch.linspace(0, pi, 64).tolist()
        axis.hist(theta[same], bins, density=True, alpha=0.6, color=CYCLE[0], label="one class")
        axis.hist(theta[~same], bins, density=True, alpha=0.6, color=CYCLE[1], label="different classes")
        axis.axvspan(0, margin, color=CYCLE[2], alpha=0.15, lw=0)
        axis.axvline(margin, color=CYCLE[2], label=f"margin: {active:.1%} of the negatives are active")
        axis.set(xlabel="angle (rad)", yticks=[], xlim=(0, pi))
        axis.legend(fontsize=8)
    return figure


def rays(panels: Mapping[str, tuple[Tensor, Tensor]]):
    """Two-number features as points in the plane, one panel each (Fig. 1 of the paper). Title to features, labels."""
    with canvas(3.2 * len(panels), 3.0, len(panels)) as (figure, axes):
        for axis, (title, (features, labels)) in zip(axes, panels.items()):
            dots = axis.scatter(*features.T, c=labels, cmap=CLASS_COLOURS, vmin=-0.5, vmax=9.5, s=5)
            axis.plot(0, 0, "k+", ms=10)
            axis.set_aspect("equal", adjustable="datalim")
            axis.set(title=title, xlabel="feature 1", ylabel="feature 2")
        _class_bar(figure, axes, dots)
    return figure


def globes(panels: Mapping[str, tuple[Tensor, Tensor]]):
    """Three-number features on the unit sphere, one globe each (Fig. 4 of the paper). Title to features, labels."""
    n, globe = len(panels), {"projection": "3d"}
    with canvas(2.9 * n, 2.9, n, titles=list(panels), subplot_kw=globe) as (figure, axes):
        for axis, (features, labels) in zip(axes, panels.values()):
            _wire(axis)
            z = torch.nn.functional.normalize(features, dim=1)
            dots = axis.scatter(*z.T, c=labels, cmap=CLASS_COLOURS, vmin=-0.5, vmax=9.5, s=5, depthshade=False)
            axis.view_init(25, 35)
        _class_bar(figure, axes, dots)
    return figure


def tsne(panels: Mapping[str, tuple[Tensor, Tensor]], *, seed: int = 0):
    """t-SNE of deep features, one panel each (Fig. 5 of the paper). Title to features ``[N, p]``, labels ``[N]``."""
    from sklearn.manifold import TSNE

    flat = {}
    for title, (features, labels) in panels.items():
        rows = TSNE(init="pca", random_state=seed, perplexity=30).fit_transform(features.numpy())
        flat[title] = (torch.from_numpy(rows), labels)
    figure = rays(flat)
    for axis in figure.axes[: len(panels)]:
        axis.set(xlabel="", ylabel="", xticks=[], yticks=[])
        axis.lines[0].remove()  # the origin means nothing here
    return figure


def _class_bar(figure, axes, dots) -> None:
    bar = figure.colorbar(dots, ax=axes, shrink=0.8, ticks=range(10), label="class")
    bar.ax.tick_params(length=0)


def weight_sweep(records: Mapping[float, Any], *, metrics: Sequence[str], labels: Sequence[str]):
    """Metrics against the weight lambda w_max, a dot per seed; weight to `Record`."""
    return sweep_figure(dict(sorted(records.items())), dict(zip(metrics, labels)), "weight λ·w_max")


def loss_curves(records: Mapping[str, Any]):
    """The classification term (the total where a record has no terms) over the epochs, a line per seed."""
    with canvas(5.2, 2.6) as (figure, axis):
        for colour, (title, record) in zip(CYCLE, records.items()):
            for k, curve in enumerate(record.curves.get("classification", record.curves["total"])):
                axis.plot(range(1, len(curve) + 1), curve, color=colour, label=title if k == 0 else None)
        axis.set(xlabel="epoch", ylabel="classification", ylim=(0, None))
        axis.legend()
    return figure


def lottery(values: Tensor, everything: float):
    """Half-batch losses of one batch over many shuffles, against the mean over all pairs."""
    with canvas(5.2, 2.3) as (figure, axis):
        axis.hist(values, 40, color=CYCLE[0], alpha=0.7, label="half-batch pairs, one shuffle each")
        axis.axvline(everything, color=CYCLE[1], lw=2, label=f"all pairs: {everything:.3f}")
        axis.axvline(float(values.mean()), color="black", ls=":", label=f"mean of the shuffles: {values.mean():.3f}")
        axis.set(xlabel="AMC-Loss", yticks=[])
        axis.legend(fontsize=8)
    return figure


def hinge(margin: float = 0.5):
    """The loss of a pair against its angle, same class and other class (Eq. 2)."""
    t = torch.linspace(0, pi, 200)
    same = {"same class": torch.ones_like(t, dtype=torch.bool), "other class": torch.zeros_like(t, dtype=torch.bool)}
    lines = {name: (t, contrastive(t, each, margin)) for name, each in same.items()}
    figure = curves(lines, 4.6, 2.4, xlabel="angle θ (rad)", ylabel="loss of the pair", ylim=(-0.1, 3), xlim=(0, pi))
    figure.axes[0].axvline(margin, color="0.6", lw=0.8, ls=":")
    return figure
