"""The checks of the HNC assignment against planted answers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from planted import assert_choice, assert_sound

from xai_course.checks import (
    check_hardest_negatives,
    check_kd_gradient,
    check_kd_penalty,
    check_shape_only,
    check_units,
    check_weighted_sigmoid,
)


def masked(logits, labels, k, value=float("-inf"), **options):
    return logits.scatter(1, labels[:, None], value).topk(k, dim=1, **options).indices


def test_hardest_negatives(capsys):
    def by_sorting(logits, labels, k):
        order = logits.argsort(dim=1, descending=True)
        return order[order != labels[:, None]].reshape(len(logits), -1)[:, :k]

    wrong = {
        "with the label": lambda z, y, k: z.topk(k, dim=1).indices,
        "label set to 0": lambda z, y, k: masked(z, y, k, 0.0),
        "a small number": lambda z, y, k: masked(z, y, k, -1e9),
        "the easiest": lambda z, y, k: masked(z, y, k, float("inf"), largest=False),
        "drops the best": lambda z, y, k: z.topk(min(k + 1, z.shape[1]), dim=1).indices[:, 1:],
        "one short": lambda z, y, k: masked(z, y, k - 1),
        "by size": lambda z, y, k: masked(z.abs(), y, k),
        "unsorted": lambda z, y, k: masked(z, y, k).sort(dim=1).values,
        "values": lambda z, y, k: z.scatter(1, y[:, None], float("-inf")).topk(k, dim=1).values,
        "over the batch": lambda z, y, k: masked(z, y[:1].expand(len(y)), k),
    }
    assert_sound(check_hardest_negatives, [masked, by_sorting], wrong, capsys)


def lse(maps, dims=(2, 3)):
    return torch.logsumexp(maps, dims) - maps.mean(dims)


def test_kd_penalty(capsys):
    right = [lambda m: lse(m).sum(1).mean(), lambda m: -F.log_softmax(m.flatten(2), 2).mean(2).sum(1).mean()]
    wrong = {
        "naive": lambda m: (m.exp().sum((2, 3)).log() - m.mean((2, 3))).sum(1).mean(),
        "log of softmax": lambda m: -(m.flatten(2).softmax(2).log().mean(2)).sum(1).mean(),
        "mean over classes": lambda m: lse(m).mean(),
        "sum over images": lambda m: lse(m).sum(),
        "floor taken off": lambda m: (lse(m) - torch.log(torch.tensor(m[0, 0].numel()))).sum(1).mean(),
        "softmax over classes": lambda m: (torch.logsumexp(m, 1) - m.mean(1)).mean((1, 2)).mean(),
        "sum over cells": lambda m: -F.log_softmax(m.flatten(2), 2).sum(2).sum(1).mean(),
        "row by row": lambda m: lse(m, (3,)).mean(2).sum(1).mean(),
        "sign": lambda m: -lse(m).sum(1).mean(),
        "entropy": lambda m: (m.flatten(2).softmax(2) * F.log_softmax(m.flatten(2), 2)).sum(2).sum(1).mean(),
        "detached mean": lambda m: (torch.logsumexp(m, (2, 3)) - m.detach().mean((2, 3))).sum(1).mean(),
    }
    assert_sound(check_kd_penalty, right, wrong, capsys)


def test_kd_gradient(capsys):
    def softmax(m):
        return m.flatten(2).softmax(2).view_as(m)

    def shifted(m):
        e = (m - m.amax((2, 3), keepdim=True)).exp()
        return e / e.sum((2, 3), keepdim=True) - 1 / (m.shape[2] * m.shape[3])

    wrong = {
        "no uniform part": softmax,
        "sign": lambda m: 1 / m[0, 0].numel() - softmax(m),
        "over rows": lambda m: m.softmax(3) - 1 / m.shape[3],
        "over the batch": lambda m: (softmax(m) - 1 / m[0, 0].numel()) / len(m),
        "classes counted as cells": lambda m: softmax(m) - 1 / m[0].numel(),
        "of the mean square": lambda m: 2 * m / m[0, 0].numel(),
        "scaled by the cells": lambda m: m[0, 0].numel() * softmax(m) - 1,
        "one": lambda m: softmax(m) - 1,
    }
    assert_sound(check_kd_gradient, [lambda m: softmax(m) - 1 / m[0, 0].numel(), shifted], wrong, capsys)


def test_shape_only(capsys):
    right = [
        lambda m: m.var((2, 3), unbiased=False).sum(1).mean(),
        lambda m: ((m * m).mean((2, 3)) - m.mean((2, 3)) ** 2).sum(1).mean(),
    ]
    wrong = {
        "one less": lambda m: m.var((2, 3)).sum(1).mean(),
        "deviation": lambda m: m.std((2, 3), unbiased=False).sum(1).mean(),
        "level only": lambda m: (m.mean((2, 3)) ** 2).sum(1).mean(),
        "both": lambda m: (m * m).mean((2, 3)).sum(1).mean(),
        "over classes": lambda m: m.var(1, unbiased=False).mean((1, 2)).mean(),
        "mean over classes": lambda m: m.var((2, 3), unbiased=False).mean(),
        "sum over cells": lambda m: (m - m.mean((2, 3), keepdim=True)).square().sum((1, 2, 3)).mean(),
        "one level for all": lambda m: (m - m.mean()).square().mean((2, 3)).sum(1).mean(),
        "detached": lambda m: m.detach().var((2, 3), unbiased=False).sum(1).mean() + 0 * m.sum(),
    }
    assert_sound(check_shape_only, right, wrong, capsys)


def weighted(z, y, p, positive=lambda p: torch.exp(1 - p), negative=torch.exp, reduce=torch.mean):
    weight = torch.where(y > 0.5, positive(p), negative(p))
    return reduce(weight * F.binary_cross_entropy_with_logits(z, y, reduction="none"))


def test_weighted_sigmoid(capsys):
    def by_softplus(z, y, p):
        return (y * torch.exp(1 - p) * F.softplus(-z) + (1 - y) * torch.exp(p) * F.softplus(z)).mean()

    def printed(z, y, p):
        s = torch.sigmoid(z)
        return -(y * torch.exp(1 - p) * s.log() + (1 - y) * torch.exp(p) * (1 - s).log()).mean()

    wrong = {
        "as printed": printed,
        "epsilon": lambda z, y, p: (
            -(
                y * torch.exp(1 - p) * (z.sigmoid() + 1e-8).log()
                + (1 - y) * torch.exp(p) * (1 - z.sigmoid() + 1e-8).log()
            ).mean()
        ),
        "weights swapped": lambda z, y, p: weighted(z, y, p, torch.exp, lambda p: torch.exp(1 - p)),
        "no weights": lambda z, y, p: F.binary_cross_entropy_with_logits(z, y),
        "one weight": lambda z, y, p: weighted(z, y, p, torch.exp),
        "sum": lambda z, y, p: weighted(z, y, p, reduce=torch.sum),
        "sum over classes": lambda z, y, p: weighted(z, y, p, reduce=lambda t: t.sum(1).mean()),
        "exp(-p)": lambda z, y, p: weighted(z, y, p, lambda p: torch.exp(-p)),
        "softmax": lambda z, y, p: -(y * torch.exp(1 - p) * z.log_softmax(1)).mean(),
    }
    assert_sound(check_weighted_sigmoid, [weighted, by_softplus], wrong, capsys)


def test_units(capsys):
    assert_choice(check_units, capsys)
