"""What a row costs on a GPU, before one is there: one small step counted on a CPU, scaled by what the card can do.

An estimate, likely within a factor of three: arithmetic at ``SHARE`` of the card's peak or memory traffic, whichever
takes longer, at least ``STEP`` seconds a step, and nothing for loading data or measuring. Memory is what the graph
holds for the backward pass, with weights and optimiser.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch

from ..data.batch import Batch, Splits
from ..measure.memory import saved_activations
from ..preset import Clock
from .estimate import words
from .experiment import Experiment

SHARE = 0.3  # of the peak; training of convolutional networks rarely reaches more
STEP = 0.005  # s, to launch a step's kernels
TRAFFIC = 6  # how often what the graph holds crosses the memory bus in a step
RESERVE = 1.5  # GB for the driver, libraries and fragments


class Card(NamedTuple):
    """Peak rates in TFLOP/s, GB/s and GB, from NVIDIA's data sheets (dense, SXM where there are several)."""

    single: float
    half: float
    bandwidth: float
    memory: float
    kind: str


CARDS = {
    "t4": Card(8.1, 65, 320, 15, "fp16"),
    "l4": Card(30.3, 121, 300, 23, "bf16"),
    "a100": Card(19.5, 312, 1555, 40, "bf16"),
    "h100": Card(67, 989, 3350, 80, "bf16"),
    "h200": Card(67, 989, 4800, 141, "bf16"),
}

# Side of an image, classes, and training images of the full data sets; "colab" and "paper" alike.
SETS = {
    "textured_digits": (32, 10, 4000),
    "cued_digits": (32, 10, 600),
    "on_photographs": (32, 10, 800),
    "tinted_photographs": (32, 20, 2000),
    "mnist": (28, 10, 55000),
    "cifar10": (32, 10, 45000),
    "cifar100": (32, 100, 45000),
    "svhn": (32, 10, 65931),
    "tiny_imagenet": (64, 200, 95000),
    "imagenet": (224, 1000, 1268356),
    "cub": (448, 200, 5394),
    "cub5": (480, 5, 120),
    "coco": (288, 80, 78000),
    "glas": (480, 2, 67),
    "nuclei": (128, 2, 500),
    "textured_mnist": (224, 10, 54000),
    "isic2017": (224, 3, 2000),
    "pets": (224, 37, 3300),
    "fashion_mnist": (32, 10, 55000),
}
ALIASES = {"digits": "textured_digits", "shuffled_digits": "textured_digits", "spotted": "textured_digits"}
ALIASES |= {"five_digits": "mnist", "noisy_cifar100": "cifar100", "coco_288": "coco", "small_nuclei": "nuclei"}
ALIASES |= {"clothes": "fashion_mnist", "textures": "textured_mnist"}
SIDES = {"textures": 32, "enlarged": 64}


def card(name: str) -> Card:
    """A card by its short name or by what its driver calls it.

    Raises:
        ValueError: it is not in the table.
    """
    if not known(name):
        raise ValueError(f"unknown GPU {name!r}: known are {', '.join(CARDS)}")
    return CARDS[known(name)]


def known(name: str) -> str:
    """The short name within a driver's name, such as "NVIDIA H100 80GB HBM3"; "" for another card."""
    return next((short for short in CARDS if re.search(rf"\b{short}\b", name, re.IGNORECASE)), "")


def plan_line(row: Experiment, preset: str, name: str) -> str:
    """One line: hours per seed, memory, batch and precision of ``row`` on the card ``name``."""
    plan, gpu = row.preset(preset), card(name)
    side, classes, images = _images(row)
    images = min(images, plan.limit or images)
    try:
        flops, activations, fixed = _one_step(row, side, classes)
    except Exception as why:  # a row may need files that are not here
        return f"{row.name}: not known ({type(why).__name__}: {str(why).splitlines()[0][:80]})"
    precision = gpu.kind if plan.precision == "auto" else plan.precision
    if precision == "bf16" and gpu.kind == "fp16":
        return f"{row.name}: asks for bf16, which {name} does not have"
    half = precision != "no"
    each = activations * (0.6 if half else 1.0)
    most = int((gpu.memory - RESERVE - fixed) / each)
    batch = min(plan.batch_size, images)
    if most < 2:
        return f"{row.name}: fits no batch on {name}, 2 images need {fixed + 2 * each + RESERVE:.0f} GB"
    fits = batch if batch <= most else 2 ** (most.bit_length() - 1)
    rate = (gpu.half if half else gpu.single) * SHARE * 1e12
    seconds = plan.epochs * (images // fits) * max(STEP, fits * flops / rate, fits * each * TRAFFIC / gpu.bandwidth)
    said = "" if fits == batch else f" (not {batch}, which need {fixed + batch * each + RESERVE:.0f} GB)"
    memory = fixed + fits * each + RESERVE
    text = {"no": "float32"}.get(precision, precision)
    return f"{row.name}: about {words(seconds)} per seed, {memory:.1f} GB, batch {fits}{said}, {text}"


def _images(row: Experiment) -> tuple[int, int, int]:
    """Side, classes and number of training images."""
    call: Any = row.data
    keywords: dict[str, Any] = {}
    name, side = "", None
    while name not in SETS:
        while isinstance(call, partial):
            keywords, inner = {**call.keywords, **keywords}, call.args[0] if call.args else None
            call = call.func if not (inner and callable(inner)) else call
            if inner and callable(inner):
                side, call = SIDES.get(call.func.__name__, side), inner
        side = SIDES.get(call.__name__, side)
        name = ALIASES.get(call.__name__, call.__name__)
        call = keywords.pop("source", None) or call
        if name not in SETS and not isinstance(call, partial) and call.__name__ == name:
            raise ValueError(f"{row.name}: nothing is known of the size of {name}")
    found = SETS[name]
    return keywords.get("size") or side or found[0], keywords.get("classes") or found[1], found[2]


def _one_step(row: Experiment, side: int, classes: int, count: int = 4) -> tuple[float, float, float]:
    """FLOPs and GB of one image, and GB of weights, gradients and optimiser, from a step on ``count`` random images."""
    from torch.utils.flop_counter import FlopCounterMode

    channels = 1 if "'channels': 1" in str(row.net) else 3
    labels = torch.arange(count) % classes
    if any("multilabel" in getattr(_inner(m), "__name__", "") for m in row.measures):
        labels = torch.nn.functional.one_hot(labels, classes).float()
    batch = Batch(torch.rand(count, channels, side, side), labels, torch.rand(count, side, side) > 0.5, labels)
    data = _Few(batch)
    with torch.random.fork_rng(devices=[]):
        method = row.method(row.net(Splits("", data, data, data, tuple(map(str, range(classes))), ""))).train()
        late = Clock(epoch=9, step=9, epochs=10, steps_per_epoch=1)
        with saved_activations(method) as account, FlopCounterMode(display=False) as counter:
            for terms in method.losses(batch._replace(index=torch.arange(count)), late):
                terms["total"].backward()
    weights = sum(p.nbytes for p in method.parameters())
    return counter.get_total_flops() / count, account.peak / count / 1e9, 4 * weights / 1e9


def _inner(call: Callable[..., Any]) -> Callable[..., Any]:
    return _inner(call.func) if isinstance(call, partial) else call


class _Few:
    """A data set of one batch, for networks that ask how their images look."""

    def __init__(self, batch: Batch):
        self.batch = batch

    def __len__(self) -> int:
        return len(self.batch.images)

    def __getitems__(self, indices: Any) -> Batch:
        return self.batch
