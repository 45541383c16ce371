"""Loss-Attention: every row of its Tables I-VII and Fig. 7 as data (Figs. 4-6 look at networks of Table V), and our own
rows on Textured Digits.

Each table is a dictionary from row to network, method and the printed numbers. The rows that other papers supplied
(Sabour, Nair, HitNet, DeepCaps) are quotations in Table II and are not run here.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from ..measure.looking import accuracy
from ..measure.multilabel import multilabel_scores
from ..measure.patches import patch_measures
from ..methods.base import CrossEntropy
from ..methods.patch_heads import OFFICIAL, AttentionPooling, DynamicRouting, LossAttention, MeanPooling, Separate
from . import loss_attention_parts as parts
from .experiment import Experiment
from .loss_attention_parts import (
    ADAM,
    CIFAR10,
    CIFAR100,
    COCO,
    DIGITS,
    SGD,
    SVHN,
    TINY,
    TWO_DIGITS,
    capsules,
    conv,
    machine,
    plain,
    routing,
)

GATED = partial(AttentionPooling, gated=True)
NET_TITLES = {
    "vgg11": "VGG11",
    "vgg16": "VGG16",
    "resnet18": "ResNet-18",
    "resnet50": "ResNet-50",
    "googlenet": "GoogLeNet",
}
HEADS = {  # row: title, network, method, preset
    "mean": ("mean-pooling", conv, MeanPooling, ADAM),
    "attention": ("Attention", conv, AttentionPooling, SGD),
    "gated": ("Gated-Attention", conv, GATED, SGD),
    "loss_attention": ("Loss-Attention", conv, LossAttention, SGD),
    "loss_attention_code": ("Loss-Attention, cut and ramp as released", conv, partial(LossAttention, **OFFICIAL), SGD),
    "routing": ("capsules, dynamic routing", routing, DynamicRouting, ADAM),
    "capsule": ("capsules, Loss-Attention", capsules, LossAttention, SGD),
}
PLAIN = ("as it is", plain, CrossEntropy, SGD)
PER_DATA_SET = {"cifar10": CIFAR10, "cifar100": CIFAR100, "svhn": SVHN}
TABLE_2 = {  # CIFAR-10, CIFAR-100, SVHN
    ("vgg11", "plain"): ("92.14", "70.20", "96.48"),
    ("vgg16", "plain"): ("93.52", "72.35", "96.83"),
    ("vgg11", "mean"): ("93.99", "74.03", "96.37"),
    ("vgg11", "attention"): ("94.17", "75.47", "96.52"),
    ("vgg11", "gated"): ("93.78", "74.35", "96.88"),
    ("vgg11", "loss_attention"): ("94.51", "76.81", "96.99"),
    ("resnet18", "plain"): ("94.76", "76.61", "96.98"),
    ("resnet50", "plain"): ("95.01", "78.15", "97.12"),
    ("resnet18", "mean"): ("94.59", "75.58", "96.72"),
    ("resnet18", "attention"): ("94.83", "77.48", "97.08"),
    ("resnet18", "gated"): ("94.89", "76.33", "97.07"),
    ("resnet18", "loss_attention"): ("95.31", "78.53", "97.11"),
    ("resnet18", "loss_attention_code"): ("", "", ""),
    ("vgg11", "routing"): ("93.37", "68.41", "96.08"),
    ("vgg11", "capsule"): ("94.98", "75.84", "96.78"),
    ("resnet18", "routing"): ("93.88", "68.88", "96.70"),
    ("resnet18", "capsule"): ("95.47", "76.70", "97.24"),
}
TABLE_3 = {
    ("resnet50", "plain"): ("95.01", "78.15"),
    ("resnet50", "loss_attention"): ("95.70", "79.17"),
    ("googlenet", "plain"): ("94.58", "77.45"),
    ("googlenet", "loss_attention"): ("95.63", "78.68"),
}
FIVE = ("accuracy", "ap", "precision", "recall", "f")
TABLE_4 = {  # Tiny ImageNet: accuracy, AP, precision, recall, F for VGG11 and ResNet-18
    "plain": ("56.52", "63.84"),
    "mean": ("57.83 – 81.85 13.53 23.22", "58.79 – 81.67 14.06 23.99"),
    "attention": ("61.75 55.29 83.88 18.81 30.73", "63.22 55.31 84.18 19.24 31.32"),
    "gated": ("60.56 55.29 84.09 16.07 26.98", "61.82 55.53 84.12 17.33 28.74"),
    "loss_attention": ("62.58 57.07 82.67 29.98 44.00", "64.05 57.52 82.69 30.71 44.79"),
    "capsule": ("59.58 52.80 81.20 29.98 43.79", "61.58 52.96 81.35 32.41 46.35"),
}
FOUR = ("mAP", "precision", "recall", "f")
TABLE_5 = {  # COCO: mAP, precision, recall, F
    "plain": ("40.58", "49.35"),
    "mean": ("50.16 23.63 69.39 35.25", "51.43 23.88 73.10 36.00"),
    "attention": ("36.70 20.75 48.88 29.13", "42.93 20.66 48.88 29.04"),
    "gated": ("36.06 20.73 48.83 29.10", "48.56 20.72 49.21 29.16"),
    "loss_attention": ("57.86 24.88 71.73 36.95", "59.38 25.16 72.52 37.36"),
    "routing": ("44.65 22.93 99.91 37.30", "48.19 22.92 99.99 37.31"),
    "capsule": ("55.60 23.72 80.11 36.60", "57.65 23.74 79.12 36.52"),
}
TABLE_6 = {  # balance, xi; the AP of the rows with xi = 0 is that of the whole grid
    (0.0, 0.1): ("61.51 55.37 82.27 29.18 43.08", "63.68 53.24 82.51 23.09 36.08"),
    (0.1, 0.0): ("62.15 52.26 82.03 30.91 44.90", "63.92 52.26 81.89 31.77 45.78"),
    (0.1, 0.1): ("62.58 57.07 82.67 29.98 44.00", "64.05 57.52 82.69 30.71 44.79"),
}
TABLE_7 = {  # stride-2 stages: accuracy with a patch layer of stride 4 and of stride 2
    0: ("92.55", "92.81"),
    1: ("95.27", "95.19"),
    2: ("95.46", "95.26"),
    3: ("95.34", "95.36"),
}
FIG_7 = {
    **{f"gamma_{g:g}": (g, 0.1) for g in (0.0, 0.05, 0.1, 0.5, 1.0, 5.0)},
    **{f"xi_{x:g}": (0.1, x) for x in (0.0, 0.3, 0.5, 0.7, 1.0)},
}


def _row(item, where, net, head, data, measures, printed="", names=("accuracy",), **more) -> Experiment:
    title, build, method, preset = PLAIN if head == "plain" else HEADS[head]
    if head == "plain" or head == "routing":  # neither has patches to measure
        measures = tuple(m for m in measures if m is not patch_measures)
    size, needs = data.size, machine(data, net, head)
    reported = {name: value for name, value in zip(names, printed.split()) if value != "–"}
    settings = {
        "method": more.get("method", method),
        "net": more.get("build") or partial(build, name=net, size=size),
        "presets": more.get("presets", preset),
    }
    text = more.get("title") or f"{data.title}, {NET_TITLES[net]}: {title}"
    return Experiment(
        f"loss_attention/{item}/{where}",
        text,
        data.load,
        **settings,
        measures=measures,
        reported=reported,
        needs=needs,
        augment=data.augment,
        shown=names,
    )


def _table_1() -> Iterator[Experiment]:
    """How much dynamic routing and mean-pooling depend on the optimiser (ResNet-18)."""
    rows = [("cifar10", CIFAR10, "routing", "91.82", "93.88"), ("cifar100", CIFAR100, "routing", "47.37", "68.88")]
    rows += [("coco", COCO, "routing", "22.01", "48.19"), ("coco", COCO, "mean", "43.02", "51.43")]
    for where, data, head, *printed in rows:
        measures, names = ((multilabel_scores,), ("mAP",)) if data is COCO else ((accuracy,), ("accuracy",))
        for name, preset, number in zip(("sgd", "adam"), (SGD, ADAM), printed):
            title = f"{data.title}, ResNet-18: {HEADS[head][0]}, {name.upper() if name == 'sgd' else 'Adam'}"
            yield _row(
                "table1",
                f"{where}/{head}_{name}",
                "resnet18",
                head,
                data,
                measures,
                number,
                names,
                presets=preset,
                title=title,
            )


def _tables_2_and_3() -> Iterator[Experiment]:
    for place, (where, data) in enumerate(PER_DATA_SET.items()):
        for (net, head), printed in TABLE_2.items():
            official = net == "resnet50"  # only the released bottleneck has the printed 58.16 M parameters
            special = partial(plain, name=net, size=32, official_bottleneck=True) if official else None
            yield _row("table2", f"{where}/{net}_{head}", net, head, data, (accuracy,), printed[place], build=special)
    for place, where in enumerate(("cifar10", "cifar100")):
        for (net, head), printed in TABLE_3.items():
            build, option = (plain, "official_bottleneck") if head == "plain" else (conv, "official")
            special = partial(build, name=net, size=32, **{option: True}) if net == "resnet50" else None
            data, name = PER_DATA_SET[where], f"{where}/{net}_{head}"
            yield _row("table3", name, net, head, data, (accuracy,), printed[place], build=special)


def _tables_4_to_6() -> Iterator[Experiment]:
    single, several = (accuracy, patch_measures), (multilabel_scores, patch_measures)
    for i, net in enumerate(("vgg11", "resnet18")):
        for head, printed in TABLE_4.items():
            yield _row("table4", f"{net}_{head}", net, head, TINY, single, printed[i], FIVE)
        for head, printed in TABLE_5.items():
            yield _row("table5", f"{net}_{head}", net, head, COCO, several, printed[i], FOUR)
        for (gamma, xi), printed in TABLE_6.items():
            yield _swept("table6", f"{net}_gamma{gamma:g}_xi{xi:g}", net, gamma, xi, printed[i])
        for name, (gamma, xi) in FIG_7.items():
            yield _swept("fig7", f"{net}_{name}", net, gamma, xi)


def _swept(item: str, where: str, net: str, gamma: float, xi: float, printed: str = "") -> Experiment:
    method = partial(LossAttention, balance=gamma, cutoff=xi)
    title = f"{TINY.title}, {NET_TITLES[net]}: γ = {gamma:g}, ξ = {xi:g}"
    measures = (accuracy, patch_measures)
    return _row(item, where, net, "loss_attention", TINY, measures, printed, FIVE, method=method, title=title)


def _table_7() -> Iterator[Experiment]:
    """CIFAR-10 at 64 pixels, ResNet-18, batches of 48. Three strides leave 8 cells for a kernel of 9: padded, ours."""
    for strides, printed in TABLE_7.items():
        for step, number in zip((4, 2), printed):
            padding = 4 if strides == 3 else 0
            net = partial(conv, name="resnet18", size=64, strides=strides, step=step, padding=padding)
            title = f"{strides} strides, patch layer of stride {step}" + (", padding 4 (ours)" if padding else "")
            where = f"strides{strides}_step{step}"
            data, presets = parts.CIFAR10_64, parts.BATCH_48
            yield _row(
                "table7",
                where,
                "resnet18",
                "loss_attention",
                data,
                (accuracy,),
                number,
                build=net,
                presets=presets,
                title=title,
            )


# --- our own rows ----------------------------------------------------------------------------------------------------


def loss(**options):
    """Loss-Attention with the ramp over 40 % of the epochs, the paper's share."""
    return partial(LossAttention, **options)


