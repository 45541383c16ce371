"""Questions of the assignment on loss-based attention. References are slow and literal on purpose."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from tools.classroom.questions import Case, Choice, Question, normal, sizes


def _patches(g: torch.Generator) -> Tensor:
    """Patch logits [B, M, K]."""
    return normal(g, *sizes(g, (2, 4), (3, 6), (3, 5)))


def _share(g: torch.Generator, b: int, m: int) -> Tensor:
    weights = torch.rand(b, m, generator=g, dtype=torch.float64) + 0.05
    return weights / weights.sum(1, keepdim=True)


# --- 1. weights without parameters -----------------------------------------------------------------------------------


def _patch_weights(logits: Tensor) -> Tensor:
    rows = []
    for image in logits:
        lengths = [float(torch.linalg.vector_norm(patch.detach())) for patch in image]
        if sum(lengths) == 0:
            rows.append(image.sum(1) * 0 + 1 / len(image))
        else:
            norms = torch.stack([torch.linalg.vector_norm(patch) for patch in image])
            rows.append(norms / norms.sum())
    return torch.stack(rows)


def _patch_weights_cases(g: torch.Generator) -> Iterator[Case]:
    logits = _patches(g)
    yield Case("random logits", (logits,), "a patch's weight is its share of all lengths of its image", (0,))
    dead = logits.clone()
    dead[0, 1] = 0
    yield Case("one silent patch", (dead,), "sqrt has no slope at 0: use a norm whose gradient there is 0", (0,))
    silent = logits.clone()
    silent[0] = 0
    yield Case("nothing but silent patches", (silent,), "0/0: if no patch speaks, all weigh the same", (0,))
    yield Case("a millionth of the scale", (logits * 1e-6,), "an epsilon changes small logits; shares have no scale")


# --- 2. cutting off --------------------------------------------------------------------------------------------------


def _cut_off(weights: Tensor, cutoff: float) -> Tensor:
    rows = []
    for row in weights:
        kept = [max(float(a) - cutoff / len(row), 0.0) for a in row]
        rows.append(torch.tensor(kept, dtype=torch.float64) / sum(kept) if sum(kept) > 1e-12 else row.clone())
    return torch.stack(rows)


def _cut_off_cases(g: torch.Generator) -> Iterator[Case]:
    b, m = sizes(g, (2, 4), (4, 9))
    weights = _share(g, b, m)
    for cutoff in (0.5, 0.9):
        yield Case(f"cut-off {cutoff}", (weights, cutoff), "subtract xi/M first, then make the rest add up to 1")
    yield Case("no cut-off", (weights, 0.0), "with xi = 0 nothing changes")
    yield Case("everything cut", (torch.full((b, m), 1 / m, dtype=torch.float64), 1.0), "xi = 1: return the weights")


# --- 3. one classifier, one bias -------------------------------------------------------------------------------------


def _image_logits(features: Tensor, theta: Tensor, bias: Tensor, weights: Tensor) -> Tensor:
    return torch.stack([sum(a * (h @ theta + bias) for a, h in zip(w, f)) for w, f in zip(weights, features)])


def _image_logits_cases(g: torch.Generator) -> Iterator[Case]:
    b, m, c, k = sizes(g, (2, 3), (3, 6), (2, 4), (3, 5))
    features, theta, bias = normal(g, b, m, c), normal(g, c, k), 3 + normal(g, k)
    yield Case("random", (features, theta, bias, _share(g, b, m)), "how often is the bias counted?", (0, 1, 2, 3))
    more = torch.rand(b, m, generator=g, dtype=torch.float64)
    yield Case("weights of any sum", (features, theta, bias, more), "the bias stands inside the sum", (3,))
    one = torch.zeros(b, m, dtype=torch.float64)
    one[:, 0] = 1
    yield Case("one patch has all", (features, theta, bias, one), "then the image's logits are that patch's")


# --- 4. the loss -----------------------------------------------------------------------------------------------------


def _total_loss(weights: Tensor, logits: Tensor, labels: Tensor, gamma: float) -> Tensor:
    total = logits.sum() * 0
    for w, patches, label in zip(weights, logits, labels, strict=True):
        image = sum(a * p for a, p in zip(w, patches))
        total = total + torch.logsumexp(image, 0) - image[label]
        for a, p in zip(w, patches):
            total = total + gamma * a * (torch.logsumexp(p, 0) - p[label])
    return total / len(logits)


def _total_loss_cases(g: torch.Generator) -> Iterator[Case]:
    logits = _patches(g)
    b, m, k = logits.shape
    labels = torch.randint(0, k, (b,), generator=g)
    weights = _share(g, b, m)
    yield Case("gamma 0", (weights, logits, labels, 0.0), "mix the logits first, then take the cross-entropy", (0, 1))
    yield Case("gamma 0.3", (weights, logits, labels, 0.3), "sum over patches, mean over images", (0, 1))
    yield Case("large logits", (weights, logits * 500, labels, 0.3), "exp overflows: stay with log-softmax", (1,))


# --- 5. what Proposition 1 says --------------------------------------------------------------------------------------


def _lower_bound(weights: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    values = []
    for w, patches, label in zip(weights, logits, labels, strict=True):
        image = sum(a * p for a, p in zip(w, patches))
        others = torch.cat([image[:label], image[label + 1 :]])
        values.append(torch.sigmoid(torch.logsumexp(others - image[label], 0)))
    return torch.stack(values)


def _lower_bound_cases(g: torch.Generator) -> Iterator[Case]:
    logits = _patches(g)
    b, m, k = logits.shape
    labels = torch.randint(0, k, (b,), generator=g)
    yield Case("random logits", (_share(g, b, m), logits, labels), "the sum runs over the other classes only")
    yield Case("logits of thousands", (_share(g, b, m), logits * 3000, labels), "do not form the products: simplify")


QUESTIONS = (
    Question("patch_weights", _patch_weights, _patch_weights_cases),
    Question("cut_off", _cut_off, _cut_off_cases),
    Question("image_logits", _image_logits, _image_logits_cases),
    Question("total_loss", _total_loss, _total_loss_cases),
    Question("lower_bound", _lower_bound, _lower_bound_cases),
    Choice(
        "what_follows",
        (
            "At least one patch with positive weight predicts the image's class.",
            "The patch with the largest weight predicts the image's class, as its logits have the largest share there.",
            "None of the others: with three or more classes the mixture can be sure of a class that no patch predicts.",
            "Every patch with positive weight predicts the image's class.",
        ),
        right=2,
        hint="three patches of three classes can outvote themselves into a fourth.",
    ),
)
