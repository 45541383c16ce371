"""Figures of the Min-Max entropy chapter: pure functions of what they show, for pages, sliders and widgets alike."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..measure.minmax import conditional_entropy
from ..measure.scores import f1_background, f1_foreground
from ..methods.erasing import Step
from ..methods.minmax import MaskRule, combined_map, split_image, undecided_loss, upsample
from .style import CYCLE, bare, canvas, curves, draw, image_grid, seed_rows


def _outline(axis, mask: Tensor, colour: str = "white") -> None:
    drawn = mask.float().cpu().numpy()
    if drawn.min() < drawn.max():
        axis.contour(drawn, levels=[0.5], colors=colour, linewidths=1)


def regions(images: Tensor, masks: Tensor):
    """Fig. 1: image ``[B, 3, H, W]`` in [0, 1], decidable and undecidable part; what is hidden becomes mid grey."""
    plus, minus = split_image(2 * images - 1, masks.unsqueeze(1).float())
    rows = [[x, (p + 1) / 2, (m + 1) / 2] for x, p, m in zip(images, plus, minus)]
    return image_grid(rows, ("$X$", "$X^+$: decidable", "$X^-$: undecidable"), size=1.5)


def _triangle(steps: int = 60) -> Tensor:
    """Points ``[N, 3]`` inside the simplex of three classes."""
    at = torch.arange(0.5, steps) / steps
    grid = torch.cartesian_prod(at, at)
    grid = grid[grid.sum(1) < 1]
    return torch.cat([grid, 1 - grid.sum(1, keepdim=True)], 1)


def simplex():
    """Entropy, Eq. 6 and Eq. 3 over all predictions of three classes, with the steps of gradient descent on logits."""
    p = _triangle()
    panels = {
        "entropy $H$ (Eq. 4): maximise": (conditional_entropy(p.log()), lambda z: -conditional_entropy(z)),
        "$H^-$ (Eq. 6): minimise": (undecided_loss(p.log()), undecided_loss),
        "$-\\log p_1$ (Eq. 3): minimise": (-p[:, 0].log(), lambda z: -z.log_softmax(1)[:, 0]),
    }
    with canvas(8.4, 2.9, 3) as (figure, axes):
        for axis, (title, (value, loss)) in zip(axes, panels.items()):
            drawn = axis.tricontourf(*_flat(p), value.clamp_max(3), levels=12)
            figure.colorbar(drawn, ax=axis, shrink=0.7)
            _arrows(axis, _triangle(10), loss)
            axis.set_title(title, pad=14)
            axis.set(aspect="equal")
            bare(axis)
            for name, at in (("1", (-0.04, -0.07)), ("2", (1.02, -0.07)), ("3", (0.56, 0.85))):
                axis.text(*at, name)
    return figure


def _arrows(axis, p: Tensor, loss) -> None:
    z = p.log().requires_grad_()
    (slope,) = torch.autograd.grad(loss(z).sum(), z)
    moved = (z.detach() - 0.7 * slope).softmax(1) - p  # one step on the logits, seen on the simplex
    axis.quiver(*_flat(p), *_flat(moved), color="white", angles="xy", scale_units="xy", scale=1, width=0.007)


def _flat(p: Tensor) -> tuple[Tensor, Tensor]:
    return p[:, 1] + p[:, 2] / 2, p[:, 2] * math.sqrt(3) / 2


def who_learns(norms: Mapping[str, Mapping[str, float]]):
    """Gradient norm of the two entropies per part of the model (bars), for each way to build it. Zero is marked."""
    with canvas(6.2, 2.6) as (figure, axis):
        width, parts = 0.8 / len(norms), list(next(iter(norms.values())))
        for i, (name, row) in enumerate(norms.items()):
            at = [j + (i - (len(norms) - 1) / 2) * width for j in range(len(parts))]
            axis.bar(at, list(row.values()), width, label=name, color=CYCLE[i])
            for x, value in zip(at, row.values()):
                if value == 0:
                    axis.text(x, 0, "0", ha="center", va="bottom", color=CYCLE[i])
        axis.set(xticks=range(len(parts)), xticklabels=parts, ylabel="gradient norm of $H^+ + H^-$")
        axis.legend()
    return figure


def mask_rule(maps: Tensor, logits: Tensor, image: Tensor, rule: MaskRule):
    """Eq. 11 on one image ``[3, H, W]``: the mask with its cut at 0.5, its histogram, and the curve it went through."""
    size = image.shape[-2], image.shape[-1]
    mask = rule.apply(maps[None], logits[None], size)[0, 0].detach()
    raised = upsample(combined_map(maps[None], logits[None]), size)[0, 0].detach()
    titles = ("image", "$T^\\uparrow$ (own scale)", f"$R^+$, ω = {rule.omega:g}")
    with canvas(8, 2.2, 4, titles=titles) as (figure, axes):
        draw(axes[0], image)
        axes[1].imshow(raised)
        draw(axes[2], mask)
        bare(*axes[:3])
        _outline(axes[2], mask >= 0.5)
        axes[3].hist(mask.flatten().numpy(), bins=20, range=(0, 1), color=CYCLE[0])
        axes[3].axvline(0.5, color=CYCLE[1])
        axes[3].set(title=f"pixels above 0.5: {100 * float((mask >= 0.5).float().mean()):.0f} %", yticks=[])
    return figure


def memory(depths: Sequence[int], step_by_step: Sequence[float], joint: Sequence[float]):
    """Peak of the saved activations in MB against the depth u: Algorithm 1, and one graph for all steps."""
    found = {"one joint graph": (joint, CYCLE[1]), "Algorithm 1: back-propagate each step": (step_by_step, CYCLE[0])}
    lines = {name: (depths, values, {"marker": "o", "color": colour}) for name, (values, colour) in found.items()}
    return curves(lines, 4.2, 2.5, xlabel="depth u", ylabel="saved activations, MB", ylim=(0, None), xticks=depths)


def player(step: Step, truth: Tensor, images: int = 4):
    """One step of the recursion: what M sees, what it finds, its trust, and everything found so far.

    Args:
        step: one step of `erase`, images in [-1, 1].
        truth: ``[B, H, W]`` bool, outlined in white.
        images: how many of the batch to show.
    """
    titles = ("M sees", f"$R^{{+,{step.t}}}$", "", "$R^{+,\\star}$")
    with canvas(6.2, 1.45 * images, 4, images, titles, width_ratios=(1, 1, 0.5, 1)) as (figure, axes):
        for i, row in enumerate(axes):
            trust = float(step.trust[i])
            draw(row[0], (step.images[i] + 1) / 2)
            draw(row[1], step.mask[i, 0])
            draw(row[3], step.total[i, 0])
            _outline(row[3], truth[i])
            row[2].barh([0], [trust], color=CYCLE[2] if trust else CYCLE[1])
            row[2].set(xlim=(0, 1), ylim=(-1.5, 1.5), title=f"{trust:.2f}" if trust else "not trusted")
            bare(*row)
        figure.suptitle(f"t = {step.t}: {100 * float((step.trust > 0).float().mean()):.0f} % of the batch trusted")
    return figure


def compare(images: Tensor, truth: Tensor, maps: Mapping[str, Tensor]):
    """Figs. 3 and 6-12: images, true masks, and each method's binary mask with its F1+ / F1- in per cent below."""
    titles = ("image", "truth", *maps)
    size, bare_axes = (1.25 * len(titles), 1.5 * len(images)), {"xticks": (), "yticks": ()}
    with canvas(*size, len(titles), len(images), titles, subplot_kw=bare_axes) as (figure, axes):
        for i, row in enumerate(axes):
            draw(row[0], images[i])
            draw(row[1], truth[i].float())
            for axis, found in zip(row[2:], maps.values()):
                cut = found[i : i + 1] >= 0.5
                draw(axis, cut[0].float())
                scores = [100 * float(f(cut, truth[i : i + 1])) for f in (f1_foreground, f1_background)]
                axis.set_xlabel("{:.0f} / {:.0f}".format(*scores))
    return figure


