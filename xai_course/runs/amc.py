"""AMC-Loss: every row of its Table 1 and of Figs. 1, 2, 4, 5, 6, 7 as data, and our own rows on Textured Digits.

``amc`` is the loss weighted as printed (w_max = 1), ``amc_w100`` as in the released code. All ramps keep the paper's
shares of a run (80 and 50 of 300 epochs; 40 and 30 of 150 for the figure network), whatever its length.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from ..data.batch import ArrayData, Splits, fingerprint
from ..data.textured_digits import textured_digits
from ..data.vision import cifar10, cifar100, mnist, svhn
from ..measure.features import clusters
from ..measure.localising import localisation, map_area
from ..measure.looking import accuracy
from ..methods.amc import AmcLoss, EuclideanContrastive
from ..methods.base import CrossEntropy
from ..nets.convnets import GapClassifier, amc_figure_net, amc_net, small_cnn
from ..preset import Preset
from .experiment import Experiment

CE = ("Cross-entropy", CrossEntropy)
EUCLID = ("+ Euclid", EuclideanContrastive)
AMC = ("+ AMC-Loss, weight as printed (1)", AmcLoss)
AMC_100 = ("+ AMC-Loss, weight as released (100)", partial(AmcLoss, w_max=100.0))
AMC_100_TRUE = ("+ AMC-Loss, weight 100, true labels", partial(AmcLoss, w_max=100.0, pair_labels="true"))
AMC_10 = ("+ AMC-Loss, weight 10", partial(AmcLoss, w_max=10.0))
AMC_10_TRUE = ("+ AMC-Loss, weight 10, true labels", partial(AmcLoss, w_max=10.0, pair_labels="true"))
PAPER = {"ce": CE, "euclid": EUCLID, "amc": AMC, "amc_w100": AMC_100}
DIGITS = {
    "ce": CE,
    "euclid": EUCLID,
    "euclid_w100": ("+ Euclid, weight 100", partial(EuclideanContrastive, w_max=100.0)),
    "amc_w1": AMC,
    "amc_w10": AMC_10,
    "amc_w100": AMC_100,
    "amc_w100_true": AMC_100_TRUE,
    "amc_w100_late": ("+ AMC-Loss, weight 100, from epoch 6", partial(AmcLoss, w_max=100.0, start_epoch=6)),
}
TABLE_1 = {
    "mnist": ("MNIST", mnist, ("99.63 ± 0.01", "99.65 ± 0.01", "99.66 ± 0.01")),
    "cifar10": ("CIFAR-10", cifar10, ("82.35 ± 0.17", "82.60 ± 0.21", "82.97 ± 0.20")),
    "svhn": ("SVHN", svhn, ("94.03 ± 0.11", "95.29 ± 0.06", "95.52 ± 0.05")),
    "cifar100": (
        "CIFAR-100, 20 superclasses",
        partial(cifar100, labels="coarse"),
        ("65.16 ± 0.12", "65.57 ± 0.20", "66.19 ± 0.22"),
    ),
}
MACHINE = "a GPU (300 epochs)"  # 731 million multiply-adds per image, forward only
SEEN = ("accuracy", "homogeneity", "completeness", "angle_within", "angle_between")


# --- parts -----------------------------------------------------------------------------------------------------------


def ramped(epochs: int, up: float, down: float, batch_size: int = 128, **more) -> Preset:
    """Adam, peak learning rate 0.003, Gaussian ramps over the shares ``up`` and ``down`` of the epochs."""
    return Preset(epochs, batch_size, lr=0.003, schedule="gaussian_ramps", ramp_up=up, ramp_down=down, **more)


BIG = {  # the network of Table 2 top; "smoke" only shows that the row runs
    "smoke": ramped(1, 0, 0, limit=128),
    "colab": ramped(60, 80 / 300, 50 / 300, precision="bf16", channels_last=True),
    "paper": ramped(300, 80 / 300, 50 / 300),
}
RELEASED = {**BIG, "paper": ramped(200, 50 / 200, 30 / 200, ema=0.999)}
FIGURE = {
    "smoke": ramped(10, 40 / 150, 30 / 150, 64, limit=3000),
    "colab": ramped(30, 40 / 150, 30 / 150),
    "paper": ramped(150, 40 / 150, 30 / 150),
}
SMALL = {
    "smoke": ramped(12, 80 / 300, 50 / 300, 64),
    "colab": ramped(30, 80 / 300, 50 / 300),
    "paper": ramped(60, 80 / 300, 50 / 300),
}


def table2(splits: Splits, **options) -> GapClassifier:
    """Table 2 top, with the number of channels and classes that the data have."""
    return amc_net(len(splits.classes), channels=splits.train.__getitems__([0]).images.shape[1], **options)


def figure(splits: Splits, **options) -> GapClassifier:
    """Table 2 bottom."""
    return amc_figure_net(len(splits.classes), **options)


def small(splits: Splits) -> GapClassifier:
    """The small network of CPU labs at half its width: 32 features."""
    return small_cnn(len(splits.classes), width=8)


def five_digits(preset: str = "smoke", *, seed: int = 0) -> Splits:
    """MNIST's classes 0, 1, 2, 3 and 6 (Fig. 1), relabelled 0 to 4."""
    kept, splits = (0, 1, 2, 3, 6), mnist(preset, seed=seed)
    parts = []
    for data in (splits.train, splits.validation, splits.test):
        rows = [i for i, label in enumerate(data.labels.tolist()) if label in kept]
        labels = data.labels[rows].clone().apply_(kept.index)
        parts.append(ArrayData(data.images[rows], labels))
    identity = fingerprint(splits.fingerprint, kept)
    return Splits("MNIST, digits 0, 1, 2, 3, 6", *parts, tuple(map(str, kept)), identity)


