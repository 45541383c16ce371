"""Figures of the Min-Max entropy chapter."""

from __future__ import annotations

import torch
from matplotlib.patches import Rectangle

from tools.figures.common import Diagram, dots, running_image
from tools.figures.paired import AMBER, BLUE, GREEN, ORANGE, PINK, differences
from xai_course.show import minmax as show
from xai_course.show.style import style

DIGITS, WHY = "minmax/digits/", "minmax/why/"


def _soft(mask: torch.Tensor) -> torch.Tensor:
    """A generous soft mask around an object, as a localiser draws it."""
    wide = torch.nn.functional.avg_pool2d(mask[None, None].float(), 7, 1, 3, count_include_pad=False)[0, 0]
    return torch.sigmoid(8 * (1.8 * wide - 0.35))


def regions():
    """The running image, what is decidable in it, and the rest."""
    batch = running_image()
    return show.regions(batch.images, (_soft(batch.masks[0]) > 0.5)[None])


def network():
    """Localiser, mask, and the classifier that sees both sides of it."""
    batch = running_image()
    image, soft = batch.images[0], _soft(batch.masks[0])
    d = Diagram(8.6, 3.5)
    d.picture(0.75, 1.8, image, 1.15, "image $X$")
    d.box(2.2, 1.8, "localiser\n$\\mathcal{M}$", 0.95, 0.8, GREEN)
    d.picture(3.9, 1.8, soft, 1.15, "mask $R^+$")
    d.picture(5.5, 2.75, image * soft + 0.5 * (1 - soft), 1.1, "inside $X^+$")
    d.picture(5.5, 0.9, image * (1 - soft) + 0.5 * soft, 1.1, "outside $X^-$")
    d.box(6.85, 1.8, "classifier\n$\\mathcal{C}$", 0.9, 0.8, BLUE)
    d.box(8.0, 2.75, "$H^+$: name\nthe class", 1.0, 0.62, BLUE)
    d.box(8.0, 0.9, "$H^-$: know\nnothing", 1.0, 0.62, BLUE)
    d.box(2.2, 0.6, "$H$: name the class", 1.4, 0.45, GREEN)
    d.arrow((1.35, 1.8), (1.7, 1.8))
    d.arrow((2.7, 1.8), (3.3, 1.8))
    d.arrow((2.2, 1.38), (2.2, 0.84))
    for height, edge in ((2.75, 2.22), (0.9, 1.38)):
        d.arrow((4.5, 1.8), (4.93, height))
        d.arrow((6.07, height), (6.6, edge))
        d.arrow((7.12, edge), (7.48, height))
    d.axis.plot((2.99, 2.99), (1.5, 2.1), color=ORANGE, lw=3)
    d.text(2.99, 2.25, "detached", color=ORANGE, fontsize=8.5)
    return d.figure


def simplex():
    """Three losses over all predictions of three classes."""
    return show.simplex()


def vanishing():
    """Size of both gradients on the way from an undecided to a certain prediction."""
    import matplotlib.pyplot as plt

    logit = torch.linspace(0, 20, 81, dtype=torch.float64)
    p = torch.stack([logit, 0 * logit, 0 * logit], 1).softmax(1)
    entropy = -(p * p.log()).sum(1, keepdim=True)
    sizes = {
        "maximise the entropy (Eq. 4)": (p * (p.log() + entropy)).norm(dim=1),
        "uniform target (Eq. 6)": (p - 1 / 3).norm(dim=1),
    }
    with style():
        figure, axis = plt.subplots(figsize=(4.8, 2.5))
        for (name, size), colour in zip(sizes.items(), (ORANGE, BLUE)):
            axis.semilogy(logit[1:], size[1:], color=colour, label=name)
        axis.set(xlabel="lead of one class outside the mask, in logits", ylabel="size of the gradient")
        axis.legend(loc="lower left")
    plt.close(figure)
    return figure


def omega():
    """The mask as a function of the stretched map, for four values of omega."""
    import matplotlib.pyplot as plt

    at = torch.linspace(0, 1, 101)
    with style():
        figure, axis = plt.subplots(figsize=(4.6, 2.5))
        for value, colour in zip((2, 4, 8, 50), (AMBER, GREEN, BLUE, PINK)):
            axis.plot(at, torch.sigmoid(value * (at - 0.5)), color=colour, label=f"ω = {value}")
        axis.axhline(0.5, color="0.55", lw=0.8, ls=":")
        axis.axvline(0.5, color="0.55", lw=0.8, ls=":")
        axis.set(xlabel="map, stretched to [0, 1]", ylabel="mask $R^+$")
        axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    plt.close(figure)
    return figure


