"""Every public loss and map under relations that hold whatever the numbers: each case finite and right, or refused.

A case is one sample under one relation. Relations: a float64 oracle for three dtypes, the gradient's oracle, one sample
alone, samples in another order, classes in another order, every sample twice, another scale, a NaN.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from xai_course import maps, methods
from xai_course.maps.variants import VARIANTS

LONG = os.environ.get("XAI_COURSE_TORTURE") == "long"
B, K, D, SIDE = 32, 5, 6, 4
SOME = range(0, B, 5)  # samples that are looked at alone
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
SEEDS = 12 if LONG else 1


def fixed(*shape: int, seed: int = 7) -> Tensor:
    """Weights that all cases share: numbers that every dtype holds."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).bfloat16().double()


class Subject(NamedTuple):
    """``loss(x [B, ...], y [B, ...]) -> [B]``; what is drawn for x and y; and what leaves the loss as it is."""

    loss: Callable[[Tensor, Tensor], Tensor]
    shape: tuple[int, ...]
    y: str = "labels"
    positive: bool = False
    classes: int | None = None  # the axis of x that holds classes
    scale_free: bool = False
    narrow: bool = False  # it works in the dtype of x, as the linear layer behind the pooling does
    smooth: bool = True  # False: a choice (a cut, the top k) may fall otherwise after rounding


def like(x: Tensor, constant: Tensor) -> Tensor:
    return constant.to(x.dtype)


LOGITS, MAPS = (K,), (SIDE, SIDE)
WEIGHT, BIAS, CENTERS = fixed(K, D), fixed(K, seed=8), fixed(K, D, seed=9)
none = {"reduction": "none"}
SUBJECTS = {
    "focal_loss": Subject(lambda x, y: methods.focal_loss(x, y, **none), LOGITS, classes=1),
    "sigmoid_focal_loss": Subject(lambda x, y: methods.sigmoid_focal_loss(x, y, **none), LOGITS, classes=1),
    "anchor_loss": Subject(lambda x, y: methods.anchor_loss(x, y, **none), LOGITS, classes=1),
    "negative_entropy": Subject(lambda x, y: methods.negative_entropy(x, **none), LOGITS, classes=1),
    "decided_loss": Subject(methods.decided_loss, LOGITS, classes=1),
    "undecided_loss": Subject(lambda x, y: methods.undecided_loss(x), LOGITS, classes=1),
    "MinMaxEntropy": Subject(lambda x, y: methods.MinMaxEntropy(**none)(x, -x, y), LOGITS, classes=1),
    "image_loss": Subject(lambda x, y: methods.image_loss(x, y, **none), LOGITS, classes=1),
    "image_loss, several": Subject(
        lambda x, y: methods.image_loss(x, F.one_hot(y, K).to(x.dtype), **none), LOGITS, classes=1
    ),
    "weighted_sigmoid_cross_entropy": Subject(
        lambda x, y: methods.weighted_sigmoid_cross_entropy(x, F.one_hot(y, K), torch.full((K,), 0.25), **none), LOGITS
    ),
    "margin_loss": Subject(lambda x, y: methods.margin_loss(x, y, **none), LOGITS, positive=True, classes=1),
    "center_loss": Subject(lambda x, y: methods.center_loss(x, y, like(x, CENTERS), **none), (D,)),
    "LargeMarginGaussianLoss": Subject(
        lambda x, y: methods.LargeMarginGaussianLoss(**none)(x, like(x, CENTERS), y), (D,)
    ),
    "attention_consistency": Subject(lambda x, y: methods.attention_consistency(x, -x.flip(-1), **none), (K, *MAPS)),
    "hnc_mse": Subject(lambda x, y: methods.hnc_mse(x, **none), (K, *MAPS), classes=1),
    "hnc_kd": Subject(lambda x, y: methods.hnc_kd(x, **none), (K, *MAPS), classes=1),
    **{
        f"homogeneous_negative_maps, {penalty}": Subject(
            lambda x, y, penalty=penalty: methods.homogeneous_negative_maps(
                x, like(x, WEIGHT), like(x, BIAS), y, penalty=penalty, keep_top=K - 1, **none
            ),
            (D, *MAPS),
            narrow=True,
        )
        for penalty in ("mse", "kd", "logit", "variance")
    },
    **{
        name: Subject(
            lambda x, y, name=name: getattr(methods, name)(**none)(x, y),
            MAPS,
            "masks",
            positive=True,
            scale_free=name in ("RelevantFocus", "Energy", "MatchingL1", "MatchingL2"),
        )
        for name in ("RelevantFocus", "Energy", "MatchingL1", "MatchingL2", "L1", "PPCE", "AttentionDistance")
    },
    "RRR": Subject(lambda x, y: methods.RRR(**none)(x, y), MAPS, "masks"),
    "LossBasedAttention": Subject(
        lambda x, y: methods.LossBasedAttention(**none)(x, y), (D, K), classes=2, smooth=False
    ),
    "angular_margin_contrastive": Subject(
        lambda x, y: methods.angular_margin_contrastive(*twins(x, y), **none), (2, D), scale_free=True
    ),
    "euclidean_contrastive": Subject(lambda x, y: methods.euclidean_contrastive(*twins(x, y), **none), (2, D)),
}