def f1_against_area(truth: Tensor, share: float):
    """A centred square of area ``share`` as the prediction, and both scores of all such squares, which know nothing."""
    from ..measure.trivial import centre_box

    shares = [0.02 * i for i in range(1, 51)]
    images = truth.unsqueeze(1).float()
    squares = [centre_box(images, s).bool() for s in shares]
    plus, minus = (_percent([float(f(s, truth).mean()) for s in squares]) for f in (f1_foreground, f1_background))
    with canvas(6.4, 2.5, 2, gridspec_kw={"width_ratios": (1, 1.8)}) as (figure, axes):
        draw(axes[0], truth[0].float())
        _outline(axes[0], centre_box(images, share)[0], CYCLE[1])
        axes[0].set(title=f"a square of {100 * share:.0f} %")
        bare(axes[0])
        for values, name, colour in ((plus, "F1+", CYCLE[0]), (minus, "F1-", CYCLE[1])):
            axes[1].plot([100 * s for s in shares], values, color=colour, label=name)
        axes[1].axvline(100 * share, color="grey", lw=0.8)
        axes[1].set(xlabel="area of the square, %", ylabel="mean over images, %", ylim=(0, 100))
        axes[1].legend()
    return figure


def scores(points: Mapping[str, tuple[Sequence[float], Sequence[float]]], highlight: str = ""):
    """F1+ and F1- of each row (shares) in per cent: mean as a bar, a dot per seed; rows with ``highlight`` coloured."""
    parts = {"F1+: object, %": 0, "F1-: background, %": 1}
    panels = {label: {name: _percent(both[part]) for name, both in points.items()} for label, part in parts.items()}
    figure = seed_rows(panels, 2.7, lambda name: CYCLE[1 if highlight and highlight in name else 5], True, sharex=True)
    figure.axes[0].set(xlim=(0, 100))
    return figure


def _percent(shares: Sequence[float]) -> list[float]:
    return [100 * share for share in shares]


def bars(values: Mapping[str, Sequence[float]], label: str, baseline: str = ""):
    """Shares in per cent: a horizontal bar per name (mean), a dot per seed, and a line at the ``baseline``'s mean."""
    panel = {name: _percent(shares) for name, shares in values.items()}
    figure = seed_rows({label: panel}, 4.5, lambda name: CYCLE[5], bars=True)
    if baseline:
        figure.axes[0].axvline(sum(panel[baseline]) / len(panel[baseline]), color=CYCLE[1], lw=1)
    return figure


def trust_curves(found: Mapping[str, Sequence[float]], label: str):
    """Shares in per cent, one line per rule, against the step t of the recursion."""
    lines = {name: (range(len(shares)), _percent(shares), {"marker": "o"}) for name, shares in found.items()}
    steps = range(max(map(len, found.values())))
    figure = curves(lines, 6.2, 2.6, xlabel="step t of the recursion", ylabel=label, xticks=steps)
    figure.axes[0].legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
