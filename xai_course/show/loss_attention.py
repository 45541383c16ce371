"""Figures of the Loss-Attention chapter: pure functions of their arguments, each returns a matplotlib figure."""

from collections.abc import Mapping, Sequence
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from ..measure.patches import hull
from ..methods.loss_attention import attended_logits, image_loss, loss_attention, patch_loss
from ..methods.patch_heads import PatchMethod
from .style import CYCLE, MAP_COLOURS, bare, canvas, curves, draw, frame
from .style import sweep_figure as sweep_figure

# --- the rule itself -------------------------------------------------------------------------------------------------


def cut_figure(logits: Tensor, cutoff: float):
    """Shares of lengths before the cut, the cut line, and the weights after it, for one image: ``logits [M, K]``."""
    alpha, before = (weights.numpy() for weights in loss_attention(logits, cutoff))
    with canvas(6.2, 2.4) as (figure, axis):
        at = np.arange(len(before))
        axis.bar(at - 0.2, before, 0.4, label="share of length (5a)", color="0.65")
        axis.bar(at + 0.2, alpha, 0.4, label="after the cut (5b)", color=CYCLE[0])
        axis.axhline(cutoff / len(before), color=CYCLE[1], lw=1, ls="--", label=f"ξ/M, ξ = {cutoff:g}")
        kept = int((alpha > 0).sum())
        axis.set(xlabel="patch", ylabel="weight", title=f"{kept} of {len(before)} patches kept", ylim=(0, 0.42))
        axis.legend(loc="upper left", ncols=3)
    return figure


def court_figure(scale: float):
    """Two patches, three classes: the image is sure of the first class, no patch says so (probabilities, losses)."""
    p = scale * torch.tensor([[[10.0, 11.0, -100.0], [10.0, -100.0, 11.0]]])
    alpha, _ = loss_attention(p)
    z, label = attended_logits(alpha, p), torch.tensor([0])
    parts = {"patch 1": p[0, 0], "patch 2": p[0, 1], "image": z[0]}
    with canvas(6.2, 2.1, 3, sharey=True) as (figure, axes):
        for axis, (name, logits) in zip(axes, parts.items()):
            axis.bar(["cat", "dog", "bird"], logits.softmax(0).numpy(), color=[CYCLE[0], CYCLE[1], CYCLE[1]])
            axis.set(title=name, ylim=(0, 1))
        losses = f"image loss {image_loss(z, label):.2g}, patch term {patch_loss(alpha, p, label):.2f}"
        axes[0].set_ylabel("probability")
        figure.suptitle(f"label: cat, scale {scale:g}: {losses}", fontsize=9)
    return figure


def bound_figure():
    """The one inequality behind Propositions 1 and 2: -log u against 1 - u."""
    u = np.linspace(0.01, 1, 200)
    lines = {"loss, −log u": (u, -np.log(u)), "bound, 1 − u": (u, 1 - u, {"ls": "--"})}
    return curves(lines, 4.2, 2.6, xlabel="u, probability of the true class", ylim=(0, 4.7))


# --- who receives gradient -------------------------------------------------------------------------------------------


