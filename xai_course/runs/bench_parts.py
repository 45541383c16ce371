"""What the bench is made of: settings, networks, methods with the values tried, and what was chosen."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, partial

from torch import nn
from torch.nn import functional as F

from ..data.batch import ArrayData, Splits
from ..data.folders import in_memory
from ..data.textured_digits import textured_digits
from ..data.textured_mnist import textured_mnist
from ..data.vision import cifar10, fashion_mnist
from ..measure.confidence import calibration
from ..measure.looking import accuracy, validation_accuracy
from ..measure.multilabel import multilabel_scores
from ..measure.protocol import controls, cost, explanations, perturbation, randomisation
from ..measure.robustness import fgsm_accuracy, memorised, pgd_accuracy
from ..measure.sanity import shuffled_labels
from ..methods.amc import AmcLoss
from ..methods.base import CrossEntropy
from ..methods.combined import Combined, Focused
from ..methods.erasing import Erasing
from ..methods.hnc import HNC
from ..methods.minmax import MaskRule, MinMax
from ..methods.patch_heads import LossAttention, MeanPooling
from ..methods.reff import ReFF
from ..methods.wsol import PooledMaps
from ..nets.convnets import GapClassifier, small_cnn
from ..nets.patch_nets import patch_net
from ..nets.role_norm import norms_by_role
from ..nets.wildcat import Localiser, LocaliserClassifier, minmax_head, small_trunk
from ..preset import Clock, Preset

SEEDS = (0, 1, 2, 3, 4)
TUNING_SEED = 100

# --- settings: grey images in which only the digit's shape tells the class; each setting changes one thing -----------

STYLE = {"contrast": 0.6, "amplitude": 0.05, "chroma": 0.0, "q": 1.0}
SETTINGS = {
    "plain": ("backgrounds tell nothing", {"p": 1.0}),
    "shifted": ("training backgrounds tell the label, test backgrounds do not", {"p": 0.0, "p_test": 1.0}),
    "noisy": ("40 % of the training labels are wrong", {"p": 1.0, "label_noise": 0.4}),
    "multi": ("two digits in each image, several labels", {"p": 1.0, "objects": 2}),
}


@lru_cache(maxsize=8)
def digits(preset: str = "smoke", *, seed: int = 0, **knobs) -> Splits:
    """Textured Digits as all methods of one setting see them; kept for the next method."""
    sizes = {"train": 600, "validation": 300, "test": 400} if preset == "smoke" else {}
    return textured_digits(preset, seed=seed, **{**STYLE, **sizes, **knobs})


def with_shuffled_labels(preset: str = "smoke", *, seed: int = 0, **knobs) -> Splits:
    """`digits` whose training labels are permuted: nothing can be learnt but the images by heart."""
    splits = digits(preset, seed=seed, **knobs)
    train = shuffled_labels(ArrayData(splits.train.images, splits.train.labels, splits.train.masks), seed)
    return splits._replace(train=train, fingerprint=f"{splits.fingerprint} shuffled")


def clothes(preset: str = "smoke", *, seed: int = 0) -> Splits:
    """Fashion-MNIST in the shape of the other settings: a rim of two black pixels, the grey channel three times."""
    limit = (2000, 1000, 2000) if preset == "smoke" else None
    splits = fashion_mnist(preset, seed=seed, limit=limit)
    rim = {name: _in_shape(getattr(splits, name)) for name in ("train", "validation", "test")}
    return splits._replace(**rim, fingerprint=f"{splits.fingerprint} 3x32x32")


def _in_shape(data: ArrayData) -> ArrayData:
    return ArrayData(F.pad(data.images, (2, 2, 2, 2)).expand(-1, 3, -1, -1).contiguous(), data.labels)


def textures(preset: str = "smoke", *, seed: int = 0) -> Splits:
    """`shifted` with MNIST's digits and photographs of textures: the background tells the label in training only."""
    return in_memory(textured_mnist(preset, seed=seed, canvas=32, zoom=0.3))


@dataclass(frozen=True)
class Real:
    """A setting of real images: what it shows, its data, whether these have masks, and what it needs."""

    title: str
    data: object
    masks: bool
    needs: str


REAL = {
    "clothes": Real("2000 photographs of clothes", clothes, False, "Fashion-MNIST (a download of 31 MB)"),
    "cifar10": Real("CIFAR-10", cifar10, False, "CIFAR-10 and a GPU"),
    "textures": Real("MNIST on photographs of textures", textures, True, "MNIST, textures (DTD) and a GPU"),
}

# --- networks: the same body wherever the method allows ---------------------------------------------------------------


def small(splits: Splits) -> GapClassifier:
    return small_cnn(len(splits.classes), width=8)


def patch_cnn(splits: Splits, **options) -> nn.Module:
    """Loss-Attention needs patches: its own backbone without strides and one 9x9 convolution."""
    return patch_net("small", len(splits.classes), image_size=32, **options)


patches = partial(patch_cnn, width=4, hidden=64)


