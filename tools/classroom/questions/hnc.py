"""Questions of the assignment on HNC. References are slow and literal on purpose."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from tools.classroom.questions import Case, Choice, Question, normal, sizes

# --- 1. which negatives ----------------------------------------------------------------------------------------------


def _hardest_negatives(logits: Tensor, labels: Tensor, k: int) -> Tensor:
    rows = []
    for scores, label in zip(logits.tolist(), labels.tolist(), strict=True):
        negatives = sorted((o for o in range(len(scores)) if o != label), key=lambda o: -scores[o])
        rows.append(negatives[:k])
    return torch.tensor(rows)


def _hardest_negatives_cases(g: torch.Generator) -> Iterator[Case]:
    b, n = sizes(g, (3, 6), (5, 9))
    (k,) = sizes(g, (2, 3))
    logits = normal(g, b, n)
    labels = torch.randint(0, n, (b,), generator=g)
    yield Case("any labels", (logits, labels, k), "the label itself is never a negative")
    yield Case("the label wins", (logits, logits.argmax(1), k), "without the label, which is the largest score?")
    yield Case("the label loses", (logits, logits.argmin(1), k), "dropping the largest score is not dropping the label")
    yield Case("all scores negative", (-logits.abs() - 1, labels, k), "which value keeps a class from being chosen?")
    yield Case(
        "below any number you could think of", (logits * 1e13 - 1e15, labels, k), "is your mark really the smallest?"
    )
    yield Case("every negative", (logits, labels, n - 1), "n - 1 negatives exist, in the order of their scores")


# --- 2. the divergence penalty ---------------------------------------------------------------------------------------


def _kd_penalty(maps: Tensor) -> Tensor:
    total = maps.sum() * 0
    for image in maps:
        for one in image:
            flat = one.flatten()
            peak = flat.detach().max()
            total = total + (flat - peak).exp().sum().log() + peak - flat.mean()
    return total / len(maps)


def _maps(g: torch.Generator) -> Tensor:
    return normal(g, *sizes(g, (2, 4), (2, 4), (2, 4), (3, 5)))


def _kd_penalty_cases(g: torch.Generator) -> Iterator[Case]:
    maps = _maps(g)
    yield Case("random maps", (maps,), "sum over classes, mean over images; over which cells is the softmax?", (0,))
    yield Case("constant maps", (torch.ones_like(maps),), "a uniform map does not have the loss 0: what is its floor?")
    yield Case("activations of ten thousand", (maps * 1e4,), "exp overflows: take the log of the sum another way", (0,))
    yield Case("one image, one class", (maps[:1, :1],), "the reductions must not depend on there being several", (0,))


# --- 3. its gradient by hand -----------------------------------------------------------------------------------------


def _kd_gradient(maps: Tensor) -> Tensor:
    maps = maps.detach().requires_grad_()
    return torch.autograd.grad(len(maps) * _kd_penalty(maps), maps)[0]


def _kd_gradient_cases(g: torch.Generator) -> Iterator[Case]:
    maps = _maps(g)
    yield Case("random maps", (maps,), "two terms: one from the log-sum-exp, one from the mean")
    yield Case("a constant map", (torch.zeros_like(maps),), "a uniform map is the minimum")
    peak = torch.zeros_like(maps)
    peak[..., 0, 0] = 30
    yield Case("one peak", (peak,), "the cells of one map have gradients that add up to 0")


# --- 4. a control: half of the other penalty ------------------------------------------------------------------------


def _shape_only(maps: Tensor) -> Tensor:
    total = maps.sum() * 0
    for image in maps:
        for one in image:
            total = total + ((one - one.mean()) ** 2).mean()
    return total / len(maps)


def _shape_only_cases(g: torch.Generator) -> Iterator[Case]:
    maps = _maps(g)
    yield Case("random maps", (maps,), "mean square = what you return + squared logit", (0,))
    yield Case("a shifted map", (maps + 7,), "the level of a map must not count", (0,))
    yield Case("two cells", (maps[:, :, :1, :2],), "divide by the number of cells, not by one less")


# --- 5. mend the weighted sigmoid cross-entropy ----------------------------------------------------------------------


def _weighted_sigmoid(logits: Tensor, targets: Tensor, rate: Tensor) -> Tensor:
    total = logits.sum() * 0
    for scores, answers in zip(logits, targets, strict=True):
        for s, y, p in zip(scores, answers, rate, strict=True):
            total = total + (torch.exp(1 - p) * F.softplus(-s) if y > 0.5 else torch.exp(p) * F.softplus(s))
    return total / logits.numel()


def _weighted_sigmoid_cases(g: torch.Generator) -> Iterator[Case]:
    b, n = sizes(g, (2, 4), (3, 6))
    logits, rate = normal(g, b, n), torch.rand(n, generator=g, dtype=torch.float64)
    targets = (torch.rand(b, n, generator=g) < 0.4).double()
    yield Case("random logits", (logits, targets, rate), "rare classes weigh more where they are present", (0,))
    yield Case("confident and wrong", (logits * 1000, targets, rate), "log(sigmoid(-800)) is not -inf", (0,))
    yield Case("no positive", (logits, torch.zeros_like(targets), rate), "negatives weigh exp(p)", (0,))


QUESTIONS = (
    Question("hardest_negatives", _hardest_negatives, _hardest_negatives_cases),
    Question("kd_penalty", _kd_penalty, _kd_penalty_cases),
    Question("kd_gradient", _kd_gradient, _kd_gradient_cases, autograd=False),
    Question("shape_only", _shape_only, _shape_only_cases),
    Question("weighted_sigmoid", _weighted_sigmoid, _weighted_sigmoid_cases),
    Choice(
        "units",
        (
            "0.012: the weight does not depend on the reduction",
            "0.0006",
            "0.12",
            "0.24",
        ),
        right=3,
        hint="write both penalties as (weight) x (sum over the k maps).",
    ),
)
