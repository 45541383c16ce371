"""The checks of the loss-based attention assignment against planted answers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from planted import assert_choice, assert_sound

from xai_course.checks import (
    check_cut_off,
    check_image_logits,
    check_lower_bound,
    check_patch_weights,
    check_total_loss,
    check_what_follows,
)


def shares(p, norm=lambda p: torch.linalg.vector_norm(p, dim=2), eps=0.0, detach=False):
    n = norm(p)
    n = n.detach() if detach else n
    total = n.sum(1, keepdim=True)
    uniform = torch.full_like(n, 1 / n.shape[1])
    return torch.where(total > 0, n / (total + eps).where(total > 0, torch.ones_like(total)), uniform)


def test_patch_weights(capsys):
    def by_image(p):
        rows = []
        for image in p:
            n = image.norm(dim=1)
            rows.append(n / n.sum() if n.sum() > 0 else n + 1 / len(n))
        return torch.stack(rows)

    wrong = {
        "softmax of lengths": lambda p: p.norm(dim=2).softmax(1),
        "squares": lambda p: shares(p, lambda p: p.square().sum(2)),
        "sum of sizes": lambda p: shares(p, lambda p: p.abs().sum(2)),
        "root of the sum": lambda p: shares(p, lambda p: p.square().sum(2).sqrt()),
        "over classes": lambda p: p.norm(dim=1) / p.norm(dim=1).sum(1, keepdim=True),
        "over the batch": lambda p: p.norm(dim=2) / p.norm(dim=2).sum(),
        "epsilon": lambda p: shares(p, eps=1e-8),
        "nan_to_num": lambda p: (p.norm(dim=2) / p.norm(dim=2).sum(1, keepdim=True)).nan_to_num(1 / p.shape[1]),
        "0/0": lambda p: p.norm(dim=2) / p.norm(dim=2).sum(1, keepdim=True),
        "detached": lambda p: shares(p, detach=True) + 0 * p.sum(2),
    }
    assert_sound(check_patch_weights, [shares, by_image], wrong, capsys)


def cut(a, xi, level=lambda a, xi: xi / a.shape[1]):
    kept = (a - level(a, xi)).clamp(min=0)
    total = kept.sum(1, keepdim=True)
    return torch.where(total > 1e-9, kept / total.clamp(min=1e-9), a)


def test_cut_off(capsys):
    def loop(a, xi):
        rows = []
        for row in a:
            kept = torch.relu(row - xi / len(row))
            rows.append(kept / kept.sum() if kept.sum() > 1e-9 else row)
        return torch.stack(rows)

    wrong = {
        "not renormalised": lambda a, xi: (a - xi / a.shape[1]).clamp(min=0),
        "hard cut": lambda a, xi: cut(a * (a > xi / a.shape[1]), 0.0) if xi < 1 else a,
        "threshold xi": lambda a, xi: cut(a, xi, lambda a, xi: xi),
        "threshold of the largest": lambda a, xi: cut(a, xi, lambda a, xi: xi * a.amax(1, keepdim=True)),
        "0/0": lambda a, xi: (k := (a - xi / a.shape[1]).clamp(min=0)) / k.sum(1, keepdim=True),
        "over the batch": lambda a, xi: (k := (a - xi / a.shape[1]).clamp(min=0)) / k.sum().clamp(min=1e-9),
        "zeros": lambda a, xi: (k := (a - xi / a.shape[1]).clamp(min=0)) / k.sum(1, keepdim=True).clamp(min=1e-9),
        "by the batch size": lambda a, xi: cut(a, xi, lambda a, xi: xi / (a.shape[0] + 1)),
    }
    assert_sound(check_cut_off, [cut, loop], wrong, capsys)


def test_image_logits(capsys):
    right = [
        lambda h, t, b, a: (a[:, :, None] * (h @ t + b)).sum(1),
        lambda h, t, b, a: torch.einsum("bm,bmc,ck->bk", a, h, t) + a.sum(1, keepdim=True) * b,
    ]
    wrong = {
        "bias per patch": lambda h, t, b, a: ((a[:, :, None] * h) @ t + b).sum(1),
        "bias once": lambda h, t, b, a: torch.einsum("bm,bmc,ck->bk", a, h, t) + b,
        "detached weights": lambda h, t, b, a: (a.detach()[:, :, None] * (h @ t + b)).sum(1),
        "no bias": lambda h, t, b, a: ((a[:, :, None] * h) @ t).sum(1),
        "mean": lambda h, t, b, a: (a[:, :, None] * (h @ t + b)).mean(1),
        "no weights": lambda h, t, b, a: (h @ t + b).mean(1),
        "best patch": lambda h, t, b, a: (h @ t + b)[torch.arange(len(h)), a.argmax(1)],
        "softmax of weights": lambda h, t, b, a: (a.softmax(1)[:, :, None] * (h @ t + b)).sum(1),
    }
    assert_sound(check_image_logits, right, wrong, capsys)


def patch_term(a, p, y, reduce=lambda t: t.sum(1).mean()):
    losses = F.cross_entropy(p.flatten(0, 1), y.repeat_interleave(p.shape[1]), reduction="none").view(a.shape)
    return reduce(a * losses)


def image_term(a, p, y):
    return F.cross_entropy((a[:, :, None] * p).sum(1), y)


def test_total_loss(capsys):
    def by_log_softmax(a, p, y, g):
        image = (a[:, :, None] * p).sum(1).log_softmax(1)
        patches = p.log_softmax(2).gather(2, y[:, None, None].expand(-1, p.shape[1], 1))[:, :, 0]
        return -(image.gather(1, y[:, None])[:, 0] + g * (a * patches).sum(1)).mean()

    wrong = {
        "mean over patches": lambda a, p, y, g: image_term(a, p, y) + g * patch_term(a, p, y, torch.mean),
        "sum over images": lambda a, p, y, g: image_term(a, p, y) + g * patch_term(a, p, y, torch.sum),
        "no weights": lambda a, p, y, g: image_term(a, p, y) + g * patch_term(torch.ones_like(a), p, y),
        "gamma on the image": lambda a, p, y, g: g * image_term(a, p, y) + patch_term(a, p, y),
        "no patch term": lambda a, p, y, g: image_term(a, p, y),
        "detached weights": lambda a, p, y, g: image_term(a, p, y) + g * patch_term(a.detach(), p, y),
        "mixed probabilities": lambda a, p, y, g: (
            F.nll_loss((a[:, :, None] * p.softmax(2)).sum(1).log(), y) + g * patch_term(a, p, y)
        ),
        "naive softmax": lambda a, p, y, g: (
            -((a[:, :, None] * p).sum(1).softmax(1).log()).gather(1, y[:, None]).mean() + g * patch_term(a, p, y)
        ),
    }
    right = [lambda a, p, y, g: image_term(a, p, y) + g * patch_term(a, p, y), by_log_softmax]
    assert_sound(check_total_loss, right, wrong, capsys)


def test_lower_bound(capsys):
    def true_probability(a, p, y):
        z = (a[:, :, None] * p).sum(1)
        return -torch.expm1(z.log_softmax(1).gather(1, y[:, None])[:, 0])

    def by_others(a, p, y):
        return (a[:, :, None] * p).sum(1).softmax(1).scatter(1, y[:, None], 0.0).sum(1)

    def products(a, p, y, skip=True):
        q = p.softmax(2)
        ratio = (q / q.gather(2, y[:, None, None].expand(-1, p.shape[1], 1))) ** a[:, :, None]
        r = ratio.prod(1)
        r = r.scatter(1, y[:, None], 0.0).sum(1) if skip else r.sum(1)
        return r / (1 + r)

    wrong = {
        "literal products": products,
        "all classes": lambda a, p, y: products(a, p, y, skip=False),
        "the probability": lambda a, p, y: 1 - true_probability(a, p, y),
        "the loss": lambda a, p, y: F.cross_entropy((a[:, :, None] * p).sum(1), y, reduction="none"),
        "mean of patches": lambda a, p, y: 1 - (a * p.softmax(2)[:, :, 0]).sum(1),
        "no weights": lambda a, p, y: by_others(torch.ones_like(a) / a.shape[1], p, y),
        "batch mean": lambda a, p, y: by_others(a, p, y).mean(),
        "ratio only": lambda a, p, y: torch.logsumexp((a[:, :, None] * p).sum(1).scatter(1, y[:, None], -9e9), 1).exp(),
    }
    assert_sound(check_lower_bound, [true_probability, by_others], wrong, capsys)


def test_what_follows(capsys):
    assert_choice(check_what_follows, capsys)