def localiser(splits: Splits) -> Localiser:
    """The body of `small` under Min-Max's head."""
    body, channels = small_trunk(8)
    return Localiser(body, minmax_head(channels, len(splits.classes)))


def pair(splits: Splits) -> LocaliserClassifier:
    body, channels = small_trunk(8)
    return LocaliserClassifier(body, *(minmax_head(channels, len(splits.classes)) for _ in range(2)))


def pair_by_role(splits: Splits) -> LocaliserClassifier:
    """Statistics of whole and of masked images apart: its chapter shows what sharing them costs."""
    return norms_by_role(pair(splits))


def reference(splits: Splits) -> CrossEntropy:
    """What costs are multiples of."""
    return CrossEntropy(small(splits))


LAYERS = ("body.1", "body.2", "body.3", "body.4")
PATCH_LAYERS = ("body.0.0", "body.0.1", "body.0.2")
RATE = {small: 8e-3, patches: 4e-2, localiser: 1e-2, pair: 1e-2, pair_by_role: 1e-2}


def presets(net, setting: str, rate: float | None = None) -> dict[str, Preset]:
    """Equal for all methods on one network; the noisy setting sees half the images twice as often, to learn them."""
    often = setting == "noisy"
    common = {"batch_size": 30, "lr": rate or RATE[net], "schedule": "one_cycle", "clip_norm": 1.0}
    return {
        "smoke": Preset(16 if often else 8, limit=300 if often else None, **common),
        "colab": Preset(30, **{**common, "batch_size": 100}),
        "paper": Preset(60, **{**common, "batch_size": 100}),
    }


# --- methods ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One method of the bench.

    Attributes:
        title: its name in tables.
        net: which network it trains.
        make: called with ``network`` and the tried value under the name ``knob``.
        knob, grid: the one value that is tried and its three candidates, weakest first; "" and () for none.
        twin: the row it is compared with: the same network without the method; a plain row is its own.
    """

    title: str
    net: object
    make: object
    knob: str = ""
    grid: tuple[float, ...] = ()
    twin: str = "ce"

    def method(self, value: float | None = None):
        return partial(self.make, **{self.knob: value}) if self.grid else self.make


ROWS = {
    "ce": Row("Cross-entropy", small, CrossEntropy),
    "smoothing": Row("Label smoothing", small, CrossEntropy, "label_smoothing", (0.05, 0.1, 0.2)),
    "amc": Row("AMC-Loss, peak weight 1", small, AmcLoss, "balance", (0.05, 0.1, 0.5)),
    "amc_w100": Row("AMC-Loss, peak weight 100", small, partial(AmcLoss, w_max=100.0), "balance", (0.02, 0.05, 0.1)),
    "hnc_mse": Row("HNC mse", small, partial(HNC, penalty="mse", keep_top=3), "balance", (0.1, 0.3, 1.0)),
    "hnc_kd": Row("HNC kd", small, partial(HNC, penalty="kd", keep_top=3), "balance", (0.1, 0.3, 1.0)),
    "reff": Row("ReFF", small, partial(ReFF, layers=LAYERS), "balance", (3.0, 6.0, 12.0)),
    "energy": Row(
        "Energy loss (Rao et al.)", small, partial(ReFF, layers=LAYERS, penalty="energy"), "balance", (0.1, 0.2, 0.4)
    ),
    "mean": Row("Patches, mean-pooling", patches, MeanPooling, twin="mean"),
    "loss_attention": Row(
        "Patches, Loss-Attention",
        patches,
        partial(LossAttention),
        "balance",
        (0.1, 0.3, 1.0),
        "mean",
    ),
    "wildcat": Row("Localiser alone", localiser, PooledMaps, twin="wildcat"),
    "minmax_u0": Row("Min-Max, u = 0", pair_by_role, MinMax, twin="wildcat"),
    "minmax_u4": Row(
        "Min-Max, u = 4", pair_by_role, partial(MinMax, erasing=Erasing(4, start_epoch=1)), twin="wildcat"
    ),
    "minmax_attached": Row(
        "Min-Max, attached mask (ours)", pair_by_role, partial(MinMax, mask=MaskRule(attach=True)), twin="wildcat"
    ),
    "minmax_shared": Row("Min-Max, u = 0, shared statistics", pair, MinMax, twin="wildcat"),
}
COMBINED = {
    "amc_hnc": ("AMC-Loss + HNC mse", ("amc", "hnc_mse")),
    "hnc_energy": ("HNC mse + Energy loss", ("hnc_mse", "energy")),
    "smoothing_energy": ("Label smoothing + Energy loss", ("smoothing", "energy")),
    "loss_attention_energy": ("Loss-Attention + Energy loss", ("loss_attention", "energy")),
}
SEVERAL_LABELS = ("ce", "hnc_mse", "hnc_kd", "mean", "loss_attention")  # the others are defined for one label each
NEEDS_MASKS = ("reff", "energy", "hnc_energy", "smoothing_energy", "loss_attention_energy")
LABEL_NOISE = ("ce", "smoothing", "amc", "amc_w100", "hnc_mse", "hnc_kd", "amc_hnc", "mean", "loss_attention")


def rows_of(setting: str) -> tuple[str, ...]:
    """The rows of a setting: those that it asks something of."""
    if setting in ("noisy", "multi"):
        return LABEL_NOISE if setting == "noisy" else SEVERAL_LABELS
    if setting in ("shifted", "textures"):
        return (*ROWS, "hnc_energy", "smoothing_energy", "loss_attention_energy")
    return tuple(key for key in ROWS if setting == "plain" or key not in (*NEEDS_MASKS, "minmax_shared"))


# --- what the tuning rows say -----------------------------------------------------------------------------------------


def choose(accuracies: dict[float, float], images: int, *, strongest: bool = True) -> float:
    """The declared rule, on validation accuracy alone: among the values within one standard error of the best one, the
    strongest, so that a method is shown as strong as accuracy lets it be. Of learning rates, the smallest.

    Args:
        accuracies: validation accuracy of each value tried. images: size of the validation split.
    """
    best = max(accuracies.values())
    error = (best * (1 - best) / images) ** 0.5
    return (max if strongest else min)(value for value, reached in accuracies.items() if reached >= best - error)


# What `choose` gave; where no trial has run, the middle value stands in the declaration.
CHOSEN: dict[str, dict[str, float]] = {
    "plain": {
        "smoothing": 0.2,
        "amc": 0.5,
        "amc_w100": 0.02,
        "hnc_mse": 0.1,
        "hnc_kd": 0.1,
        "reff": 3.0,
        "energy": 0.2,
        "loss_attention": 0.3,
    },
    "shifted": {
        "smoothing": 0.2,
        "amc": 0.5,
        "amc_w100": 0.02,
        "hnc_mse": 0.3,
        "hnc_kd": 0.3,
        "reff": 3.0,
        "energy": 0.1,
        "loss_attention": 0.1,
    },
    "noisy": {"smoothing": 0.05, "amc": 0.5, "amc_w100": 0.02, "hnc_mse": 1.0, "hnc_kd": 1.0, "loss_attention": 1.0},
    "multi": {"hnc_mse": 0.1, "hnc_kd": 0.1, "loss_attention": 1.0},
    "clothes": {
        "smoothing": 0.2,
        "amc": 0.5,
        "amc_w100": 0.05,
        "hnc_mse": 0.3,
        "hnc_kd": 0.3,
        "loss_attention": 0.3,
    },
}


def chosen_method(setting: str, key: str):
    """The method of one row with its chosen value; a combination takes its parts' values as they are."""
    if key in COMBINED:
        parts = tuple(chosen_method(setting, part) for part in COMBINED[key][1])
        if net_of(key) is patches:
            return partial(Focused, base=parts[0], focus=parts[1], layers=PATCH_LAYERS)
        return partial(Combined, parts=parts)
    row = ROWS[key]
    return row.method(CHOSEN.get(setting, {}).get(key, row.grid[1]) if row.grid else None)


