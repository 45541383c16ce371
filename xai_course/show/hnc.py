"""Figures of the HNC chapter: pure functions of what they show, for pages, sliders and widgets alike."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..maps import class_activation_map, gap_head
from ..methods.hnc import mean_square, spatial_variance, squared_logit, uniform_divergence
from ..methods.negatives import topk_negatives
from ..nets.modes import evaluating
from .style import CYCLE, bare, canvas, curves, seed_rows

SIGNED = "RdBu_r"  # diverging, centred at zero


def _picture(figure, axis, values: Tensor, limit: float | None = None) -> None:
    """A signed map with zero in the middle of the colours."""
    limit = float(values.abs().max()) if limit is None else limit
    drawn = axis.imshow(values.numpy(), cmap=SIGNED, vmin=-limit - 1e-12, vmax=limit + 1e-12)
    bare(axis)
    figure.colorbar(drawn, ax=axis, shrink=0.7)


# --- toy maps: Fig. 3 -------------------------------------------------------------------------------------------------


def toy_maps(side: int = 7, mean: float = 1.0) -> dict[str, Tensor]:
    """Fig. 3's two cases with the same mean: one narrow peak, and gentle hills. ``[side, side]`` float64 each."""
    at = torch.arange(side, dtype=torch.float64) - side // 2
    narrow = torch.exp(-(at[:, None] ** 2 + at[None] ** 2) / 0.8)
    hills = torch.cos(at)[:, None] * torch.cos(at)[None]
    peak, regular = 12 * narrow, 1.5 * hills
    return {"peak": peak - peak.mean() + mean, "regular": regular - regular.mean() + mean}


def map_gradients(values: Tensor, probability: float = 0.3) -> dict[str, Tensor]:
    """Eq. 10 (a wrong class of the given probability), 11 and 12 at one map ``[h, w]``."""
    n = values.numel()
    return {
        "CE, Eq. 10": torch.full_like(values, probability / n),
        "HNC mse, Eq. 11": 2 * values / n,
        "HNC kd, Eq. 12": values.flatten().softmax(0).view_as(values) - 1 / n,
    }


def toy(maps: Mapping[str, Tensor]):
    """Fig. 3: each map, a cut through its middle, and the three gradients with respect to it."""
    shares = {"width_ratios": (1, 1.1, 1, 1, 1)}
    with canvas(9.2, 1.75 * len(maps), 5, len(maps), gridspec_kw=shares) as (figure, axes):
        limit = max(float(m.abs().max()) for m in maps.values())
        for row, (name, values) in zip(axes, maps.items()):
            _picture(figure, row[0], values, limit)
            row[0].set_title(f"{name}, max {values.max():.1f}")
            middle, gradients = values.shape[0] // 2, map_gradients(values)
            for (title, gradient), colour in zip(gradients.items(), CYCLE):
                row[1].plot(gradient[middle], color=colour, label=title.split(",")[0])
            row[1].axhline(0, color="0.8", lw=0.8, zorder=0)
            row[1].set(title="along the middle row", xticks=[])
            for axis, (title, gradient) in zip(row[2:], gradients.items()):
                _picture(figure, axis, gradient)
                axis.set_title(title)
        axes[0, 1].legend(fontsize=6, loc="upper left", handlelength=1)
    return figure