def gradient_paths(method: PatchMethod, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Weights, and the length of the image loss's gradient at each patch's features by its two ways.

    Args:
        method: on a `PatchNet`; images: ``[B, 3, H, W]``; labels: ``[B]``.

    Returns:
        ``weights``, ``through_logits``, ``through_weights``, each ``[B, M]``: a patch's logits change the mixture, and
        so does its weight. The full gradient is the sum of the two vectors.
    """
    net: Any = method.eval().net
    features = net.patch_features(images).detach().requires_grad_()
    with mock.patch.object(net, "patch_features", lambda images: features):
        seen = method.attend(images)
    (g,) = torch.autograd.grad(image_loss(seen.image, labels) * len(images), seen.image, retain_graph=True)
    lengths = []
    for weights, logits in ((seen.weights.detach(), seen.patches), (seen.weights, seen.patches.detach())):
        score = ((weights.unsqueeze(-1) * logits).sum(1) * g).sum() + 0 * features.sum()  # weights may be constants
        lengths.append(torch.autograd.grad(score, features, retain_graph=True)[0].norm(dim=-1))
    return seen.weights.detach(), *lengths


def gradient_figure(methods: Mapping[str, PatchMethod], image: Tensor, label: int):
    """One row per method: image, weights, and the gradient that each patch gets through logits and through weights."""
    columns = ("image", "weights", "gradient\nthrough logits", "gradient\nthrough weights")
    with canvas(6.8, 1.3 * len(methods) + 0.3, 4, len(methods), columns) as (figure, axes):
        for row, (name, method) in zip(axes, methods.items()):
            paths = gradient_paths(method, image.unsqueeze(0), torch.tensor([label]))
            most = max(float(part.max()) for part in paths[1:])
            draw(row[0], image)
            for axis, part, top in zip(row[1:], paths, (float(paths[0].max()), most, most)):
                side = round(part.shape[1] ** 0.5)
                drawn = axis.imshow(part.view(side, side).numpy(), cmap=MAP_COLOURS, vmin=0, vmax=max(top, 1e-12))
                figure.colorbar(drawn, ax=axis, shrink=0.8, format="%.2g")
            row[0].set_ylabel(name, rotation=0, ha="right", va="center")
        bare(*axes.flat)
    return figure


# --- what a network selects ------------------------------------------------------------------------------------------


def selection_figure(methods: Mapping[str, PatchMethod], images: Tensor, objects: Tensor, level: float | None = None):
    """Figs. 5 and 6 for our images: what each method selects, and the box around it.

    Args:
        images: ``[B, 3, H, W]``; objects: ``[B, O, 4]`` true boxes.
        level: select weights above ``level / M``; None is each method's own rule.
    """
    titles, rows = ("image, true box", *methods), len(images)
    with canvas(1.35 * len(titles), 1.4 * rows + 0.2, len(titles), rows, titles) as (figure, axes), torch.no_grad():
        for axis, image, boxes in zip(axes[:, 0], images, objects):
            draw(axis, image)
            for box in boxes:
                frame(axis, box, width=1.6)
        for column, method in zip(axes.T[1:], methods.values()):
            weights = method.eval().attend(images).weights
            chosen = method.selected(weights) if level is None else weights > level / weights.shape[1]
            net: Any = method.net
            size = tuple(images.shape[-2:])
            lit = net.paint(chosen.float(), size) > 0
            guesses = hull(chosen.cpu(), net.boxes(size))
            for axis, image, mask, guess, boxes in zip(column, images, lit, guesses, objects):
                draw(axis, torch.where(mask, image, 0.35 * image))
                for box in boxes:
                    frame(axis, box, width=1.6)
                frame(axis, guess, "white", "--", 1.6)
        bare(*axes.flat)
    return figure


def contribution_figure(method: PatchMethod, image: Tensor, names: Sequence[str]):
    r"""Signed contributions :math:`\alpha_m p_{mk}` to the winner and to the runner-up, and their difference.

    The difference map sums to the margin between the two logits: an explanation that is exact, at patch resolution.
    """
    with canvas(7.6, 1.7, 5, titles=("image", "weights")) as (figure, axes), torch.no_grad():
        seen = method.eval().attend(image.unsqueeze(0))
        first, second = seen.image[0].topk(2).indices.tolist()
        parts = (seen.weights[0].unsqueeze(1) * seen.patches[0])[:, [first, second]]
        maps = [parts[:, 0], parts[:, 1], parts[:, 0] - parts[:, 1]]
        titles = [f"{names[first]}: {seen.image[0, first]:.2f}", f"{names[second]}: {seen.image[0, second]:.2f}"]
        titles.append(f"difference: {maps[2].sum():.2f}")
        side, most = round(len(parts) ** 0.5), float(torch.stack(maps).abs().max())
        draw(axes[0], image)
        draw(axes[1], method.explain(image.unsqueeze(0), torch.tensor([first]))[0])
        for axis, values, title in zip(axes[2:], maps, titles):
            drawn = axis.imshow(values.view(side, side).numpy(), cmap="RdBu_r", vmin=-most, vmax=most)
            axis.set_title(title)
        figure.colorbar(drawn, ax=axes, shrink=0.8)
        bare(*axes.flat)
    return figure


def field_figure(nets: Mapping[str, Any], image: Tensor, patch: int = 14):
    """What is drawn as a patch (solid) and what it depends on (dashed), for several networks on one image."""
    size = tuple(image.shape[-2:])
    with canvas(1.9 * len(nets), 2.1, len(nets)) as (figure, axes):
        for axis, (name, net) in zip(axes, nets.items()):
            draw(axis, image)
            frame(axis, net.boxes(size)[patch].tolist(), width=1.6)
            frame(axis, net.boxes(size, "rf")[patch].tolist(), "white", "--", 1.6)
            axis.set_title(f"{name}\n{net.field().size} px drawn, {net.field('rf').size} px seen")
        bare(*axes.flat)
    return figure
