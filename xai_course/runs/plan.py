"""What a row costs on a GPU, before one is there: one small step counted on a CPU, scaled by what the card can do.

An estimate, likely within a factor of three: arithmetic at ``SHARE`` of the card's peak or memory traffic, whichever
takes longer, at least ``STEP`` seconds a step, and nothing for loading data or measuring. Memory is what the graph
holds for the backward pass, with weights and optimiser.
"""

import functools
import re
import tomllib
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch

from .._require import require
from ..data.batch import ArrayData, Splits
from ..data.files import course_file
from ..identity import identity
from ..measure.memory import saved_activations
from ..preset import Clock
from .estimate import words
from .experiment import Experiment

SHARE = 0.3  # of the peak, assumed: no record of a GPU says what training reaches
STEP = 0.005  # s, to launch a step's kernels
TRAFFIC = 6  # how often what the graph holds crosses the memory bus in a step
RESERVE = 1.5  # GB for the driver, libraries and fragments


class Estimate(NamedTuple):
    """Seconds per seed, GB, batch and precision of a row on a card; ``said`` of a batch that had to be smaller."""

    seconds: float
    memory: float
    batch: int
    precision: str
    said: str

    @property
    def text(self) -> str:
        """In words."""
        about = f"about {words(self.seconds)} per seed, {self.memory:.1f} GB"
        return f"{about}, batch {self.batch}{self.said}, {self.precision}"


@functools.cache
def _known() -> dict[str, Any]:
    return tomllib.loads(course_file("gpus.toml").read_text("utf-8"))


def card(name: str) -> SimpleNamespace:
    """A card by its short name or by what its driver calls it: the fields of ``data/gpus.toml``.

    Raises:
        ValueError: it is not in the table.
    """
    require(known(name), f"unknown GPU {name!r}: known are {', '.join(_known()['card'])}")
    return SimpleNamespace(**_known()["card"][known(name)])


def known(name: str) -> str:
    """The short name within a driver's name, such as "NVIDIA H100 80GB HBM3"; "" for another card."""
    return next((short for short in _known()["card"] if re.search(rf"\b{short}\b", name, re.IGNORECASE)), "")


def promised(row: Experiment) -> bool | None:
    """Whether a seed of preset colab takes at most 30 minutes and 8 GB on a T4; None for a row never estimated."""
    promise = _known()["promise"]
    if row.name in promise["none"]:
        return False
    return True if row.name.startswith(tuple(f"{each}/" for each in promise["estimated"])) else None


def keeps_promise(found: Estimate) -> bool:
    """Whether an estimate on the promise's card lies within it."""
    promise = _known()["promise"]
    return found.seconds <= 60 * promise["minutes"] and found.memory <= promise["gigabytes"]


def plan_line(row: Experiment, preset: str, name: str) -> str:
    """One line: hours per seed, memory, batch and precision of ``row`` on the card ``name``."""
    try:
        found = estimated(row, preset, name)
    except Exception as why:  # a row may need files that are not here
        said = str(why) if type(why) is ValueError else f"not known ({type(why).__name__}: {why})"
        return f"{row.name}: {said.splitlines()[0][:120]}"
    promise = _known()["promise"]
    broken = preset == "colab" and known(name) == promise["gpu"] and not keeps_promise(found)
    mark = f"  ! more than colab's {promise['minutes']} min, {promise['gigabytes']} GB" if broken else ""
    return f"{row.name}: {found.text}{mark}"


def estimated(row: Experiment, preset: str, name: str) -> Estimate:
    """What ``row`` takes on the card ``name``.

    Raises:
        ValueError: an unknown card, a precision that it lacks, no batch that fits, or nothing to train.
    """
    plan, gpu = row.preset(preset), card(name)
    side, classes, images = _images(row)
    images = min(images, plan.limit or images)
    several = "multilabel" in str(identity(row.measures))
    try:
        flops, activations, fixed = _one_step(row.net, row.method, (3, side, side), classes, several)
    except RuntimeError:  # a network for grey images
        flops, activations, fixed = _one_step(row.net, row.method, (1, side, side), classes, several)
    require(activations, "trains nothing")
    precision = gpu.kind if plan.precision == "auto" else plan.precision
    require(gpu.kind == "bf16" or precision != "bf16", f"asks for bf16, which {name} does not have")
    half = precision != "no"
    each = activations * (0.6 if half else 1.0)
    most = int((gpu.memory - RESERVE - fixed) / each)
    batch = min(plan.batch_size, images)
    require(most >= 2, f"fits no batch on {name}, 2 images need {fixed + 2 * each + RESERVE:.0f} GB")
    fits = batch if batch <= most else 2 ** (most.bit_length() - 1)
    rate = (gpu.half if half else gpu.single) * SHARE * 1e12
    seconds = plan.epochs * (images // fits) * max(STEP, fits * flops / rate, fits * each * TRAFFIC / gpu.bandwidth)
    said = "" if fits == batch else f" (not {batch}, which need {fixed + batch * each + RESERVE:.0f} GB)"
    return Estimate(seconds, fixed + fits * each + RESERVE, fits, {"no": "float32"}.get(precision, precision), said)


def _images(row: Experiment) -> tuple[int, int, int]:
    """Side, classes and number of training images, by the functions that give the data, the outermost first."""
    sets, aliases, sides = (_known()[key] for key in ("sets", "alias", "side"))
    call: Any = identity(row.data)
    names, told = [], dict[str, Any]()
    while call:
        call = call if isinstance(call, dict) else {"call": call}
        names.append(call["call"].rpartition(".")[2])
        told, call = call | told, call.get("0") or call.get("source")
    found: list[int] = next((sets[name] for each in names if (name := aliases.get(each, each)) in sets), [])
    require(found, f"nothing is known of the size of {names[-1]}")
    side = next((sides[name] for name in names if name in sides), found[0])
    return told.get("size", side), told.get("classes", found[1]), found[2]


@functools.cache
def _one_step(
    net: Callable, method: Callable, shape: tuple[int, int, int], classes: int, several: bool, count: int = 4
) -> tuple[float, float, float]:
    """FLOPs and GB of one image, and GB of weights, gradients and optimiser, from a step on ``count`` random images."""
    from torch.utils.flop_counter import FlopCounterMode

    labels = torch.arange(count) % classes
    if several:
        labels = torch.nn.functional.one_hot(labels, classes).float()
    data = ArrayData(torch.rand(count, *shape), labels, torch.rand(count, *shape[1:]) > 0.5)
    batch = data.__getitems__(range(count))._replace(cued=torch.arange(count) % 2 > 0)
    with torch.random.fork_rng(devices=[]):
        splits = Splits("", data, data, data, tuple(map(str, range(classes))), "")
        trained = method(_without_download(net)(splits)).train()
        late = Clock(epoch=9, step=9, epochs=10, steps_per_epoch=1)
        with saved_activations(trained) as account, FlopCounterMode(display=False) as counter:
            for terms in trained.losses(batch, late):
                terms["total"].backward()
    weights = sum(p.nbytes for p in trained.parameters())
    return counter.get_total_flops() / count, account.peak / count / 1e9, 4 * weights / 1e9


def _without_download(call: Any) -> Any:
    """The same network with random weights."""
    if not isinstance(call, partial):
        return call
    given = {key: _without_download(value) for key, value in call.keywords.items()}
    off = {key: value for key, value in {"pretrained": False, "weights": None}.items() if key in given}
    return partial(call.func, *map(_without_download, call.args), **given | off)
