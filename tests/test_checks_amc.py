"""The checks of the AMC assignment against planted answers."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from planted import assert_choice, assert_sound, marked

from xai_course.checks import (
    check_angles,
    check_half_batch_loss,
    check_pair_loss,
    check_positive_gradient,
    check_ramp,
    check_weight,
)
from xai_course.methods import amc


def cosine(u, v):
    return (u * v).sum(1)


def test_angles(capsys):
    right = [
        lambda u, v: 2 * torch.atan2((u - v).norm(dim=1), (u + v).norm(dim=1)),
        lambda u, v: torch.where(
            cosine(u, v) > 0,
            2 * torch.asin(((u - v).norm(dim=1) / 2).clamp(max=1)),
            math.pi - 2 * torch.asin(((u + v).norm(dim=1) / 2).clamp(max=1)),
        ),
    ]
    wrong = {
        "arccos": lambda u, v: torch.arccos(cosine(u, v)),
        "clamped arccos": lambda u, v: torch.arccos(cosine(u, v).clamp(-1 + 1e-7, 1 - 1e-7)),
        "asin": lambda u, v: 2 * torch.asin(((u - v).norm(dim=1) / 2).clamp(max=1)),
        "single": lambda u, v: 2 * torch.atan2((u - v).norm(dim=1), (u + v).norm(dim=1)).float(),
        "clamped to one": lambda u, v: torch.arccos(cosine(u, v).clamp(-1, 1)),
        "chord": lambda u, v: (u - v).norm(dim=1),
        "half": lambda u, v: torch.atan2((u - v).norm(dim=1), (u + v).norm(dim=1)),
        "degrees": lambda u, v: torch.rad2deg(2 * torch.atan2((u - v).norm(dim=1), (u + v).norm(dim=1))),
        "cosine": cosine,
        "over the batch": lambda u, v: 2 * torch.atan2((u - v).norm(dim=0), (u + v).norm(dim=0)),
    }
    assert_sound(check_angles, right, wrong, capsys)


def test_pair_loss(capsys):
    right = [
        lambda t, s, m: torch.where(s, t**2, (m - t).clamp(min=0) ** 2),
        lambda t, s, m: s * t**2 + (~s) * F.relu(m - t).square(),
    ]
    wrong = {
        "swapped": lambda t, s, m: torch.where(s, (m - t).clamp(min=0) ** 2, t**2),
        "no hinge": lambda t, s, m: torch.where(s, t**2, (m - t) ** 2),
        "not squared": lambda t, s, m: torch.where(s, t, (m - t).clamp(min=0)),
        "squares inside": lambda t, s, m: torch.where(s, t**2, (m**2 - t**2).clamp(min=0)),
        "mean": lambda t, s, m: torch.where(s, t**2, (m - t).clamp(min=0) ** 2).mean(),
        "detached": lambda t, s, m: torch.where(s, t.detach() ** 2, (m - t.detach()).clamp(min=0) ** 2),
        "sign of the hinge": lambda t, s, m: torch.where(s, t**2, (t - m).clamp(min=0) ** 2),
        "half": lambda t, s, m: torch.where(s, t**2, (m - t).clamp(min=0) ** 2) / 2,
    }
    assert_sound(check_pair_loss, right, wrong, capsys)


def batch_loss(x, c, m, first=None, second=None, reduce=torch.mean):
    h = len(x) // 2
    if h == 0:
        return 0 * x.sum()
    first = slice(0, h) if first is None else first(len(x))
    second = slice(h, 2 * h) if second is None else second(len(x))
    z = F.normalize(x, dim=1)
    return reduce(amc.amc_pair_loss(z[first], z[second], c[first] == c[second], m))


def test_half_batch_loss(capsys):
    def loop(x, c, m):
        h, total = len(x) // 2, x.sum() * 0
        for i in range(h):
            u, v = x[i] / x[i].norm(), x[i + h] / x[i + h].norm()
            t = 2 * torch.atan2((u - v).norm(), (u + v).norm())
            total = total + (t**2 if c[i] == c[i + h] else (m - t).clamp(min=0) ** 2) / h
        return total

    def everyone(x, c, m):
        i, j = torch.triu_indices(len(x), len(x), 1)
        return batch_loss(x, c, m, lambda n: i, lambda n: j) if len(i) else 0 * x.sum()

    wrong = {
        "sum": lambda x, c, m: batch_loss(x, c, m, reduce=torch.sum),
        "divided by the batch": lambda x, c, m: batch_loss(x, c, m, reduce=torch.sum) / len(x),
        "neighbours": lambda x, c, m: batch_loss(
            x, c, m, lambda n: slice(0, n // 2 * 2, 2), lambda n: slice(1, n // 2 * 2, 2)
        ),
        "all pairs": everyone,
        "last rows": lambda x, c, m: batch_loss(x, c, m, None, lambda n: slice(n - n // 2, n)),
        "not normalised": lambda x, c, m: (x[: len(x) // 2] - x[len(x) // 2 : len(x) // 2 * 2]).square().sum(1).mean(),
        "all the same class": lambda x, c, m: batch_loss(x, torch.zeros_like(c), m),
        "detached norm": lambda x, c, m: batch_loss(x.detach() + 0 * x, c, m),
        "nan on one row": lambda x, c, m: (
            batch_loss(x, c, m) if len(x) > 1 else amc.amc_pair_loss(x[:0], x[:0], c[:0] == 0, m).mean()
        ),
    }
    right = [batch_loss, loop]
    assert_sound(check_half_batch_loss, right, wrong, capsys)


def gradient(x, y, factor=lambda t, r: 2 * t / (r * torch.sin(t)), project=True, sign=-1.0):
    r = x.norm(dim=1, keepdim=True)
    u, v = x / r, F.normalize(y, dim=1)
    c = (u * v).sum(1, keepdim=True)
    t = 2 * torch.atan2((u - v).norm(dim=1, keepdim=True), (u + v).norm(dim=1, keepdim=True)).clamp(min=1e-300)
    return sign * factor(t, r) * (v - c * u if project else v)


def test_positive_gradient(capsys):
    def loop(x, y):
        rows = []
        for a, b in zip(x, y):
            u, v = a / a.norm(), b / b.norm()
            t = 2 * torch.atan2((u - v).norm(), (u + v).norm())
            rows.append(-2 / a.norm() * (t / torch.sin(t) if t > 0 else 1) * (v - (u @ v) * u))
        return torch.stack(rows)

    def by_autograd(x, y):
        x = x.detach().requires_grad_()
        u, v = F.normalize(x, dim=1), F.normalize(y, dim=1)
        t = 2 * torch.atan2((u - v).norm(dim=1), (u + v).norm(dim=1))
        return torch.autograd.grad(t.square().sum(), x)[0]

    assert not check_positive_gradient(by_autograd)
    assert "autograd is off here" in capsys.readouterr().out and marked("positive_gradient", by_autograd)
    wrong = {
        "ascent": lambda x, y: gradient(x, y, sign=1.0),
        "no length": lambda x, y: gradient(x, y, lambda t, r: 2 * t / torch.sin(t)),
        "length squared": lambda x, y: gradient(x, y, lambda t, r: 2 * t / (r * r * torch.sin(t))),
        "no sine": lambda x, y: gradient(x, y, lambda t, r: 2 * t / r),
        "0/0": lambda x, y: gradient(
            x, y, lambda t, r: 2 * t.where(t > 1e-200, t * 0) / (r * torch.sin(t * (t > 1e-200)))
        ),
        "no two": lambda x, y: gradient(x, y, lambda t, r: t / (r * torch.sin(t))),
        "not tangent": lambda x, y: gradient(x, y, project=False),
        "with respect to y": lambda x, y: gradient(y, x),
        "of the angle": lambda x, y: gradient(x, y, lambda t, r: 1 / (r * torch.sin(t))),
    }
    assert_sound(check_positive_gradient, [gradient, loop], wrong, capsys)


def test_ramp(capsys):
    def other(epoch, length, peak):
        left = max(0.0, 1 - epoch / length) if length else 0.0
        return peak * math.e ** (-5 * left * left)

    right = [lambda t, n, p: p if t >= n else p * math.exp(-5 * (1 - t / n) ** 2), other]
    wrong = {
        "down again": lambda t, n, p: p * math.exp(-5 * (1 - t / n) ** 2) if n else p,
        "not squared": lambda t, n, p: p if t >= n else p * math.exp(-5 * (1 - t / n)),
        "square of the ratio": lambda t, n, p: p if t >= n else p * math.exp(-5 * (1 - (t / n) ** 2)),
        "linear": lambda t, n, p: p if t >= n else p * t / n,
        "no peak": lambda t, n, p: 1.0 if t >= n else math.exp(-5 * (1 - t / n) ** 2),
        "from zero": lambda t, n, p: p if t >= n else p * math.exp(-5 * (1 - t / n) ** 2) * (t > 0),
        "of the length": lambda t, n, p: p if t >= n else p * math.exp(-5 * (n - t) ** 2),
        "peak too early": lambda t, n, p: p if t >= n / 2 else p * math.exp(-5 * (1 - t / n) ** 2),
    }
    assert_sound(check_ramp, right, wrong, capsys)


def test_weight(capsys):
    assert_choice(check_weight, capsys)