def learns():
    """Which parts the two entropies reach, for three ways to build the model."""
    d = Diagram(8.4, 2.5)
    ways = (
        ("detached, own trunks", False, False),
        ("detached, shared trunk", True, False),
        ("attached mask", False, True),
    )
    for left, (title, shared, attached) in zip((0.1, 2.9, 5.7), ways):
        d.text(left + 1.25, 2.35, title)
        d.box(left + 0.5, 0.9, "trunk", 0.8, 0.5, BLUE if shared or attached else AMBER)
        d.box(left + 0.5, 1.8, "$\\mathcal{M}$'s head", 0.8, 0.5, BLUE if attached else AMBER)
        d.box(left + 1.95, 1.8, "$\\mathcal{C}$", 0.85, 0.5, BLUE)
        d.box(left + 1.95, 0.9, "$H^+, H^-$", 0.85, 0.5, BLUE)
        d.arrow((left + 1.95, 1.15), (left + 1.95, 1.55), colour=BLUE)
        if shared:
            d.arrow((left + 1.5, 1.65), (left + 0.92, 0.98), colour=BLUE)
        if attached:
            d.arrow((left + 1.52, 1.8), (left + 0.92, 1.8), colour=BLUE)
            d.arrow((left + 0.5, 1.55), (left + 0.5, 1.15), colour=BLUE)
        else:
            d.axis.plot((left + 1.22, left + 1.22), (1.62, 1.98), color=ORANGE, lw=3)
            d.axis.plot((left + 0.92, left + 1.52), (1.8, 1.8), color="0.55", lw=1, ls=":")
    d.text(4.2, 0.3, "blue: hears of the two entropies     yellow: does not", fontsize=8.5)
    return d.figure


def trust():
    """The highest trust that a step of the recursion can have, and what a finding needs to pass 0.5."""
    import matplotlib.pyplot as plt

    steps = list(range(11))
    with style():
        figure, axis = plt.subplots(figsize=(4.8, 2.5))
        for certainty, colour in ((1.0, BLUE), (0.8, GREEN), (0.6, AMBER)):
            height = [certainty * 2.718281828 ** (-t / 10) for t in steps]
            axis.plot(steps, height, "o-", ms=3.5, color=colour, label=f"label's probability {certainty:g}")
        axis.axhline(0.509, color=ORANGE, ls="--", lw=1.2, label="needed to lift a pixel over 0.5")
        axis.set(xlabel="step t of the recursion", ylabel="trust Ψ(t)", ylim=(0, 1.05), xticks=steps)
        axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    plt.close(figure)
    return figure


def ones():
    """Both F1 scores of centred squares that know nothing."""
    from xai_course.data import textured_digits

    masks = textured_digits(seed=0, train=60, validation=1, test=1, digit_size=(22, 30)).train.masks.bool()
    return show.f1_against_area(torch.cat([running_image().masks.bool(), masks]), 0.3)


def reach():
    """A cell that sees little must lie on what it recognises; one that sees all may lie anywhere."""
    d, cell = Diagram(5.6, 2.5), 1.7 / 32
    image, ways = (
        running_image().images[0],
        ((9, (14, 12), "sees 9 px:\nmust lie on the digit"), (32, (27, 27), "sees everything:\nmay lie in the corner")),
    )
    for x, (size, (column, row), words) in zip((1.3, 4.2), ways):
        d.picture(x, 1.55, image, 1.7)
        left, top = (column - size / 2, row - size / 2) if size < 32 else (0, 0)
        for at, side, look in (
            ((left, top), size, {"fill": False, "ec": "white", "ls": "--", "lw": 1.6}),
            ((column - 1.5, row - 1.5), 3, {"fc": ORANGE, "ec": "white"}),
        ):
            corner = (x - 0.85 + at[0] * cell, 2.4 - (at[1] + side) * cell)
            d.axis.add_patch(Rectangle(corner, side * cell, side * cell, zorder=4, **look))
        d.text(x, 0.32, words)
    return d.figure


def results():
    """Mean of both F1 scores at a threshold chosen on validation."""
    rows = {
        "CAM-Avg": DIGITS + "cam_avg",
        "WILDCAT": DIGITS + "wildcat",
        "localiser alone, our head": DIGITS + "wildcat_ours",
        "Min-Max, u = 0": DIGITS + "u0",
        "Min-Max, u = 4": DIGITS + "u4",
        "Min-Max, attached mask": WHY + "attached",
        "U-Net, trained with masks": DIGITS + "unet",
    }
    lines = {DIGITS + "centre chosen_mean": "centred square", DIGITS + "centre f1_plus": "centred square"}
    return dots(rows, {"chosen_mean": "mean of $F1^+$ and $F1^-$", "f1_plus": "$F1^+$ at 0.5"}, lines=lines)


def why():
    """Each suspect changed alone, against the row it was changed from."""
    base = WHY + "u0"
    lines = {
        "mask attached": (WHY + "attached", base),
        "trunks separate": (WHY + "separate", base),
        "stretch over the batch": (WHY + "batch", base),
        "no stretch": (WHY + "literal", base),
        "erasing, paper's trust": (WHY + "u4", base),
        "erasing, trust by label": (WHY + "label_u4", base),
        "erasing, raw mask": (WHY + "raw_u4", base),
        "erasing, released code": (WHY + "official_u4", base),
    }
    return differences({"mean of $F1^+$ and $F1^-$": ("chosen_mean", lines), "area of the mask": ("area", lines)})
