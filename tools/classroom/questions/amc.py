"""Questions of the assignment on AMC-Loss. References are slow and literal on purpose."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from tools.classroom.questions import Case, Choice, Question, normal, sizes


def _unit(rows: Tensor) -> Tensor:
    return rows / rows.norm(dim=1, keepdim=True)


def _classes(g: torch.Generator, n: int, k: int = 3) -> Tensor:
    return torch.randint(0, k, (n,), generator=g)


# --- 1. the angle ----------------------------------------------------------------------------------------------------


def _angles(u: Tensor, v: Tensor) -> Tensor:
    return torch.stack([2 * torch.atan2((a - b).norm(), (a + b).norm()) for a, b in zip(u, v, strict=True)])


def _angles_cases(g: torch.Generator) -> Iterator[Case]:
    n, d = sizes(g, (2, 5), (3, 8))
    u = _unit(normal(g, n, d))
    yield Case("random directions", (u, _unit(normal(g, n, d))), "the angle lies in [0, pi], in radians")
    beside = u.roll(1, 1) - (u * u.roll(1, 1)).sum(1, keepdim=True) * u
    near = _unit(u + 1e-6 * beside)
    yield Case("angles of a millionth", (u, near), "what does arccos do to the last digit of a cosine close to 1?")
    yield Case("the same direction", (u, u.clone()), "rounding may lift a cosine above 1")
    yield Case("opposite directions", (u, -u), "both ends of the range need care")
    yield Case("almost opposite directions", (u, -near), "what does your formula do to the last digit close to pi?")


# --- 2. the loss of a pair -------------------------------------------------------------------------------------------


def _pair_loss(angles: Tensor, same: Tensor, margin: float) -> Tensor:
    losses = []
    for angle, alike in zip(angles, same, strict=True):
        losses.append(angle**2 if alike else torch.clamp(margin - angle, min=0) ** 2)
    return torch.stack(losses)


def _pair_loss_cases(g: torch.Generator) -> Iterator[Case]:
    (n,) = sizes(g, (6, 12))
    angles = torch.rand(n, generator=g, dtype=torch.float64) * math.pi
    same = torch.rand(n, generator=g) < 0.5
    margin = 0.3 + float(torch.rand((), generator=g))
    yield Case(
        "mixed pairs", (angles, same, margin), "which of the two formulas belongs to which pair?", gradients=(0,)
    )
    far = torch.zeros(n, dtype=torch.bool)
    yield Case("different classes, wide apart", (angles + margin, far, margin), "beyond the margin nothing is left")
    yield Case(
        "different classes, close together",
        (angles * margin / 4, far, margin),
        "the hinge is squared, and it is the margin minus the angle",
        gradients=(0,),
    )


# --- 3. a batch ------------------------------------------------------------------------------------------------------


def _half_batch_loss(features: Tensor, classes: Tensor, margin: float) -> Tensor:
    half = len(features) // 2
    if half == 0:
        return features.sum() * 0
    z = _unit(features)
    pairs = [(i, i + half) for i in range(half)]
    angles = torch.stack([_angles(z[i : i + 1], z[j : j + 1])[0] for i, j in pairs])
    return _pair_loss(angles, torch.tensor([bool(classes[i] == classes[j]) for i, j in pairs]), margin).mean()


def _half_batch_cases(g: torch.Generator) -> Iterator[Case]:
    (d,) = sizes(g, (3, 6))
    for name, n, hint in (
        ("an even batch", 8, "row i meets row i + n/2"),
        ("an odd batch", 7, "the last row has no partner: leave it out, and let no row meet itself"),
        ("two rows", 2, "one pair"),
        ("one row", 1, "no pair: the loss is 0 and its gradient too"),
    ):
        features = normal(g, n, d) * torch.arange(1, n + 1)[:, None]
        yield Case(name, (features, _classes(g, n, 2), 2.5), hint, gradients=(0,))


# --- 4. the gradient by hand -----------------------------------------------------------------------------------------


def _positive_gradient(x: Tensor, y: Tensor) -> Tensor:
    x = x.detach().requires_grad_()
    loss = (_angles(_unit(x), _unit(y)) ** 2).sum()
    return torch.autograd.grad(loss, x)[0]


def _positive_gradient_cases(g: torch.Generator) -> Iterator[Case]:
    n, d = sizes(g, (2, 4), (3, 6))
    x, y = normal(g, n, d), normal(g, n, d)
    yield Case("unit rows", (_unit(x), _unit(y)), "which way does a row turn to come closer to its partner?")
    yield Case("long and short rows", (x * 10, y * 0.1), "a row of twice the length turns half as fast")
    yield Case("parallel rows", (x, 2 * x), "an angle of 0 and its sine: 0/0, and nothing is left to turn")
    yield Case("wide angles", (x, y - 3 * x), "1/sin is part of it: check the size at an angle above pi/2")


# --- 5. mend the ramp ------------------------------------------------------------------------------------------------


def _ramp(epoch: float, length: float, peak: float) -> float:
    return peak if epoch >= length else peak * math.exp(-5 * (1 - epoch / length) ** 2)


def _ramp_cases(g: torch.Generator) -> Iterator[Case]:
    (length,) = sizes(g, (20, 90))
    peak = 0.1 + float(torch.rand((), generator=g))
    for name, epoch, hint in (
        ("the first epoch", 0, "not 0: the curve starts at exp(-5) of its peak"),
        ("half-way up", length / 2, "what stands inside the square?"),
        ("at the end of the ramp", length, "from here on the weight stays at its peak"),
        ("long after", 3 * length, "the square must not bring the weight down again"),
    ):
        yield Case(name, (epoch, length, peak), hint)
    yield Case("no ramp at all", (0, 0, peak), "a ramp of length 0 is over at once")


QUESTIONS = (
    Question("angles", _angles, _angles_cases, tolerance=1e-12, double=True),
    Question("pair_loss", _pair_loss, _pair_loss_cases),
    Question("half_batch_loss", _half_batch_loss, _half_batch_cases),
    Question("positive_gradient", _positive_gradient, _positive_gradient_cases, autograd=False),
    Question("ramp", _ramp, _ramp_cases),
    Choice(
        "weight",
        (
            "30 times",
            "60 times",
            "15 times",
            "they are equal: the ramp is only a schedule",
        ),
        right=1,
        hint="write both losses out as numbers in front of the same mean.",
    ),
)
