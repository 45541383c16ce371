"""Questions of the assignment on Min-Max entropy. References are slow and literal on purpose."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from tools.classroom.questions import Case, Choice, Question, normal, sizes
from xai_course.checks import Small

# --- 1. undecided ----------------------------------------------------------------------------------------------------


def _undecided(logits: Tensor) -> Tensor:
    total = logits.sum() * 0
    for row in logits:
        total = total + torch.logsumexp(row, 0) - row.mean()
    return total / len(logits)


def _undecided_cases(g: torch.Generator) -> Iterator[Case]:
    logits = normal(g, *sizes(g, (2, 5), (3, 6)))
    yield Case("random logits", (logits,), "cross-entropy against 1/c for every class, mean over images", (0,))
    yield Case("equal logits", (torch.zeros_like(logits),), "its smallest value is log c, not 0", (0,))
    yield Case("a gap of two thousand", (logits * 1000,), "log(softmax) is -inf there: use log-softmax", (0,))


# --- 2. the mask -----------------------------------------------------------------------------------------------------


def _soft_mask(maps: Tensor, logits: Tensor, omega: float, sigma: float) -> Tensor:
    masks = []
    for image, scores in zip(maps, logits, strict=True):
        mixed = sum(p * one for p, one in zip(scores.softmax(0), image))
        low, high = mixed.min(), mixed.max()
        unit = (mixed - low) / (high - low) if high > low else mixed * 0
        masks.append(torch.sigmoid(omega * (unit - sigma)))
    return torch.stack(masks)


def _soft_mask_cases(g: torch.Generator) -> Iterator[Case]:
    b, c, h, w = sizes(g, (2, 4), (2, 4), (3, 5), (3, 5))
    maps, logits = normal(g, b, c, h, w), normal(g, b, c)
    yield Case("random maps", (maps, logits, 8.0, 0.5), "probabilities weigh the maps; each image has its own range")
    yield Case(
        "maps of different scale",
        (maps * torch.arange(1, b + 1)[:, None, None, None], logits, 8.0, 0.5),
        "min and max per image",
    )
    yield Case("other slope and threshold", (maps, logits, 3.0, 0.2), "omega (T - sigma): where do the brackets stand?")
    yield Case("maps of a billionth", (maps * 1e-9, logits, 8.0, 0.5), "an epsilon in the range changes weak maps")
    flat = maps.clone()
    flat[0] = 1.0
    yield Case("a flat map", (flat, logits, 8.0, 0.5), "0/0: a map without differences becomes 0 before the sigmoid")


# --- 3. trust --------------------------------------------------------------------------------------------------------


def _trust(logits: Tensor, labels: Tensor, first: Tensor, alive: Tensor, step: int, sigma: float) -> Tensor:
    values = []
    for row, label, limit, was_alive in zip(logits, labels, first, alive, strict=True):
        loss = float(torch.logsumexp(row, 0) - row[label])
        good = bool(was_alive) and int(row.argmax()) == int(label) and loss <= float(limit)
        values.append(math.exp(-step / sigma) * math.exp(-loss) if good else 0.0)
    return torch.tensor(values, dtype=torch.float64)


def _trust_cases(g: torch.Generator) -> Iterator[Case]:
    b, c = sizes(g, (5, 8), (3, 5))
    logits = 2 * normal(g, b, c)
    labels = logits.argmax(1)
    loss = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    high, alive = loss + 1, torch.ones(b, dtype=torch.bool)
    yield Case(
        "all sound", (logits, labels, high, alive, 0, 10.0), "at step 0 the trust is the probability of the label"
    )
    yield Case("later", (logits, labels, high, alive, 3, 10.0), "exp(-t / sigma)")
    yield Case("less sure than at first", (logits, labels, loss - 1e-5, alive, 1, 10.0), "the loss must not have grown")
    certain = 1000 * torch.nn.functional.one_hot(labels, c).double()  # a loss of 0, however it is computed
    yield Case("as sure as at first", (certain, labels, loss * 0, alive, 1, 10.0), "equal is allowed")
    wrong = (labels + 1) % c
    yield Case("wrong answers", (logits, wrong, high + 99, alive, 1, 10.0), "a wrong answer is not trusted at all")
    lost = alive.clone()
    lost[::2] = False
    yield Case("lost before", (logits, labels, high, lost, 2, 10.0), "trust once lost does not come back")


# --- 4. a control ----------------------------------------------------------------------------------------------------


def _all_ones_f1(masks: Tensor) -> float:
    scores = []
    for mask in masks:
        inside, everything = float(mask.sum()), mask.numel()
        scores.append(2 * inside / (everything + inside))
    return sum(scores) / len(scores)


def _all_ones_cases(g: torch.Generator) -> Iterator[Case]:
    b, h, w = sizes(g, (3, 5), (3, 6), (3, 6))
    shares = torch.linspace(0.1, 0.9, b)[:, None, None]
    masks = torch.rand(b, h, w, generator=g) < shares
    masks[:, 0, 0] = True
    yield Case("objects of many sizes", (masks,), "score image by image, then average")
    yield Case("the object fills the image", (torch.ones_like(masks),), "then the all-ones mask is perfect")


# --- 5. mend the accumulation ----------------------------------------------------------------------------------------


def _accumulated(losses: Sequence[Small], weights: Tensor) -> Tensor:
    weights = weights.detach().clone().requires_grad_()
    return torch.autograd.grad(sum((loss(weights) for loss in losses), weights.new_zeros(())), weights)[0]


def _accumulated_cases(g: torch.Generator) -> Iterator[Case]:
    n, d = sizes(g, (3, 5), (2, 5))
    targets = normal(g, n, d)
    losses = [Small("scaled distance", target=t, scale=i + 1) for i, t in enumerate(targets)]
    weights = normal(g, d)
    yield Case("several losses", (losses, weights), "does every backward pass add to the gradient, or replace it?")
    yield Case("one loss", (losses[:1], weights), "with one loss it is that loss's gradient")
    others = [Small("sum of cubes"), Small("product")]
    yield Case("losses of another kind", (others, weights), "the gradient of a sum is the sum of the gradients")


QUESTIONS = (
    Question("undecided", _undecided, _undecided_cases),
    Question("soft_mask", _soft_mask, _soft_mask_cases),
    Question("trust", _trust, _trust_cases),
    Question("all_ones_f1", _all_ones_f1, _all_ones_cases),
    Question("accumulated", _accumulated, _accumulated_cases, each=True),
    Choice(
        "who_learns",
        (
            "The backbone and the classifier's own head; nothing that belongs to the localiser alone.",
            "Everything, the localiser's head included: the loss depends on the mask, and the mask on that head.",
            "The localiser's head only, since it makes the mask.",
            "Nothing: the detach stops the gradient.",
        ),
        right=0,
        hint="follow the gradient of the entropy backwards until you meet the detach.",
    ),
)