# --- the paper's rows ------------------------------------------------------------------------------------------------


def _table_1() -> Iterator[Experiment]:
    for name, (title, data, printed) in TABLE_1.items():
        needs = MACHINE if name == "mnist" else f"{title.split(',')[0]} (download) and {MACHINE}"
        for (row, (loss, method)), number in zip(PAPER.items(), (*printed, "")):
            reported = {"accuracy": number} if number else {}
            yield Experiment(
                f"amc/table1/{name}/{row}",
                f"{title}: {loss}",
                data,
                table2,
                method,
                BIG,
                (accuracy, clusters),
                reported,
                needs,
            )
    released = partial(table2, released=True)
    for row, method in {
        "released_ce": CrossEntropy,
        "released_amc": partial(AmcLoss, w_max=100.0, start_epoch=1),
    }.items():
        title = f"CIFAR-10, released network and schedule: {'+ AMC-Loss' if row.endswith('amc') else 'Cross-entropy'}"
        needs = f"CIFAR-10 (download) and {MACHINE}"
        yield Experiment(
            f"amc/table1/cifar10/{row}", title, cifar10, released, method, RELEASED, (accuracy, clusters), {}, needs
        )


def _mnist_figures() -> Iterator[Experiment]:
    """Fig. 1: two features, five digits, cross-entropy. Fig. 4: three features on the sphere, all losses."""
    flat = partial(figure, features=2, linear=True)
    yield Experiment(
        "amc/fig1/ce",
        "Cross-entropy, 2 features",
        five_digits,
        flat,
        CrossEntropy,
        FIGURE,
        (accuracy, clusters),
        shown=SEEN,
    )
    ours = {"amc_w100_true": AMC_100_TRUE, "amc_w10": AMC_10, "amc_w10_true": AMC_10_TRUE}
    for row, (title, method) in {**PAPER, **ours}.items():
        solid = partial(figure, features=3, linear=True)
        yield Experiment(f"amc/fig4/{row}", title, mnist, solid, method, FIGURE, (accuracy, clusters), shown=SEEN)


def _colour_figures() -> Iterator[Experiment]:
    """Figs. 2 and 6: Grad-CAM on CIFAR-10. Fig. 5: t-SNE of SVHN. Fig. 7: sensitivity on CIFAR-10."""
    maps, features = (accuracy, map_area), (accuracy, clusters)
    for item, data, name, measures in (
        ("fig2", cifar10, "CIFAR-10", maps),
        ("fig5", svhn, "SVHN", features),
        ("fig6", cifar10, "CIFAR-10", maps),
    ):
        for row, (title, method) in PAPER.items():
            needs = f"{name} (download) and {MACHINE}"
            yield Experiment(f"amc/{item}/{row}", title, data, table2, method, BIG, measures, needs=needs)
    sweep = {"lambda_0": ("λ = 0", CrossEntropy)}
    for value in (1.0, 0.1, 0.01, 0.001):
        sweep[f"lambda_{value:g}"] = (f"λ = {value:g}, m_g = 0.5", partial(AmcLoss, balance=value))
    for value in (0.75, 1.0, 1.25, 1.5):
        sweep[f"margin_{value:g}"] = (f"λ = 0.1, m_g = {value:g}", partial(AmcLoss, margin=value))
    for row, (title, method) in sweep.items():
        needs = f"CIFAR-10 (download) and {MACHINE}"
        yield Experiment(f"amc/fig7/{row}", title, cifar10, table2, method, BIG, (accuracy,), needs=needs)


# --- our own rows ----------------------------------------------------------------------------------------------------


def _digits() -> Iterator[Experiment]:
    """Textured Digits in which only the shape tells the class; 32 features."""
    data = partial(textured_digits, p=1.0, q=1.0)
    shown = (
        "accuracy",
        "homogeneity",
        "angle_within",
        "angle_between",
        "active_negatives",
        "energy_in_mask",
        "map_area",
    )
    measures = (accuracy, clusters, localisation, map_area)
    for row, (title, method) in DIGITS.items():
        yield Experiment(f"amc/digits/{row}", title, data, small, method, SMALL, measures, shown=shown)


EXPERIMENTS: tuple[Experiment, ...] = (*_table_1(), *_mnist_figures(), *_colour_figures(), *_digits())