SMALL_NET, SMALL_CAPSULES = partial(conv, name="small"), partial(capsules, name="small")
DIGIT_ROWS = {
    "plain": ("Strided CNN, no patches", parts.strided, CrossEntropy),
    "mean": ("Mean-pooling", SMALL_NET, MeanPooling),
    "attention": ("Attention", SMALL_NET, AttentionPooling),
    "gated": ("Gated-Attention", SMALL_NET, GATED),
    "gated_patch_loss": (
        "Gated-Attention, patch term γ = 0.1",
        SMALL_NET,
        partial(GATED, balance=0.1),
    ),
    "gamma_0": ("Loss-Attention, γ = 0, ξ = 0.1", SMALL_NET, loss(balance=0.0)),
    "loss_attention": ("Loss-Attention, γ = 0.1, ξ = 0.1", SMALL_NET, loss()),
    "gamma_1": ("Loss-Attention, γ = 1, ξ = 0.1", SMALL_NET, loss(balance=1.0)),
    "xi_0": ("Loss-Attention, γ = 0.1, ξ = 0", SMALL_NET, loss(cutoff=0.0)),
    "xi_0.5": ("Loss-Attention, γ = 0.1, ξ = 0.5", SMALL_NET, loss(cutoff=0.5)),
    "xi_1": ("Loss-Attention, γ = 0.1, ξ = 1", SMALL_NET, loss(cutoff=1.0)),
    "detached": ("Loss-Attention, α detached in the patch term", SMALL_NET, loss(detach_alpha=True)),
    "code": ("Loss-Attention, cut and ramp as released", SMALL_NET, loss(**OFFICIAL)),
    "capsule": ("Capsules, Loss-Attention", SMALL_CAPSULES, loss()),
    "routing": ("Capsules, dynamic routing", partial(routing, name="small"), DynamicRouting),
}
TWO_DIGIT_ROWS = {
    "plain": ("Strided CNN, no patches", parts.strided, Separate),
    "mean": ("Mean-pooling", SMALL_NET, MeanPooling),
    "attention": ("Attention", SMALL_NET, AttentionPooling),
    "gated": ("Gated-Attention", SMALL_NET, GATED),
    "gamma_0": ("Loss-Attention, γ = 0", SMALL_NET, loss(balance=0.0)),
    "loss_attention": ("Loss-Attention, γ = 0.1", SMALL_NET, loss()),
    "gamma_1": ("Loss-Attention, γ = 1", SMALL_NET, loss(balance=1.0)),
    "relu_norm": ("Loss-Attention, γ = 0.1, length of positive logits (ours)", SMALL_NET, loss(norm="relu")),
    "capsule": ("Capsules, Loss-Attention", SMALL_CAPSULES, loss()),
}
SHOWN = ("precision", "recall", "f", "plain_f", "base", "mass", "evidence", "kept", "ap", "ap_level", "ap_all")


def _digits() -> Iterator[Experiment]:
    for row, (title, net, method) in DIGIT_ROWS.items():
        measures = (accuracy,) if row in ("plain", "routing") else (accuracy, patch_measures)
        shown = ("accuracy", *SHOWN)
        name = f"loss_attention/digits/{row}"
        yield Experiment(name, title, DIGITS, net, method, parts.SMALL, measures, shown=shown)
    for row, (title, net, method) in TWO_DIGIT_ROWS.items():
        measures = (multilabel_scores,) if row == "plain" else (multilabel_scores, patch_measures)
        shown = ("mAP", *SHOWN[:-3])
        name = f"loss_attention/two_digits/{row}"
        yield Experiment(name, title, TWO_DIGITS, net, method, parts.SMALL, measures, shown=shown)


EXPERIMENTS: tuple[Experiment, ...] = (*_digits(), *_table_1(), *_tables_2_and_3(), *_tables_4_to_6(), *_table_7())
