"""The checks of the Min-Max entropy assignment against planted answers."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from planted import assert_choice, assert_sound

from xai_course.checks import (
    check_accumulated,
    check_all_ones_f1,
    check_soft_mask,
    check_trust,
    check_undecided,
    check_who_learns,
)


def test_undecided(capsys):
    right = [
        lambda z: -F.log_softmax(z, 1).mean(),
        lambda z: F.cross_entropy(z, torch.full_like(z.detach(), 1 / z.shape[1])),
    ]
    wrong = {
        "naive": lambda z: -z.softmax(1).log().mean(),
        "epsilon": lambda z: -(z.softmax(1) + 1e-8).log().mean(),
        "sum over classes": lambda z: -F.log_softmax(z, 1).sum(1).mean(),
        "sum over images": lambda z: -F.log_softmax(z, 1).mean(1).sum(),
        "entropy": lambda z: -(z.softmax(1) * F.log_softmax(z, 1)).sum(1).mean(),
        "divergence": lambda z: -F.log_softmax(z, 1).mean() - math.log(z.shape[1]),
        "sign": lambda z: F.log_softmax(z, 1).mean(),
        "over the batch": lambda z: -F.log_softmax(z, 0).mean(),
    }
    assert_sound(check_undecided, right, wrong, capsys)


def soft_mask(m, z, w, s, weights=lambda z: z.softmax(1), low=None, high=None):
    t = (weights(z)[:, :, None, None] * m).sum(1)
    lo = t.amin((1, 2), keepdim=True) if low is None else low(t)
    hi = t.amax((1, 2), keepdim=True) if high is None else high(t)
    unit = torch.where(hi > lo, (t - lo) / (hi - lo).where(hi > lo, torch.ones_like(hi)), torch.zeros_like(t))
    return torch.sigmoid(w * (unit - s))


def test_soft_mask(capsys):
    def loop(m, z, w, s):
        out = []
        for image, scores in zip(m, z.softmax(1)):
            t = torch.einsum("c,chw->hw", scores, image)
            t = (t - t.min()) / max(float(t.max() - t.min()), 1e-300)
            out.append(1 / (1 + torch.exp(-w * (t - s))))
        return torch.stack(out)

    wrong = {
        "not rescaled": lambda m, z, w, s: torch.sigmoid(w * ((z.softmax(1)[:, :, None, None] * m).sum(1) - s)),
        "batch range": lambda m, z, w, s: soft_mask(m, z, w, s, low=lambda t: t.min(), high=lambda t: t.max()),
        "logit weights": lambda m, z, w, s: soft_mask(m, z, w, s, lambda z: z),
        "sigmoid weights": lambda m, z, w, s: soft_mask(m, z, w, s, torch.sigmoid),
        "best class": lambda m, z, w, s: soft_mask(m, z, w, s, lambda z: F.one_hot(z.argmax(1), z.shape[1]).double()),
        "brackets": lambda m, z, w, s: soft_mask(m, z, w, s / w),
        "no threshold": lambda m, z, w, s: soft_mask(m, z, w, 0.0),
        "epsilon": lambda m, z, w, s: soft_mask(m, z, w, s, high=lambda t: t.amax((1, 2), keepdim=True) + 1e-8),
        "from zero": lambda m, z, w, s: soft_mask(m, z, w, s, low=lambda t: torch.zeros_like(t[:, :1, :1])),
        "upside down": lambda m, z, w, s: 1 - soft_mask(m, z, w, s),
        "hard": lambda m, z, w, s: (soft_mask(m, z, w, s) > 0.5).double(),
    }
    assert_sound(check_soft_mask, [soft_mask, loop], wrong, capsys)


def trust(z, y, first, alive, t, sigma, fade=None, sure=None, right=None, p=None):
    loss = F.cross_entropy(z, y, reduction="none")
    good = alive & (z.argmax(1) == y if right is None else right) & (loss <= first + 1e-12 if sure is None else sure)
    value = z.softmax(1).gather(1, y[:, None])[:, 0] if p is None else p
    return good * value * (math.exp(-t / sigma) if fade is None else fade)


def test_trust(capsys):
    def loop(z, y, first, alive, t, sigma):
        out = []
        for row, label, limit, on in zip(z, y, first, alive):
            p = row.softmax(0)[label]
            good = on and row.argmax() == label and -p.log() <= limit + 1e-9
            out.append(p * math.e ** (-t / sigma) if good else p * 0)
        return torch.stack(out)

    yes = torch.ones((), dtype=torch.bool)
    wrong = {
        "not sticky": lambda z, y, f, a, t, s: trust(z, y, f, yes, t, s),
        "wrong answers trusted": lambda z, y, f, a, t, s: trust(z, y, f, a, t, s, right=yes),
        "less sure trusted": lambda z, y, f, a, t, s: trust(z, y, f, a, t, s, sure=yes),
        "strictly surer": lambda z, y, f, a, t, s: trust(
            z, y, f, a, t, s, sure=F.cross_entropy(z, y, reduction="none") < f
        ),
        "with a slack": lambda z, y, f, a, t, s: trust(z, y, f + 0.009, a, t, s),
        "no decay": lambda z, y, f, a, t, s: trust(z, y, f, a, t, s, fade=1.0),
        "grows": lambda z, y, f, a, t, s: trust(z, y, f, a, t, s, fade=math.exp(t / s)),
        "one step late": lambda z, y, f, a, t, s: trust(z, y, f, a, t + 1, s),
        "hard trust": lambda z, y, f, a, t, s: trust(z, y, f, a, t, s, p=1.0),
        "reversed": lambda z, y, f, a, t, s: trust(z, y, f, a, t, s, sure=F.cross_entropy(z, y, reduction="none") >= f),
        "batch rule": lambda z, y, f, a, t, s: trust(z, y, f, a.all(), t, s),
    }
    assert_sound(check_trust, [trust, loop], wrong, capsys)


def test_all_ones_f1(capsys):
    def by_counts(masks):
        tp = masks.flatten(1).sum(1).double()
        fp = (~masks).flatten(1).sum(1).double()
        return float((2 * tp / (2 * tp + fp)).mean())

    area = lambda m: m.flatten(1).double().mean(1)  # noqa: E731
    wrong = {
        "area": lambda m: float(area(m).mean()),
        "pooled": lambda m: float(2 * area(m).mean() / (1 + area(m).mean())),
        "accuracy of zeros": lambda m: float(1 - area(m).mean()),
        "iou doubled": lambda m: float(2 * area(m).mean()),
        "precision and recall swapped": lambda m: float((2 * area(m) / (2 - area(m))).mean()),
        "harmonic of one and one": lambda m: 1.0,
        "sum": lambda m: float((2 * area(m) / (1 + area(m))).sum()),
        "background": lambda m: float((2 * (1 - area(m)) / (2 - area(m))).mean()),
    }
    right = [lambda m: float((2 * area(m) / (1 + area(m))).mean()), by_counts]
    assert_sound(check_all_ones_f1, right, wrong, capsys)


def test_accumulated(capsys):
    def backward(losses, w, before=lambda w: None, scale=1.0):
        w = w.detach().clone().requires_grad_()
        for loss in losses:
            before(w)
            (scale * loss(w)).backward()
        return w.grad

    def summed(losses, w):
        return sum(torch.autograd.grad(loss(v), v)[0] for loss in losses for v in [w.detach().clone().requires_grad_()])

    def clear(w):
        w.grad = None

    wrong = {
        "cleared each time": lambda ls, w: backward(ls, w, clear),
        "mean": lambda ls, w: summed(ls, w) / len(ls),
        "first only": lambda ls, w: backward(ls[:1], w),
        "all but the last": lambda ls, w: backward(ls[:-1], w) if len(ls) > 1 else torch.zeros_like(w),
        "twice the last": lambda ls, w: backward([*ls, ls[-1]], w),
        "descent step": lambda ls, w: w - summed(ls, w),
        "at moving weights": lambda ls, w: sum(backward([each], w + 0.1 * at) for at, each in enumerate(ls)),
        "sign": lambda ls, w: -summed(ls, w),
    }
    assert_sound(check_accumulated, [backward, summed], wrong, capsys)


def test_who_learns(capsys):
    assert_choice(check_who_learns, capsys)
