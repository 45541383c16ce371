"""HNC on Textured Digits: what the paper claims, beside every control it lacks, as data.

``digits``: clean accuracy, attacks and maps. ``noise``: 40 % symmetric label noise in two regimes, one that trains
until the wrong labels are learnt by heart (few images, many epochs) and one that stops before, crossed with lambda.
Lambda counts per class (``reduction_k="mean"``). Which lambda a page quotes is decided on the validation split, whose
labels are as noisy as the training ones: see `chosen`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, lru_cache, partial

import torch
from torch import nn

from ..data.batch import Splits, positive_rate
from ..data.textured_digits import textured_digits
from ..measure.localising import localisation
from ..measure.multilabel import multilabel_scores
from ..measure.peaks import map_peaks
from ..measure.robustness import clean_accuracy, fgsm_accuracy, memorised, pgd_accuracy, transfer_accuracy
from ..methods.base import CrossEntropy
from ..methods.classic import ConfidencePenalty
from ..methods.hnc import HNC
from ..nets.convnets import GapClassifier, small_cnn
from ..preset import Preset
from ..train import fit
from . import records
from .experiment import Experiment

KEEP_TOP = 3
LAMBDAS = (0.1, 1.0)
PENALTIES = {
    "mse": "HNC mse (Eq. 2)",
    "kd": "HNC kd (Eq. 5)",
    "logit": "control: squared logits only",
    "variance": "control: variance only",
}
EPSILONS = (0.005, 0.01, 0.02, 0.05)
ONE_CYCLE = partial(Preset, batch_size=64, lr=5e-3, schedule="one_cycle")
CLEAN = {
    "smoke": ONE_CYCLE(epochs=10, limit=1000),
    "colab": ONE_CYCLE(epochs=30),
    "paper": ONE_CYCLE(epochs=60),
}
REGIMES = {
    "heart": ("until learnt by heart", ONE_CYCLE(epochs=30, limit=500)),
    "early": ("stopped before", ONE_CYCLE(epochs=6, limit=1000)),
}


@lru_cache(maxsize=8)
def digits(preset: str = "smoke", *, seed: int = 0, **knobs) -> Splits:
    """Textured Digits on random backgrounds: shape and texture of the digit tell the label. Kept for the next row."""
    return textured_digits(preset, seed=seed, p=1.0, q=0.0, **knobs)


def small(splits: Splits) -> GapClassifier:
    return small_cnn(len(splits.classes), width=6)


def rows(lambdas: Sequence[float]) -> dict[str, tuple[str, object]]:
    """Row name to title and method: cross-entropy, its two confidence controls, and each penalty at each lambda."""
    found = {
        "ce": ("Cross-entropy", CrossEntropy),
        "smoothing_0.1": ("control: label smoothing 0.1", partial(CrossEntropy, label_smoothing=0.1)),
        "confidence_0.1": ("control: confidence penalty, λ = 0.1", partial(ConfidencePenalty, balance=0.1)),
    }
    for penalty, title in PENALTIES.items():
        for balance in lambdas:
            method = partial(HNC, penalty=penalty, balance=balance, keep_top=KEEP_TOP)
            found[f"{penalty}_{balance:g}"] = (f"{title}, λ = {balance:g}", method)
    return found


@cache
def _surrogate(fingerprint: str) -> dict[str, nn.Module]:
    return {}


def surrogate(splits: Splits) -> nn.Module:
    """A network of the same kind, trained with cross-entropy from another seed: the source of transferred attacks."""
    kept = _surrogate(splits.fingerprint)
    if "net" not in kept:
        with torch.random.fork_rng(devices=[]):
            method = CrossEntropy(small_cnn(len(splits.classes), width=6, seed=1_000_003))
            fit(method, splits.train, CLEAN["smoke"], seed=1_000_003)
        kept["net"] = method.net
    return kept["net"]


def _clean() -> list[Experiment]:
    measures = (
        clean_accuracy,
        partial(fgsm_accuracy, epsilons=EPSILONS, limit=400),
        partial(pgd_accuracy, epsilons=(0.01,), limit=100),
        partial(pgd_accuracy, epsilons=(0.01,), objective="margin", limit=100),
        partial(transfer_accuracy, source=surrogate, epsilons=(0.02, 0.05), limit=400),
        map_peaks,
        localisation,
    )
    shown = (
        "accuracy",
        "fgsm_0.01",
        "pgd_margin_0.01",
        "transfer_0.05",
        "negative_peak",
        "peak_ratio",
        "energy_in_mask",
    )
    return [
        Experiment(f"hnc/digits/{row}", title, digits, small, method, CLEAN, measures, shown=shown)
        for row, (title, method) in rows(LAMBDAS).items()
    ]


def _noise() -> list[Experiment]:
    return [
        Experiment(
            f"hnc/noise/{regime}/{row}",
            f"{title}, {words}",
            partial(digits, label_noise=0.4),
            small,
            method,
            {"smoke": preset},
            (clean_accuracy, partial(memorised, limit=preset.limit)),
            shown=("accuracy", "validation_accuracy", "memorised", "confidence"),
        )
        for regime, (words, preset) in REGIMES.items()
        for row, (title, method) in rows(LAMBDAS).items()
    ]


def _keep_top() -> list[Experiment]:
    """How many negatives: 1 (a tenth of the classes) and all 9; the other rows have 3."""
    return [
        Experiment(
            f"hnc/keep_top/{penalty}_{k}",
            f"{PENALTIES[penalty]}, λ = 0.1, k = {k}",
            digits,
            small,
            partial(HNC, penalty=penalty, balance=0.1, keep_top=k),
            CLEAN,
            (clean_accuracy, partial(fgsm_accuracy, epsilons=EPSILONS, limit=400), map_peaks),
            shown=("validation_accuracy", "accuracy", "fgsm_0.01", "negative_peak", "peak_ratio"),
        )
        for penalty in ("mse", "kd")
        for k in (1, 9)
    ]


def small_with_rates(splits: Splits) -> GapClassifier:
    """`small` that also remembers each class's share of positive training images, for Eq. 8."""
    net = small(splits)
    net.register_buffer("positive_rate", positive_rate(splits.train))
    return net