def net_of(key: str):
    """The network of a row; a combination's is that of its first part."""
    return ROWS[COMBINED[key][1][0] if key in COMBINED else key].net


# --- measures ---------------------------------------------------------------------------------------------------------

LATE = Clock(epoch=9, step=9, epochs=10, steps_per_epoch=1)
COST = partial(cost, baseline=reference, clock=LATE)
SINGLE = (
    accuracy,
    validation_accuracy,
    calibration,
    partial(fgsm_accuracy, epsilons=(0.02,), limit=200),
    partial(pgd_accuracy, epsilons=(0.02,), steps=10, objective="margin", limit=100),
    explanations,
    perturbation,
)
CONTROLLED = ("ce", "loss_attention")  # one row of each network that has maps of its own
SEVERAL = (multilabel_scores, validation_accuracy, explanations)
WITHOUT_MASKS = tuple(measure for measure in SINGLE if measure is not explanations)


def measures(setting: str, key: str) -> tuple:
    if setting in REAL and not REAL[setting].masks:
        return WITHOUT_MASKS
    found = SEVERAL if setting == "multi" else SINGLE
    more = {"noisy": (partial(memorised, limit=300),), "plain": (randomisation, COST)}
    found = (*found, *more.get(setting, ()))
    return (*found, controls) if key in CONTROLLED else found


SHOWN = ("accuracy", "fgsm_0.02", "ece", "energy_in_mask", "pointing", "iou")
SHOWN_SEVERAL = ("mAP", "OF1", "energy_in_mask", "pointing", "iou")


def shown(setting: str) -> tuple[str, ...]:
    if setting == "multi":
        return SHOWN_SEVERAL
    if setting in REAL and not REAL[setting].masks:
        return SHOWN[:3]
    more = {"plain": "time", "shifted": "validation_accuracy", "noisy": "memorised"}
    return (SHOWN[0], more[setting], *SHOWN[1:]) if setting in more else SHOWN
