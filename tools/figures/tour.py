"""Figures of the tour through the image sets. Only the set that comes with the course is shown; others are drawn."""

from __future__ import annotations

import torch
from torch import Tensor

from tools.figures.common import Diagram
from xai_course.data.spot import with_spot
from xai_course.data.textured_digits import BACKGROUND_CLASSES, DIGIT_CLASSES, TexturedDigits, textured_digits
from xai_course.show.style import CYCLE, image_grid

FEW = {"train": 60, "validation": 10, "test": 60}
LOOKS = {  # a knob and the values that it is shown at; everything else stays as it comes
    "contrast": (-0.4, 0.0, 0.2, 0.4, 0.6),
    "amplitude": (0.0, 0.05, 0.1, 0.2, 0.3),
    "chroma": (0.0, 0.2, 0.4, 1.0, 2.0),
    "digit_size": (12, 16, 20, 24, 30),
    "objects": (1, 2, 3),
}


def _of_class(data: TexturedDigits, label: int, count: int) -> list[Tensor]:
    return [image / 255 for image, own in zip(data.images, data.labels) if int(own) == label][:count]


def anatomy():
    """How one image is made: a handwritten digit, its mask, two textures."""
    from sklearn.datasets import load_digits

    data = textured_digits(p=0.0, **FEW).train
    at = int((data.labels == 3).nonzero()[0])
    image, mask = data.images[at] / 255, data.masks[at].float()
    source = torch.tensor(load_digits().images[int(data.sources[at, 0])]) / 16
    sheet = Diagram(7.4, 2.0)
    panels = (
        (source.expand(3, 8, 8), "a handwritten 3,\n8 × 8 pixels"),
        (mask.expand(3, *mask.shape), "enlarged and bent:\nthe mask"),
        (image * mask + 0.5 * (1 - mask), f"one photo inside:\n{DIGIT_CLASSES[int(data.textures[at, 0])]}"),
        (image * (1 - mask) + 0.5 * mask, f"one outside:\n{BACKGROUND_CLASSES[int(data.backgrounds[at])]}"),
        (image, "the image,\nlabel 3"),
    )
    for k, (panel, title) in enumerate(panels):
        x = 0.75 + 1.47 * k
        sheet.picture(x, 1.15, panel, 1.15)
        sheet.text(x, 0.3, title, fontsize=8)
        if k:
            sheet.text(x - 0.735, 1.15, ("→", "+", "+", "=")[k - 1], fontsize=12)
    return sheet.figure


def cues():
    """What gives a label away: eight images of one class for four settings of p and q."""
    settings = {"p = 0, q = 1\nbackground tells": (0.0, 1.0), "p = 1, q = 0\ninside tells": (1.0, 0.0)}
    settings |= {"p = 0, q = 0\nboth tell": (0.0, 0.0), "p = 1, q = 1\nonly the shape": (1.0, 1.0)}
    rows = [
        _of_class(textured_digits(p=p, q=q, train=100, validation=1, test=1).train, 3, 7) for p, q in settings.values()
    ]
    return image_grid(rows, labels=list(settings), size=0.8)


def knobs():
    """The same image at five values of each knob."""
    rows, labels = [], []
    for knob, values in LOOKS.items():
        how = {"p": 1.0, "q": 1.0, "train": 8, "validation": 1, "test": 1}
        rows.append([textured_digits(**how, **{knob: value}).train.images[3] / 255 for value in values])
        labels.append(f"{knob.replace('_', ' ')}\n{', '.join(map(str, values))}")
    return image_grid(rows, labels=labels, size=0.9)


def splits():
    """Training, validation and test images when the background gives the label away in training only."""
    found = textured_digits(p=0.0, q=1.0, p_test=1.0, train=100, validation=60, test=60)
    rows = [[*_of_class(part, 3, 3), *_of_class(part, 7, 3)] for part in (found.train, found.validation, found.test)]
    return image_grid(rows, labels=["training\n2000 images", "validation\n500", "test\n1000"], size=0.85)


def spot():
    """A spot in a corner tells the label in training and nothing in the test."""
    found = with_spot(textured_digits(p=1.0, q=1.0, train=100, validation=10, test=60))
    rows = [[*_of_class(part, 3, 3), *_of_class(part, 7, 3)] for part in (found.train, found.test)]
    return image_grid(rows, labels=["training:\nthe spot tells", "test:\nit tells nothing"], size=0.85)


KINDS = (  # what is known of an image, and the sets in which it is
    ("a label", "MNIST, Fashion-MNIST,\nCIFAR-10 and -100, SVHN,\nImageNet, textures (DTD)"),
    ("several labels", "COCO 2014; its boxes\nserve to measure"),
    ("a box", "Tiny ImageNet"),
    ("a mask", "Textured Digits and MNIST,\nCUB birds, Oxford pets,\nISIC, GlaS, nuclei"),
)


def others():
    """What the other sets know of an image, as a drawing: none of them comes with the course."""
    from matplotlib.patches import Circle, Ellipse, Rectangle

    sheet = Diagram(7.4, 2.2)
    for k, (kind, names) in enumerate(KINDS):
        x, y, side = 1.0 + 1.8 * k, 1.45, 1.0
        sheet.axis.add_patch(Rectangle((x - side / 2, y - side / 2), side, side, fill=False, ec="#4d4d4d", lw=1.2))
        inside = k == 3
        sheet.axis.add_patch(
            Ellipse((x - 0.05, y - 0.1), 0.5, 0.34, fc=CYCLE[0] if inside else "none", ec="#000000", lw=1.2)
        )
        sheet.axis.add_patch(
            Circle((x + 0.24, y + 0.08), 0.12, fc=CYCLE[0] if inside else "none", ec="#000000", lw=1.2)
        )
        if k == 2:
            sheet.axis.add_patch(Rectangle((x - 0.34, y - 0.31), 0.74, 0.55, fill=False, ec=CYCLE[1], lw=2))
        sheet.text(x, y + 0.38, ("bird", "bird, tree, sky", "bird", "bird")[k], fontsize=8, color=CYCLE[0])
        sheet.text(x, 0.78, kind, fontsize=9, weight="bold")
        sheet.text(x, 0.38, names, fontsize=7.5)
    return sheet.figure