def same_mean(height: float, side: int = 7, mean: float = 1.0):
    """A peak of the given height over a flat ground, the mean held fixed: what each loss sees, and its gradient."""
    values = torch.zeros(side, side, dtype=torch.float64)
    values[side // 2, side // 2] = height
    values = values - values.mean() + mean
    one = values[None, None]
    bars = {
        "squared\nlogit": squared_logit(one),
        "variance": spatial_variance(one),
        "HNC\nmse": mean_square(one),
        "kd\n− log N": uniform_divergence(one) - math.log(side * side),
    }
    gradients = map_gradients(values)
    titles = (f"map, mean {mean:g}", *gradients, "what the penalties charge")
    with canvas(10, 2.2, 5, titles=titles, width_ratios=(1, 1, 1, 1, 1.7)) as (figure, axes):
        _picture(figure, axes[0], values, 15)
        for axis, gradient, limit in zip(axes[1:4], gradients.values(), (0.65, 0.65, 1.0)):
            _picture(figure, axis, gradient, limit)
        axes[4].bar(list(bars), [float(b) for b in bars.values()], color=CYCLE[: len(bars)])
        axes[4].set(ylim=(0, 11))
        axes[4].tick_params(axis="x", labelsize=7)
    return figure


def bounds(side: int = 7, scales: Sequence[float] = (0.1, 0.3, 1, 3, 10, 30), count: int = 40):
    """Proposition 1, corrected: the kd penalty of random maps between its two bounds."""
    g = torch.Generator().manual_seed(0)
    maps = torch.cat([s * torch.randn(count, 1, side, side, dtype=torch.float64, generator=g) for s in scales])
    peak = (maps.amax((2, 3)) - maps.mean((2, 3)))[:, 0]
    kd, line = uniform_divergence(maps)[:, 0], torch.logspace(-1.5, 2, 50)
    lines = {
        "random maps": (peak, kd, {"marker": ".", "ls": "", "ms": 3}),
        "max − mean": (line, line),
        "max − mean + log N": (line, line + math.log(side * side)),
    }
    axes = {"xlabel": "max − mean of the map", "ylabel": "LSE − mean", "ylim": (1, 150)}
    return curves(lines, 4.4, 2.9, xscale="log", yscale="log", **axes)


# --- maps of trained networks: Figs. 1 and 5 --------------------------------------------------------------------------


@torch.no_grad()
def negative_maps(
    nets: Mapping[str, torch.nn.Module],
    image: Tensor,
    label: int,
    names: Sequence[str],
    *,
    k: int = 4,
    shared: bool = True,
):
    """Figs. 1 and 5 for one image ``[C, H, W]``: per network the label's map, then those of its k best wrong classes.

    Args:
        shared: one colour scale for all panels; else each panel its own, which makes any map look peaked.
    """
    rows = {name: _ranked(net, image, label, k) for name, net in nets.items()}
    top = max(float(maps.abs().max()) for maps, _, _ in rows.values())
    with canvas(1.35 * (k + 2) + 0.7, 1.55 * len(rows), k + 2, len(rows)) as (figure, axes):
        for row, (name, (maps, order, probabilities)) in zip(axes, rows.items()):
            row[0].imshow(image.clamp(0, 1).permute(1, 2, 0).numpy())
            row[0].set_ylabel(name)
            for j, axis in enumerate(row[1:]):
                limit = top if shared else float(maps[j].abs().max())
                drawn = axis.imshow(maps[j].numpy(), cmap=SIGNED, vmin=-limit, vmax=limit)
                axis.set_title(f"{'label' if j == 0 else 'wrong'} {names[order[j]]}: {probabilities[j]:.2f}")
            bare(*row)
        if shared:
            figure.colorbar(drawn, ax=axes, shrink=0.8, label="map, logits")
    return figure


def _ranked(net, image: Tensor, label: int, k: int) -> tuple[Tensor, list[int], Tensor]:
    """Maps ``[k + 1, h, w]``, classes and probabilities: the label first, then the best wrong classes."""
    head = gap_head(net)
    with evaluating(net):
        features = net.features(image[None])
        logits = head(features.mean((2, 3)))
        wrong = topk_negatives(logits, torch.tensor([label]), k)[0]
        order = torch.cat([torch.tensor([[label]]), wrong], dim=1)
        maps = class_activation_map(features, head.weight, head.bias, order)
    return maps[0], order[0].tolist(), F.softmax(logits, dim=1)[0, order[0]]


# --- results ----------------------------------------------------------------------------------------------------------


def compare(records: Mapping[str, Any], metrics: Sequence[str]):
    """A panel per metric, a line per record: every seed a dot, the mean a tick, cross-entropy's ("ce") dotted."""
    colours = {"ce": CYCLE[0], "mse": CYCLE[1], "kd": CYCLE[1]}
    panels = {m.replace("_", " "): {name: r.metrics[m].values for name, r in records.items()} for m in metrics}
    figure = seed_rows(panels, 2.3, lambda name: colours.get(name.partition("_")[0], CYCLE[2]))
    for axis, metric in zip(figure.axes, metrics):
        if "ce" in records:
            axis.axvline(records["ce"].metrics[metric].mean, color="0.7", lw=0.8, ls=":", zorder=0)
    return figure


def attack_curves(records: Mapping[str, Any], attack: str, epsilons: Sequence[float]):
    """Accuracy against epsilon, one line per record, with one standard deviation over the seeds."""
    with canvas(4.6, 2.8) as (figure, axis):
        for (name, record), colour in zip(records.items(), CYCLE):
            found = [record.metrics["accuracy"], *(record.metrics[f"{attack}_{e:g}"] for e in epsilons)]
            means, at = torch.tensor([m.mean for m in found]), [0, *epsilons]
            sd = torch.tensor([m.sd for m in found])
            axis.plot(at, means, "o-", ms=3, color=colour, label=name)
            axis.fill_between(at, means - sd, means + sd, color=colour, alpha=0.15, lw=0)
        axis.set(xlabel="ε, in pixels of [0, 1]", ylabel="accuracy", title=attack.replace("_", " "), ylim=(0, 1))
        axis.legend(fontsize=7)
    return figure


def costs(batch: int = 32, n: int = 1000, channels: int = 2048, cells: int = 49):
    """Formulas of the page: multiplications and copied numbers of gathered and of all maps, against k."""
    k = torch.arange(1, n)
    copies, work = batch * k * channels * 4 / 2**20, batch * k * channels * cells / 1e9
    full = batch * n * cells * 4 / 2**20, batch * n * channels * cells / 1e9
    with canvas(7.2, 2.6, 2) as (figure, axes):
        lines = ((work, full[1], "10⁹ multiplications"), (copies, full[0], "MB of copied weights or maps"))
        for axis, (gathered, whole, label) in zip(axes, lines):
            axis.loglog(k, gathered, color=CYCLE[0], label="gather all at once")
            axis.axhline(whole, color=CYCLE[1], label=f"all {n} maps")
            axis.set(xlabel="k", ylabel=label)
        axes[1].axvline(n * cells / channels, color="0.6", ls=":")
        axes[1].annotate(f"k = {n * cells / channels:.0f}", (n * cells / channels, 0.3), fontsize=8)
        axes[0].legend()
    return figure


def chosen_classes(k: int, logits: Tensor, label: int, names: Sequence[str]):
    """All logits of one image ``[n]`` as bars, sorted: the label, the k classes the penalty sees, and the rest."""
    picked = set(topk_negatives(logits[None], torch.tensor([label]), k)[0][0].tolist())
    order = logits.argsort(descending=True).tolist()
    colours = [CYCLE[2] if o == label else CYCLE[1] if o in picked else "0.8" for o in order]
    with canvas(4.6, 2.4) as (figure, axis):
        axis.bar(range(len(order)), logits[order], color=colours)
        axis.axhline(0, color="0.5", lw=0.6)
        axis.set(xticks=range(len(order)), xticklabels=[names[o] for o in order], ylabel="logit")
        axis.set_title(f"label (green), k = {k} strongest absent classes (red), the rest")
    return figure