def twins(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Pairs ``[B, 2, D]`` as the batch that "halves" pairs in this way; every second pair is of one class."""
    return torch.cat([x[:, 0], x[:, 1]]), torch.cat([y, torch.where(y % 2 == 0, y, y + 1)])


CONTENTS = ("normal", "small", "large", "mixed", "equal", "zero", "saturated", "huge")


def draw(subject: Subject, content: str, seed: int) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(1000 * seed + CONTENTS.index(content))
    shape = (B, *subject.shape)
    x = torch.randn(shape, generator=g, dtype=torch.float64)
    spread = torch.rand((B, *[1] * len(subject.shape)), generator=g, dtype=torch.float64)
    x = {
        "normal": x,
        "small": 1e-3 * x,
        "large": 300 * x,
        "mixed": x * 10 ** (4 * spread - 2),
        "equal": torch.full_like(x, 0.75) * (1 + spread),
        "zero": torch.zeros_like(x),
        "saturated": torch.where(x > 1, 1000.0, 0.0).to(x.dtype),
        "huge": 1e20 * x,
    }[content]
    x = x.abs() if subject.positive else x
    labels = torch.randint(K, (B,), generator=g)
    soft = torch.rand((B, 2 * SIDE, 2 * SIDE), generator=g, dtype=torch.float64)
    return x, labels if subject.y == "labels" else (soft > 0.6)


def told(loss: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor) -> Tensor | None:
    """The losses, or None where the input is refused in words."""
    try:
        return loss(x, y)
    except ValueError as error:
        assert "got" in str(error) or "must" in str(error), f"a refusal that does not say what came: {error}"
        return None


def differ(found: Tensor, right: Tensor, slack: Tensor | float, rtol: float) -> Tensor:
    """Which samples are wrong: off by more than rounding, or not finite where the right answer can be held."""
    limit = torch.finfo(found.dtype).max
    right = right.double()
    overflow = ~right.isfinite() | (right.abs() > 0.1 * limit)
    off = (found.double() - right).abs() > rtol * right.abs() + slack
    return (off | ~found.isfinite()) & ~overflow


class Tally:
    """How many cases were looked at, and which were wrong."""

    def __init__(self) -> None:
        self.cases, self.refused, self.wrong = 0, 0, []

    def add(self, what: str, wrong: Tensor | None, count: int = B) -> None:
        self.cases += count
        if wrong is None:
            self.refused += count
        elif wrong.any():
            self.wrong.append(f"{what}: {int(wrong.sum())} of {wrong.numel()}")


def oracle(name: str, subject: Subject, content: str, seed: int, tally: Tally) -> None:
    """Each dtype against float64 on the very numbers that the dtype holds; and its gradient."""
    exact, y = draw(subject, content, seed)
    for dtype in DTYPES:
        x = exact.to(dtype)
        if not x.isfinite().all():
            continue
        what = f"{name}, {content}, {dtype}"
        x.requires_grad_()
        wide = x.detach().double().requires_grad_()
        right, found = told(subject.loss, wide, y), told(subject.loss, x, y)
        if found is None or right is None:
            tally.add(what, None, 2 * B)
            continue
        eps = max(torch.finfo(found.dtype).eps, torch.finfo(torch.float32).eps)
        if dtype != torch.float32 and found.dtype == dtype:
            eps *= 4
        reach = wide.detach().flatten(1).abs().amax(1)
        slack = 100 * eps * (reach if subject.scale_free is False else 1) + 20 * eps
        if not subject.smooth and dtype != torch.float32:
            slack = slack + 0.05
        if subject.narrow and dtype != torch.float32:
            eps = torch.finfo(dtype).eps / 10
            slack = 200 * eps * (reach + reach**2)
        tally.add(what, differ(found.detach(), right.detach(), slack, 200 * eps))
        if found.requires_grad and right.requires_grad:
            (slope,) = torch.autograd.grad(found.sum(), x)
            (true,) = torch.autograd.grad(right.sum(), wide)
            fits = true.flatten(1).abs().amax(1) < 0.1 * torch.finfo(dtype).max
            lost = ~slope.flatten(1).isfinite().all(1) & true.flatten(1).isfinite().all(1) & fits
            sane = found.detach().isfinite() & right.detach().isfinite()
            if dtype == torch.float32 and subject.smooth and content != "equal":  # a peak of equals has many slopes
                off = (slope.double() - true).flatten(1).abs().amax(1)
                lost |= off > 1e-3 * true.flatten(1).abs().amax(1) + 1e-5
            tally.add(f"{what}: gradient", lost & sane)


def relations(name: str, subject: Subject, content: str, seed: int, tally: Tally) -> None:
    """Relations within float64 and float32, to the rounding of each."""
    exact, y = draw(subject, content, seed)
    g = torch.Generator().manual_seed(seed)
    for x in (exact, exact.float()):
        whole = told(subject.loss, x, y)
        what = f"{name}, {content}, {x.dtype}"
        if whole is None:
            tally.add(what, None)
            continue
        eps = torch.finfo(whole.dtype).eps
        slack = 100 * eps * (1 + x.flatten(1).abs().amax(1).double())
        order = torch.randperm(B, generator=g)
        tally.add(f"{what}: order", differ(subject.loss(x[order], y[order]), whole[order], slack[order], 100 * eps))
        alone = torch.cat([subject.loss(x[i : i + 1], y[i : i + 1]) for i in SOME])
        tally.add(f"{what}: alone", differ(alone, whole[SOME], slack[SOME], 100 * eps), len(SOME))
        twice = subject.loss(torch.cat([x, x]), torch.cat([y, y]))
        tally.add(f"{what}: twice", differ(twice, torch.cat([whole, whole]), torch.cat([slack, slack]), 100 * eps))
        if subject.classes is not None:
            names = torch.randperm(K, generator=g)
            moved = subject.loss(x.index_select(subject.classes, names), names.argsort()[y])
            tally.add(f"{what}: classes", differ(moved, whole, slack, 1e3 * eps))
        if subject.scale_free and content in ("normal", "equal", "saturated", "mixed"):
            tally.add(f"{what}: scale", differ(subject.loss(256 * x, y), whole, 1e3 * eps, 1e3 * eps))


def spoilt(name: str, subject: Subject, seed: int, tally: Tally) -> None:
    """A NaN that goes in comes out, or is refused; it is never a plausible number."""
    x, y = draw(subject, "normal", seed)
    for i in SOME:
        bad = x.clone()
        bad[i].view(-1)[:] = torch.nan
        found = told(subject.loss, bad, y)
        tally.add(f"{name}, NaN", None if found is None else found[i : i + 1].isfinite(), 1)


def test_every_loss_is_finite_and_right_or_refused_in_20000_cases(capsys):
    tally = Tally()
    for name, subject in SUBJECTS.items():
        for seed in range(SEEDS):
            for content in CONTENTS:
                oracle(name, subject, content, seed, tally)
                relations(name, subject, content, seed, tally)
            spoilt(name, subject, seed, tally)
    with capsys.disabled():
        print(f"[{tally.cases:,} cases of losses, {tally.refused:,} refused]", end="")
    assert tally.wrong == [], "\n".join(tally.wrong)
    assert tally.cases >= 20_000 and tally.refused < 0.2 * tally.cases


PLACES = fixed(SIDE, SIDE, seed=10)


def cam(x: Tensor, y: Tensor) -> Tensor:
    return maps.class_activation_map(x, like(x, WEIGHT), like(x, BIAS), y)


def grad_cam(variant: str) -> Callable[[Tensor, Tensor], Tensor]:
    def of(x: Tensor, y: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            logits = F.linear((x * like(x, PLACES)).mean((2, 3)), like(x, WEIGHT))  # a gradient for each cell
            return maps.grad_cam_from(logits, [x], y, variant=variant)[0]

    return of


FEATURES = (D, SIDE, SIDE)
MAP_SUBJECTS = {
    "class_activation_map": Subject(cam, FEATURES),
    **{variant: Subject(grad_cam(variant), FEATURES) for variant in VARIANTS},
    "normalise": Subject(lambda x, y: maps.normalise(x), MAPS, positive=True, scale_free=True),
    "unit_mass": Subject(lambda x, y: maps.unit_mass(x).maps, MAPS, positive=True, scale_free=True),
    "enlarge": Subject(lambda x, y: maps.enlarge(x, (9, 7)), MAPS),
    "upsample": Subject(lambda x, y: methods.upsample(x.unsqueeze(1), (9, 7))[:, 0], MAPS),
    "rescaled": Subject(lambda x, y: methods.rescaled(x.unsqueeze(1))[:, 0], MAPS, scale_free=True, smooth=False),
    "combined_map": Subject(lambda x, y: methods.combined_map(x, 0.1 * x.mean((2, 3)))[:, 0], FEATURES),
}


def cells(maps_found: Tensor) -> Tensor:
    return maps_found.flatten(1)


def as_maps(name: str, subject: Subject, content: str, seed: int, tally: Tally) -> None:
    """Maps cell by cell: float64 oracle, order, alone, twice, scale."""
    exact, y = draw(subject, content, seed)
    right = told(subject.loss, exact, y)
    for dtype in (torch.float64, *DTYPES):
        x = exact.to(dtype)
        if not x.isfinite().all():
            continue
        what = f"{name}, {content}, {dtype}"
        right, found = told(subject.loss, x.double(), y), told(subject.loss, x, y)
        if right is None or found is None:
            tally.add(what, None)
            continue
        eps = torch.finfo(dtype).eps
        reach = cells(right).abs().amax(1, keepdim=True) + (0 if subject.scale_free else cells(x.double()).abs().amax())
        slack = 60 * eps * reach.nan_to_num(0, 0, 0)
        wrong = differ(cells(found), cells(right), slack, 60 * eps).any(1)
        if subject.smooth or dtype in (torch.float64, torch.float32):
            tally.add(what, wrong)
        order = torch.randperm(B, generator=torch.Generator().manual_seed(seed))
        moved = cells(subject.loss(x[order], y[order]))
        tally.add(f"{what}: order", differ(moved, cells(found)[order], slack[order], eps).any(1))
        alone = torch.cat([subject.loss(x[i : i + 1], y[i : i + 1]) for i in SOME])
        tally.add(f"{what}: alone", differ(cells(alone), cells(found)[SOME], slack[SOME], 4 * eps).any(1), len(SOME))
        twice = subject.loss(torch.cat([x, x]), torch.cat([y, y]))[B:]
        tally.add(f"{what}: twice", differ(cells(twice), cells(found), slack, 4 * eps).any(1))
        if subject.scale_free and content in ("normal", "equal", "saturated"):
            scaled = subject.loss(16 * x, y)
            tally.add(f"{what}: scale", differ(cells(scaled), cells(found), 8 * eps, 8 * eps).any(1))


def test_every_map_is_finite_and_right_or_refused_in_7000_cases(capsys):
    tally = Tally()
    for name, subject in MAP_SUBJECTS.items():
        for seed in range(SEEDS):
            for content in CONTENTS:
                as_maps(name, subject, content, seed, tally)
            spoilt(name, subject, seed, tally)
    with capsys.disabled():
        print(f"[{tally.cases:,} cases of maps, {tally.refused:,} refused]", end="")
    assert tally.wrong == [], "\n".join(tally.wrong)
    assert tally.cases >= 7_000 and tally.refused == 0


def one_class() -> Iterator[tuple[str, Callable[[Tensor, Tensor], Tensor]]]:
    for name, subject in SUBJECTS.items():
        if subject.classes == 1 and subject.shape == LOGITS and "several" not in name:
            yield name, subject.loss


@pytest.mark.parametrize("batch", [1, 3])
def test_one_class_alone_is_right_or_refused(batch):
    """With one class nothing can be confused: softmax losses are 0, the others finite, and none is a NaN."""
    for name, loss in one_class():
        found = told(loss, torch.randn(batch, 1), torch.zeros(batch, dtype=torch.long))
        assert found is None or (found.shape == (batch,) and found.isfinite().all()), name


@pytest.mark.parametrize("name", SUBJECTS)
def test_an_empty_batch_is_refused_or_nothing(name):
    subject = SUBJECTS[name]
    x, y = draw(subject, "normal", 0)
    found = told(subject.loss, x[:0].float(), y[:0])
    assert found is None or found.numel() == 0