def weighted(net: nn.Module, method: type[HNC] = HNC, **options) -> HNC:
    """Eq. 9 with the rates of the network's training set."""
    return method(net, positive_rate=net.positive_rate, **options)


def _multilabel() -> list[Experiment]:
    """Two digits in each image: Eq. 8 and 9, and the columns of Table 4."""
    found = {
        "bce": ("Binary cross-entropy", CrossEntropy),
        "sce": ("Eq. 8 alone", partial(weighted, balance=0.0)),
    } | {
        f"{penalty}_0.1": (
            f"Eq. 9: {title}, λ = 0.1",
            partial(weighted, penalty=penalty, balance=0.1, keep_top=KEEP_TOP),
        )
        for penalty, title in PENALTIES.items()
    }
    return [
        Experiment(
            f"hnc/multilabel/{row}",
            title,
            partial(digits, objects=2),
            small_with_rates,
            method,
            CLEAN,
            (multilabel_scores,),
            shown=("mAP", "CP", "CR", "CF1", "OP", "OR", "OF1"),
        )
        for row, (title, method) in found.items()
    ]


def chosen(group: str, penalty: str, preset: str = "smoke") -> str:
    """The row of ``penalty`` with the highest mean validation accuracy, such as ``hnc/digits/mse_0.1``.

    Args:
        group: ``"hnc/digits"``, ``"hnc/noise/heart"`` or ``"hnc/noise/early"``.
        penalty: a key of ``PENALTIES``.

    Raises:
        FileNotFoundError: a row was not run; ValueError: no such rows.
    """
    names = [e.name for e in DIGITS if e.name.startswith(f"{group}/{penalty}_")]
    if not names:
        raise ValueError(f"group and penalty must name declared rows, got {group!r} and {penalty!r}")
    return max(names, key=lambda name: records.load(name, preset).metrics["validation_accuracy"].mean)


DIGITS: tuple[Experiment, ...] = (*_clean(), *_noise(), *_keep_top(), *_multilabel())
