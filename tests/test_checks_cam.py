"""The checks of the CAM assignment against planted answers."""

from __future__ import annotations

import torch
from planted import assert_choice, assert_sound

from xai_course.checks import (
    check_centre_box,
    check_class_map,
    check_energy_in_mask,
    check_grad_cam_map,
    check_reading,
    check_to_unit_range,
)


def test_class_map(capsys):
    right = [
        lambda f, w, c: torch.einsum("bdhw,bd->bhw", f, w[c]),
        lambda f, w, c: (w[c][:, :, None, None] * f).sum(1),
    ]
    wrong = {
        "mean for sum": lambda f, w, c: (w[c][:, :, None, None] * f).mean(1),
        "sum over positions": lambda f, w, c: (w[c][:, :, None, None] * f).sum((2, 3)),
        "always class 0": lambda f, w, c: (w[0][None, :, None, None] * f).sum(1),
        "first image's class": lambda f, w, c: (w[c[:1]][:, :, None, None] * f).sum(1),
        "transposed": lambda f, w, c: torch.einsum("bdhw,bd->bwh", f, w[c]),
        "ReLU": lambda f, w, c: (w[c][:, :, None, None] * f).sum(1).relu(),
        "sign": lambda f, w, c: -(w[c][:, :, None, None] * f).sum(1),
        "detached weight": lambda f, w, c: (w.detach()[c][:, :, None, None] * f).sum(1),
        "column for row": lambda f, w, c: (w.T[c % w.shape[1]][:, : f.shape[1], None, None] * f).sum(1),
    }
    assert_sound(check_class_map, right, wrong, capsys)


def grad_cam(head, features, classes, *, pool=lambda g: g.mean((2, 3)), score=None, relu=True, inner=False):
    features = features.clone().requires_grad_()
    logits = head(features)
    chosen = logits.gather(1, classes[:, None]).sum() if score is None else score(logits, classes)
    alpha = pool(torch.autograd.grad(chosen, features)[0])
    alpha = alpha.relu() if inner else alpha
    maps = (alpha[:, :, None, None] * features).sum(1).detach()
    return maps.relu() if relu else maps


def test_grad_cam_map(capsys):
    def one_by_one(head, features, classes):
        return torch.cat([grad_cam(head, f[None], c[None]) for f, c in zip(features, classes, strict=True)])

    wrong = {
        "sum for mean": lambda h, f, c: grad_cam(h, f, c, pool=lambda g: g.sum((2, 3))),
        "no ReLU": lambda h, f, c: grad_cam(h, f, c, relu=False),
        "ReLU on the weights": lambda h, f, c: grad_cam(h, f, c, inner=True, relu=False),
        "ReLU on both": lambda h, f, c: grad_cam(h, f, c, inner=True),
        "probability": lambda h, f, c: grad_cam(h, f, c, score=lambda z, y: z.softmax(1).gather(1, y[:, None]).sum()),
        "all logits": lambda h, f, c: grad_cam(h, f, c, score=lambda z, y: z.sum()),
        "first class": lambda h, f, c: grad_cam(h, f, c, score=lambda z, y: z[:, y[0]].sum()),
        "no pooling": lambda h, f, c: grad_cam(h, f, c, pool=lambda g: g[:, :, 0, 0]),
        "mean over the batch": lambda h, f, c: grad_cam(h, f, c).mean(0, keepdim=True).expand(len(f), -1, -1),
    }
    assert_sound(check_grad_cam_map, [grad_cam, one_by_one], wrong, capsys)


def energy(maps, masks, total=lambda m: m.flatten(1).sum(1)):
    inside = (maps * masks).flatten(1).sum(1)
    whole = total(maps)
    return torch.where(whole > 0, inside / whole, torch.zeros_like(inside))


