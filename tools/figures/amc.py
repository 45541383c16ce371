"""Figures of the AMC-Loss chapter."""

from __future__ import annotations

import contextlib
import io
from functools import partial

import torch
from torch import nn

from tools.figures.common import Diagram, dots, running_image, trained
from xai_course.data.textured_digits import textured_digits
from xai_course.maps import grad_cam
from xai_course.measure import deep_features
from xai_course.methods.amc import AmcLoss
from xai_course.methods.base import CrossEntropy
from xai_course.nets.convnets import GapClassifier, small_cnn
from xai_course.preset import Preset
from xai_course.runs import lab
from xai_course.show import amc as show
from xai_course.show import looking
from xai_course.show.style import CYCLE, image_grid, style

PULLED = partial(AmcLoss, w_max=100, pair_labels="true")


def sectors():
    """Features of two numbers after cross-entropy: the second lab's first network."""
    knobs = {"amplitude": 0.0, "chroma": 0.0, "contrast": 0.8, "position": "centre", "digit_size": 28}
    data = textured_digits("smoke", seed=0, train=1000, validation=100, test=500, **knobs)
    plan = Preset(epochs=15, batch_size=32, lr=0.003, schedule="gaussian_ramps", ramp_up=4 / 15, ramp_down=3 / 15)
    torch.manual_seed(0)
    last = nn.Conv2d(32, 2, 1)
    net = GapClassifier(nn.Sequential(*small_cnn(width=8, seed=0).body, last), nn.Linear(2, 10))
    torch.manual_seed(0)
    method = CrossEntropy(net)
    with contextlib.redirect_stdout(io.StringIO()):
        lab.fit(method, data.train, plan, seed=0)
    found = deep_features(method.cpu(), data.test)
    return show.rays({"500 test images, two features": (found.features, found.labels)})


def hinge():
    """What a pair costs by its angle."""
    return show.hinge()


def sphere():
    """A pair on the sphere and the forces on it."""
    return show.pair_on_sphere(40.0)


def cliff():
    """The arccos in float32 and its gradient."""
    return show.arccos_cliff()


@torch.no_grad()
def network():
    """Two images, one network: features meet on the sphere, the classifier sees their lengths too."""
    sheet = Diagram(7.2, 2.5)
    for y, p, name in ((1.85, 1.0, "i"), (0.65, 0.0, "j")):
        sheet.picture(0.55, y, running_image(p).images[0], 0.85)
        sheet.arrow((0.98, y), (1.45, y))
        sheet.box(1.95, y, "layers,\nmean", 0.95)
        sheet.arrow((2.45, y), (3.0, y))
        sheet.box(3.4, y, f"feature $f_{name}$", 0.85, colour=CYCLE[0])
        sheet.arrow((3.85, y), (6.0, y), colour=CYCLE[0])
        sheet.box(6.5, y, "linear layer,\ncross-entropy", 1.1, colour=CYCLE[0])
        inwards = -1 if y > 1.25 else 1
        sheet.arrow((3.6, y + 0.26 * inwards), (4.5, 1.25 - 0.2 * inwards), colour=CYCLE[1])
    sheet.box(5.0, 1.25, r"angle $\theta_{ij}$, pair loss", 1.5, colour=CYCLE[1])
    sheet.text(3.28, 1.25, r"divide by length", fontsize=8, color=CYCLE[1])
    sheet.arrow((6.5, 1.6), (5.75, 1.35), colour="#009e73", ls=":")
    sheet.arrow((6.5, 0.9), (5.75, 1.15), colour="#009e73", ls=":")
    sheet.text(6.55, 1.25, "alike?", fontsize=8, color=CYCLE[2])
    return sheet.figure


def pairs(images: int = 16, classes: int = 4):
    """The pairs of one shuffled batch: those that the half-batch rule takes, and which of them pull."""
    import matplotlib.pyplot as plt

    labels = torch.arange(images)[torch.randperm(images, generator=torch.Generator().manual_seed(1))] % classes
    i, j = torch.triu_indices(images, images, offset=1)
    same, taken = labels[i] == labels[j], j - i == images // 2
    with style():
        figure, axis = plt.subplots(figsize=(3.9, 3.1))
        for alike, colour, name in ((True, CYCLE[1], "one class"), (False, CYCLE[0], "two classes")):
            left, used = same.eq(alike) & ~taken, same.eq(alike) & taken
            axis.scatter(j[left], i[left], s=14, facecolors="none", edgecolors=colour, lw=0.7, alpha=0.7)
            axis.scatter(j[used], i[used], s=42, color=colour, label=f"{name}: {int(used.sum())} taken")
        axis.set(xlabel="image", ylabel="image", xticks=[], yticks=[], aspect="equal")
        axis.invert_yaxis()
        axis.legend(loc="lower left", fontsize=8)
        plt.close(figure)
    return figure


def maps():
    """The running image and its maps, without and with the pull."""
    batch = running_image()
    row = [batch.images[0]]
    for build in (CrossEntropy, PULLED):
        found = grad_cam(trained(build).net, batch.images, batch.labels, ["body.3", "body.4"]).maps
        row += [looking.enlarged(m.detach(), batch.images.shape[-2:])[0] for m in found]
    columns = ("image", "CE:\nstage 4", "CE:\nlast maps", "AMC, 100:\nstage 4", "AMC, 100:\nlast maps", "mask")
    return image_grid([[*row, batch.masks[0].float()]], columns=columns, size=1.15)


def weights():
    """The weight, and who says which pairs are alike."""
    rows = {
        "printed weight, 1": "amc_w1",
        "weight 10": "amc_w10",
        "released, 100": "amc_w100",
        "100, true labels": "amc_w100_true",
        "100, predicted, late": "amc_w100_late",
        "Euclid, 1": "euclid",
    }
    metrics = {
        "accuracy": "accuracy",
        "angle_within": "angle within",
        "map_area": "area of map",
        "energy_in_mask": "energy in mask",
    }
    return dots({k: f"amc/digits/{v}" for k, v in rows.items()}, metrics, twin="amc/digits/ce")


def collapse():
    """Cross-entropy over the epochs, by who names the pairs."""
    from xai_course.runs import records

    rows = {"no pair loss": "ce", "weight 100, true labels": "amc_w100_true", "weight 100, predicted": "amc_w100"}
    return show.loss_curves({title: records.load(f"amc/digits/{name}") for title, name in rows.items()})
