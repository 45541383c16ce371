"""Questions of the assignment on ReFF. References are slow and literal on purpose."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from tools.classroom.questions import Case, Choice, Question, normal, sizes
from xai_course.checks import Small


def _maps(g: torch.Generator) -> tuple[Tensor, Tensor]:
    b, h, w = sizes(g, (2, 4), (3, 6), (3, 6))
    return torch.rand(b, h, w, generator=g, dtype=torch.float64), torch.rand(b, h, w, generator=g, dtype=torch.float64)


def _unit_mass(maps: Tensor) -> Tensor:
    return torch.stack([one / one.sum() if float(one.detach().sum()) > 0 else one * 0 for one in maps])


# --- 1. shares -------------------------------------------------------------------------------------------------------


def _unit_mass_cases(g: torch.Generator) -> Iterator[Case]:
    maps, _ = _maps(g)
    yield Case("random maps", (maps,), "each map adds up to 1 on its own", (0,))
    yield Case("a billionth of the scale", (maps * 1e-9,), "an epsilon in the denominator changes weak maps")
    dead = maps.clone()
    dead[0] = 0
    yield Case("a map of zeros", (dead,), "a dead map stays 0, and so does its gradient", (0,))


# --- 2. the penalty --------------------------------------------------------------------------------------------------


def _outside_penalty(maps: Tensor, relevant: Tensor) -> Tensor:
    total = maps.sum() * 0
    for share, s in zip(_unit_mass(maps), relevant, strict=True):
        total = total + ((share * (1 - s)) ** 2).sum()
    return total / len(maps)


def _outside_cases(g: torch.Generator) -> Iterator[Case]:
    maps, soft = _maps(g)
    hard = (soft > 0.5).double()
    yield Case("hard regions", (maps, hard), "sum over pixels, mean over images", (0,))
    yield Case("soft regions", (maps, soft), "(1 - s) stands inside the square", (0,))
    yield Case("stronger maps", (maps * 7, hard), "the penalty does not know how strong a map is", (0,))
    yield Case("all inside", (maps, torch.ones_like(soft)), "inside the region nothing is asked", (0,))
    dead = maps.clone()
    dead[0] = 0
    yield Case("a map of zeros", (dead, hard), "0/0, in the value and in the gradient", (0,))


# --- 3. a map inside a loss ------------------------------------------------------------------------------------------


def _head(g: torch.Generator, d: int, h: int, w: int, k: int) -> Small:
    """A bent head, so that the map's own weights depend on the features."""
    return Small("tanh head", weight=normal(g, k, d), mix=1 + normal(g, d, h, w))


def _focus_loss(head, features: Tensor, classes: Tensor, relevant: Tensor) -> Tensor:
    if not features.requires_grad:
        features = features.detach().requires_grad_()
    score = sum(head(features)[i, c] for i, c in enumerate(classes))
    (gradient,) = torch.autograd.grad(score, features, create_graph=True)
    maps = torch.relu((gradient.mean(dim=(2, 3), keepdim=True) * features).sum(1))
    return _outside_penalty(maps, relevant)


def _focus_cases(g: torch.Generator) -> Iterator[Case]:
    b, d, h, w, k = sizes(g, (2, 3), (3, 5), (2, 3), (3, 4), (3, 4))
    features = normal(g, b, d, h, w)
    relevant = (torch.rand(b, h, w, generator=g) < 0.4).double()
    classes = torch.randint(0, k, (b,), generator=g)
    yield Case(
        "one image",
        (_head(g, d, h, w, k), features[:1], classes[:1], relevant[:1]),
        "Grad-CAM of the label's logit, then the penalty",
        (1,),
    )
    yield Case(
        "several images",
        (_head(g, d, h, w, k), features, classes, relevant),
        "the weights alpha depend on the network too: did you keep the graph of the first gradient?",
        (1,),
    )


# --- 4. our own variant ----------------------------------------------------------------------------------------------


def _outside_mass(maps: Tensor, relevant: Tensor) -> Tensor:
    total = maps.sum() * 0
    for share, s in zip(_unit_mass(maps), relevant, strict=True):
        total = total + (share * (1 - s)).sum()
    return total / len(maps)


# --- 5. an identity --------------------------------------------------------------------------------------------------


def _l1_distance(area: float, outside: float) -> float:
    return area - 1 + 2 * outside


def _l1_cases(g: torch.Generator) -> Iterator[Case]:
    for name, hint in (
        ("some region", "split the sum into inside and outside"),
        ("another", "inside, |I - 1| = 1 - I"),
    ):
        (area,) = sizes(g, (2, 40))
        yield Case(name, (float(area), float(torch.rand((), generator=g))), hint)
    yield Case("all mass inside", (9.0, 0.0), "what is left is the area minus the whole mass")


QUESTIONS = (
    Question("unit_mass", _unit_mass, _unit_mass_cases),
    Question("outside_penalty", _outside_penalty, _outside_cases),
    Question("focus_loss", _focus_loss, _focus_cases),
    Question("outside_mass", _outside_mass, _outside_cases),
    Question("l1_distance", _l1_distance, _l1_cases),
    Choice(
        "preference",
        (
            "Both penalties prefer the map with half its mass on the region.",
            "The squared penalty prefers the map that sees nothing but background; the linear one prefers the other.",
            "The linear penalty prefers the map that sees nothing but background; the squared one prefers the other.",
            "The two maps are equally good under both.",
        ),
        right=1,
        hint="compare the four printed numbers pair by pair.",
    ),
)