def test_energy_in_mask(capsys):
    right = [
        energy,
        lambda m, s: torch.stack([x[y].sum() / x.sum() if x.sum() > 0 else x.sum() * 0 for x, y in zip(m, s)]),
    ]
    wrong = {
        "0/0": lambda m, s: (m * s).flatten(1).sum(1) / m.flatten(1).sum(1),
        "one share for the batch": lambda m, s: energy(m, s).mean().expand(len(m)),
        "batch total": lambda m, s: (m * s).flatten(1).sum(1) / m.sum(),
        "outside": lambda m, s: energy(m, ~s),
        "share of the area": lambda m, s: energy(m, s, lambda x: s.flatten(1).sum(1).double()),
        "mean inside": lambda m, s: (m * s).flatten(1).mean(1),
        "epsilon": lambda m, s: (m * s).flatten(1).sum(1) / (m.flatten(1).sum(1) + 1e-8),
        "clamped": lambda m, s: (m * s).flatten(1).sum(1) / m.flatten(1).sum(1).clamp(min=1e-6),
    }
    assert_sound(check_energy_in_mask, right, wrong, capsys)


def boxed(masks, side, top=None, left=None, value=None):
    _, h, w = masks.shape
    top, left = (h - side) // 2 if top is None else top, (w - side) // 2 if left is None else left
    inside = masks[:, top : top + side, left : left + side].double()
    return inside.sum((1, 2)) / (side * side if value is None else value(masks))


def test_centre_box(capsys):
    def by_map(masks, side):
        box = torch.zeros(masks.shape[1:], dtype=torch.float64)
        rows = (masks.shape[1] - side) // 2
        columns = (masks.shape[2] - side) // 2
        box[rows : rows + side, columns : columns + side] = 1
        return energy(box[None].expand(len(masks), -1, -1), masks)

    wrong = {
        "corner box": lambda s, n: boxed(s, n, 0, 0),
        "same centre for both": lambda s, n: boxed(s, n, left=(s.shape[1] - n) // 2),
        "rows and columns swapped": lambda s, n: boxed(s, n, (s.shape[2] - n) // 2, (s.shape[1] - n) // 2),
        "recall": lambda s, n: boxed(s, n, value=lambda s: s.flatten(1).sum(1)),
        "area of the image": lambda s, n: boxed(s, n, value=lambda s: s[0].numel()),
        "off by one": lambda s, n: boxed(s, n, (s.shape[1] - n) // 2 + 1, (s.shape[2] - n) // 2 + 1),
        "batch mean": lambda s, n: boxed(s, n).mean(),
        "half the side": lambda s, n: boxed(s, n // 2),
    }
    assert_sound(check_centre_box, [boxed, by_map], wrong, capsys)


def test_to_unit_range(capsys):
    def loop(maps):
        out = torch.zeros_like(maps)
        for i, one in enumerate(maps):
            if one.max() > one.min():
                out[i] = (one - one.min()) / (one.max() - one.min())
        return out

    def vector(maps):
        low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
        return torch.where(high > low, (maps - low) / (high - low).where(high > low, torch.ones(())), 0.0)

    wrong = {
        "batch range": lambda m: (m - m.min()) / (m.max() - m.min()),
        "nan": lambda m: (m - m.amin((1, 2), True)) / (m.amax((1, 2), True) - m.amin((1, 2), True)),
        "by the maximum": lambda m: m / m.amax((1, 2), True),
        "ReLU first": lambda m: loop(m.relu()),
        "epsilon": lambda m: (m - m.amin((1, 2), True)) / (m.amax((1, 2), True) - m.amin((1, 2), True) + 1e-8),
        "over rows": lambda m: (m - m.amin(1, True)) / (m.amax(1, True) - m.amin(1, True)).clamp_min(1e-300),
        "-1 to 1": lambda m: 2 * loop(m) - 1,
        "upside down": lambda m: 1 - loop(m),
    }
    assert_sound(check_to_unit_range, [loop, vector], wrong, capsys)


def test_reading(capsys):
    assert_choice(check_reading, capsys)
