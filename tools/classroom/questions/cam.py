"""Questions of the assignment on CAM and Grad-CAM. References are slow and literal on purpose."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from tools.classroom.questions import Case, Choice, Question, normal, sizes
from xai_course.checks import Small

# --- 1. the class activation map -------------------------------------------------------------------------------------


def _class_map(features: Tensor, weight: Tensor, classes: Tensor) -> Tensor:
    rows = [sum(weight[c, d] * image[d] for d in range(len(image))) for image, c in zip(features, classes, strict=True)]
    return torch.stack(rows)


def _class_map_cases(g: torch.Generator) -> Iterator[Case]:
    for name, (b, d, h, w), hint in (
        ("one image", (1, 3, 4, 4), "weigh each of the D feature maps by one number and add them up"),
        ("height differs from width", (3, 4, 2, 5), "which axes does your sum run over, and which does it keep?"),
        ("as many classes as channels", (2, 5, 3, 3), "weight is [K, D]: the class picks a row, not a column"),
    ):
        k = d if "as many" in name else next(sizes(g, (2, 6)))
        classes = torch.randint(0, k, (b,), generator=g)
        yield Case(name, (normal(g, b, d, h, w), normal(g, k, d), classes), hint, gradients=(0, 1))


# --- 2. Grad-CAM -----------------------------------------------------------------------------------------------------


def _grad_cam_map(head, features: Tensor, classes: Tensor) -> Tensor:
    maps = []
    for image, c in zip(features, classes, strict=True):
        image = image.detach().requires_grad_()
        gradient = torch.autograd.grad(head(image[None])[0, c], image)[0]
        maps.append((gradient.mean(dim=(1, 2))[:, None, None] * image).sum(0).relu())
    return torch.stack(maps).detach()


def _head(g: torch.Generator, d: int, h: int, w: int, k: int) -> Small:
    """A head that is not global average pooling, so that Grad-CAM is not just CAM."""
    return Small("tanh head", weight=normal(g, k, d), mix=normal(g, d, h, w))


def _grad_cam_cases(g: torch.Generator) -> Iterator[Case]:
    for name, b, hint in (
        ("one image", 1, "average the gradient over the positions before you weigh the maps"),
        (
            "several images of several classes",
            4,
            "each image has its own class: which logits do you add up?",
        ),
    ):
        d, h, w, k = sizes(g, (2, 4), (2, 4), (3, 5), (3, 5))
        classes = torch.randint(0, k, (b,), generator=g)
        yield Case(name, (_head(g, d, h, w, k), normal(g, b, d, h, w), classes), hint)
    d, k = 3, 4
    head, features = _head(g, d, 3, 3, k), normal(g, 2, d, 3, 3)
    classes = head(features).argmin(dim=1)  # mostly negative evidence: what remains shows where ReLU belongs
    yield Case("the least likely class", (head, features, classes), "where in the equation does the ReLU stand?")


# --- 3. how much of a map lies on the object -------------------------------------------------------------------------


def _energy(maps: Tensor, masks: Tensor) -> Tensor:
    shares = []
    for one, mask in zip(maps, masks, strict=True):
        total = float(one.sum())
        shares.append(float((one * mask).sum()) / total if total > 0 else 0.0)
    return torch.tensor(shares, dtype=torch.float64)


def _energy_cases(g: torch.Generator) -> Iterator[Case]:
    b, h, w = sizes(g, (2, 5), (3, 6), (3, 6))
    masks = torch.rand(b, h, w, generator=g) < 0.4
    maps = normal(g, b, h, w).abs() * torch.arange(1, b + 1)[:, None, None]
    yield Case("maps of different strength", (maps, masks), "one share per image: no image may weigh more than another")
    yield Case("maps of a billionth", (maps * 1e-9, masks), "an epsilon in the denominator changes weak maps")
    maps = maps.clone()
    maps[0] = 0
    yield Case("a map that is zero everywhere", (maps, masks), "what does 0/0 give, and what should the share be?")
    yield Case("nothing masked", (maps[1:], torch.zeros_like(masks[1:])), "the share of an empty object is 0")
    yield Case("everything masked", (maps[1:], torch.ones_like(masks[1:])), "divide by the map's sum, not by the area")


# --- 4. a control: what a map that knows nothing gets ---------------------------------------------------------------


def _centre_box(masks: Tensor, side: int) -> Tensor:
    _, h, w = masks.shape
    box = torch.zeros(h, w, dtype=torch.float64)
    top, left = (h - side) // 2, (w - side) // 2
    box[top : top + side, left : left + side] = 1
    return _energy(box.expand(len(masks), h, w), masks)


def _centre_box_cases(g: torch.Generator) -> Iterator[Case]:
    b, half = sizes(g, (2, 4), (3, 5))
    n = 2 * half
    masks = torch.rand(b, n, n, generator=g) < 0.5
    yield Case("a small box", (masks, 2), "a box of side x side pixels whose centre is the image's centre")
    yield Case("the whole image", (masks, n), "with side = size every image gets its mask's area fraction")
    wide = torch.rand(b, n, n + 2, generator=g) < 0.5
    yield Case("wider than high", (wide, 4), "rows and columns have different centres here")


# --- 5. mend a broken function ---------------------------------------------------------------------------------------


def _to_unit_range(maps: Tensor) -> Tensor:
    out = []
    for one in maps:
        low, high = float(one.min()), float(one.max())
        out.append((one - low) / (high - low) if high > low else torch.zeros_like(one))
    return torch.stack(out)


def _to_unit_range_cases(g: torch.Generator) -> Iterator[Case]:
    b, h, w = sizes(g, (2, 4), (2, 5), (2, 5))
    maps = normal(g, b, h, w) * torch.arange(1, b + 1)[:, None, None] + 3
    yield Case("maps on different scales", (maps,), "over which axes are the smallest and the largest value taken?")
    yield Case("only negative values", (-maps.abs() - 1,), "start from 0 or from the smallest value?")
    flat = maps.clone()
    flat[0] = 2.5
    yield Case("a constant map", (flat,), "a map without differences shows nothing: make it 0, never NaN")
    yield Case("tiny differences", (maps * 1e-9,), "an epsilon added to the range changes maps on small scales")


QUESTIONS = (
    Question("class_map", _class_map, _class_map_cases),
    Question("grad_cam_map", _grad_cam_map, _grad_cam_cases),
    Question("energy_in_mask", _energy, _energy_cases),
    Question("centre_box", _centre_box, _centre_box_cases),
    Question("to_unit_range", _to_unit_range, _to_unit_range_cases),
    Choice(
        "reading",
        (
            "0.31 is below 0.5, so the network looks at the background.",
            "0.31 is twice the score of the random map and of the whole image, so the conclusion is proven: a network "
            "that had learnt nothing about digits would have got 0.15.",
            "The score says nothing about training before it is compared with the mask's area share, with a centre "
            "box and with an untrained network.",
            "Cubing a random map makes it look at the object, since its score changes.",
        ),
        right=2,
        hint="which of the statements needs no number that is missing from the table?",
    ),
)
