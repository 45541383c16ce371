"""The checks of the ReFF assignment against planted answers."""

from __future__ import annotations

import torch
from planted import assert_choice, assert_sound

from xai_course.checks import (
    check_focus_loss,
    check_l1_distance,
    check_outside_mass,
    check_outside_penalty,
    check_preference,
    check_unit_mass,
)


def unit(maps, eps=0.0, detach=False):
    total = maps.sum((1, 2), keepdim=True)
    safe = torch.where(total > 0, total + eps, torch.ones_like(total))
    return maps / (safe.detach() if detach else safe)


def unit_loop(maps):
    return torch.stack([one / one.sum() if one.sum() > 0 else one * 0 for one in maps])


def test_unit_mass(capsys):
    def dead_gradient_zero(maps):
        return unit(maps) * (maps.sum((1, 2), keepdim=True) > 0)

    wrong = {
        "0/0": lambda m: m / m.sum((1, 2), keepdim=True),
        "epsilon": lambda m: m / (m.sum((1, 2), keepdim=True) + 1e-8),
        "by the maximum": lambda m: m / m.amax((1, 2), keepdim=True).clamp_min(1e-30),
        "batch sum": lambda m: m / m.sum().clamp_min(1e-30),
        "length": lambda m: m / m.flatten(1).norm(dim=1)[:, None, None].clamp_min(1e-30),
        "softmax": lambda m: m.flatten(1).softmax(1).view_as(m),
        "detached sum": lambda m: unit(m, detach=True),
        "mean one": lambda m: unit(m) * m[0].numel(),
    }
    assert_sound(check_unit_mass, [unit_loop, dead_gradient_zero], wrong, capsys)


def penalty(maps, s, square=True, normal=unit_loop, outside=None, reduce=None):
    i = normal(maps)
    out = (i * (1 - s) if outside is None else outside(i, s)) if square is not None else i
    out = out**2 if square else out
    return out.sum((1, 2)).mean() if reduce is None else reduce(out)


def faults(square):
    return {
        "mean over pixels": lambda m, s: penalty(m, s, square, reduce=torch.mean),
        "sum over images": lambda m, s: penalty(m, s, square, reduce=torch.sum),
        "inside": lambda m, s: penalty(m, 1 - s, square),
        "not normalised": lambda m, s: penalty(m, s, square, lambda m: m),
        "by the maximum": lambda m, s: penalty(m, s, square, lambda m: m / m.amax((1, 2), True).clamp_min(1e-30)),
        "0/0": lambda m, s: penalty(m, s, square, lambda m: m / m.sum((1, 2), True)),
        "detached sum": lambda m, s: penalty(m, s, square, lambda m: unit(m, detach=True)),
        "against the mask": lambda m, s: penalty(m, s, square, outside=lambda i, s: i - s),
        "the other norm": lambda m, s: penalty(m, s, not square),
    }


def test_outside_penalty(capsys):
    def vector(m, s):
        i = unit(m) * (m.sum((1, 2), keepdim=True) > 0)
        return (i * (1 - s)).flatten(1).norm(dim=1).square().mean()

    wrong = faults(True) | {
        "mask outside the square": lambda m, s: penalty(m, s, False, outside=lambda i, s: i**2 * (1 - s)),
        "root": lambda m, s: (unit_loop(m) * (1 - s)).flatten(1).norm(dim=1).mean(),
    }
    assert_sound(check_outside_penalty, [penalty, vector], wrong, capsys)


def test_outside_mass(capsys):
    def rest(m, s):
        i = unit(m) * (m.sum((1, 2), keepdim=True) > 0)
        return (i.sum((1, 2)) - (i * s).sum((1, 2))).mean()

    assert_sound(check_outside_mass, [lambda m, s: penalty(m, s, False), rest], faults(False), capsys)


def pooled(gradient):
    return gradient.mean((2, 3), keepdim=True)


def focus(head, features, classes, s, graph=True, alpha=pooled, relu=torch.relu, z=None):
    if not features.requires_grad:
        features = features.detach().requires_grad_()
    logits = head(features)
    score = logits.gather(1, classes[:, None]).sum() if z is None else z(logits, classes)
    (g,) = torch.autograd.grad(score, features, create_graph=graph, retain_graph=True)
    return penalty(relu((alpha(g) * features).sum(1)), s)


def test_focus_loss(capsys):
    def one_by_one(head, features, classes, s):
        class Part:
            pass

        if not features.requires_grad:
            features = features.detach().requires_grad_()
        logits, maps = head(features), []
        for i, c in enumerate(classes):
            (g,) = torch.autograd.grad(logits[i, c], features, create_graph=True)
            maps.append((g[i].mean((1, 2))[:, None, None] * features[i]).sum(0).clamp(min=0))
        return penalty(torch.stack(maps), s)

    wrong = {
        "no graph": lambda *a: focus(*a, graph=False),
        "constant weights": lambda *a: focus(*a, alpha=lambda g: pooled(g.detach())),
        "detached features": lambda h, f, c, s: focus(h, f.detach(), c, s),
        "no ReLU": lambda *a: focus(*a, relu=lambda m: m),
        "absolute": lambda *a: focus(*a, relu=torch.abs),
        "sum for mean and over maps": lambda *a: focus(*a, alpha=lambda g: g),
        "probability": lambda *a: focus(*a, z=lambda z, c: z.softmax(1).gather(1, c[:, None]).sum()),
        "all logits": lambda *a: focus(*a, z=lambda z, c: z.sum()),
        "inside": lambda h, f, c, s: focus(h, f, c, 1 - s),
    }
    assert_sound(check_focus_loss, [focus, one_by_one], wrong, capsys)


def test_l1_distance(capsys):
    right = [lambda a, m: a - 1 + 2 * m, lambda a, m: m + a - (1 - m)]
    wrong = {
        "once": lambda a, m: a - 1 + m,
        "sign": lambda a, m: a - 1 - 2 * m,
        "plus one": lambda a, m: a + 1 + 2 * m,
        "no constant": lambda a, m: a + 2 * m,
        "twice only": lambda a, m: 2 * m,
        "squared": lambda a, m: a - 1 + 2 * m * m,
        "a share of the area": lambda a, m: 1 - 1 / a + 2 * m,
        "inside": lambda a, m: a - 1 + 2 * (1 - m),
    }
    assert_sound(check_l1_distance, right, wrong, capsys)


def test_preference(capsys):
    assert_choice(check_preference, capsys)
