"""What a row costs on a GPU, before one is there: a step of its own method, counted on tensors that hold nothing.

The method takes one training step, of the batch that the preset asks for, on fake tensors: no image, no weight and no
mask is ever made, and every operation tells what it computes and moves. An operation takes as long as arithmetic at
``SHARE`` of the card's peak or as memory traffic, whichever is more, and a step at least ``LAUNCH`` seconds for each.
What comes before training (`pix2pix`, a trunk trained at home) is counted in the same way, the measures by
the passes that ``data/gpus.toml`` says they take. An estimate, likely within a factor of three; reading files and
drawing images are not in it.
"""

import functools
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import partial
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch

from .._require import require
from ..data.batch import ArrayData, Batch, Splits
from ..identity import identity
from ..preset import Clock, Preset, half_precision
from .estimate import words
from .experiment import Experiment
from .hollow import Counts, hollow
from .task import Task, gpus, images_of, looks_of

RESERVE = 1.5  # GB for the driver, libraries and fragments
LATE = Clock(epoch=9, step=9, epochs=10, steps_per_epoch=1)  # every ramp is up, every late term is on
DRAWN = 16  # masks that pix2pix draws at once


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


def card(name: str) -> SimpleNamespace:
    """A card by its short name or by what its driver calls it: the fields of ``data/gpus.toml``.

    Raises:
        ValueError: it is not in the table.
    """
    require(known(name), f"unknown GPU {name!r}: known are {', '.join(gpus()['card'])}")
    return SimpleNamespace(**gpus()["card"][known(name)])


def known(name: str) -> str:
    """The short name within a driver's name, such as "NVIDIA H100 80GB HBM3"; "" for another card."""
    return next((short for short in gpus()["card"] if re.search(rf"\b{short}\b", name, re.IGNORECASE)), "")


def promised(row: Experiment) -> bool:
    """Whether a seed of preset colab takes at most 30 minutes and 8 GB on a T4, by this estimate."""
    return not any(fnmatchcase(row.name, pattern) for pattern in gpus()["promise"]["none"])


def keeps_promise(found: Estimate) -> bool:
    """Whether an estimate on the promise's card lies within it."""
    promise = gpus()["promise"]
    return found.seconds <= 60 * promise["minutes"] and found.memory <= promise["gigabytes"]


def beyond() -> str:
    """What is said of a row of which preset colab promises nothing."""
    promise = gpus()["promise"]
    return f"more than colab's {promise['minutes']} min, {promise['gigabytes']} GB"


def plan_line(row: Experiment, preset: str, name: str) -> str:
    """One line: hours per seed, memory, batch and precision of ``row`` on the card ``name``."""
    try:
        found = estimated(row, preset, name)
    except Exception as why:  # a network that nobody has planned yet may do anything
        said = str(why) if type(why) is ValueError else f"not known ({type(why).__name__}: {why})"
        return f"{row.name}: {said.splitlines()[0][:120]}"
    broken = preset == "colab" and known(name) == gpus()["promise"]["gpu"] and not keeps_promise(found)
    return f"{row.name}: {found.text}" + f"  ! {beyond()}" * broken


def estimated(row: Experiment, preset: str, name: str) -> Estimate:
    """What ``row`` takes on the card ``name``.

    Raises:
        ValueError: an unknown card, a precision that it lacks, no batch that fits, or nothing to train.
    """
    plan, gpu, row = row.preset(preset), card(name), row.at(preset)
    task = images_of(row, preset)
    precision = gpu.kind if plan.precision == "auto" else plan.precision
    require(gpu.kind == "bf16" or precision != "bf16", f"asks for bf16, which {name} does not have")
    length = min(task.train, plan.limit or task.train)
    wanted = batch = min(plan.batch_size, length)
    while True:
        step, look = _counted(row, plan, task, batch, precision)
        require(step.flops, "trains nothing")
        if batch == wanted:
            needs = step.memory + RESERVE
        if step.memory + RESERVE <= gpu.memory:
            break
        require(batch > 2, f"fits no batch on {name}, {batch} images need {step.memory + RESERVE:.0f} GB")
        batch = max(2, 2 ** ((batch - 1).bit_length() - 1))
    seconds = plan.epochs * (length // batch) * step.seconds(gpu) + look.seconds(gpu) / batch * looks_of(row, task)
    memory = step.memory
    for times, other in _before(row, preset, task):
        seconds, memory = seconds + times * other.seconds(gpu), max(memory, other.memory)
    said = "" if batch == wanted else f" (not {wanted}, which need {needs:.0f} GB)"
    return Estimate(seconds, memory + RESERVE, batch, {"no": "float32"}.get(precision, precision), said)


_COUNTED: dict[str, tuple[Counts, Counts]] = {}


def _counted(row: Any, plan: Preset, task: Task, batch: int, precision: str = "no") -> tuple[Counts, Counts]:
    """One training step of ``batch`` images, and one look at them in float32.

    Equal ones are counted once, and so are those that differ in a strength or a share: these change no shape.
    """
    declared = [row.net, row.method, row.augment, task[:3], plan.optimizer, plan.ema, batch, precision]
    key = re.sub(r"\b\d+\.[\de-]+", "0.0", str(identity(declared)))
    if key not in _COUNTED:
        with torch.random.fork_rng(devices=[]):
            made = row.method(_net(row.net)(_splits(task, 2)))
        with hollow(made) as (method,):
            images = _splits(task, batch).train.__getitems__(range(batch))
            step = _step(method.train(), images, row.augment, plan, half_precision(precision))
            method.zero_grad(set_to_none=True)
            with Counts() as look, torch.no_grad():
                net = method.eval()
                net.logits(images[0]) if net.classifies else net.explain(images[0], torch.zeros(batch).long())
        _COUNTED[key] = step, look
    return _COUNTED[key]


def _step(method: Any, batch: Batch, augment: Any, plan: Preset, half: torch.dtype | None) -> Counts:
    weights = sum(p.nbytes for p in method.parameters())
    states = (2 if plan.optimizer == "adam" else 1) + (plan.ema is not None)
    with Counts((1 + states) * weights) as counts, torch.autocast("cpu", half, enabled=half is not None):
        batch = batch._replace(cued=torch.rand(len(batch.images)) > 0.5)
        batch = augment(batch, torch.Generator()) if augment else batch
        for terms in method.losses(batch, LATE):
            with torch.autocast("cpu", enabled=False):
                terms["total"].backward()
    counts.each.append((0, (3 + 2 * states) * weights, False))  # the optimiser's step
    return counts


def _splits(task: Task, count: int) -> Splits:
    labels = torch.rand(count, task.classes) if task.several else torch.randint(task.classes, (count,))
    data = ArrayData(torch.rand(count, *task.shape), labels, torch.rand(count, *task.shape[1:]) > 0.5)
    vars(data).update(balanced=data, broken=data)
    return Splits("", data, data, data, tuple(map(str, range(task.classes))), "")


def _net(call: Any) -> Any:
    """The same network with random weights: none is downloaded, none is trained before."""
    from .parts.minmax import localiser, pair, pretrained

    if not isinstance(call, partial):
        return call
    given = {key: _net(value) for key, value in call.keywords.items()}
    if call.func is pretrained:
        return partial(localiser if given.get("alone") else pair, trunk=given["trunk"])
    off = {key: value for key, value in {"pretrained": False, "weights": None}.items() if key in given}
    return partial(call.func, *map(_net, call.args), **given | off)


def _before(row: Experiment, preset: str, task: Task) -> Iterator[tuple[float, Counts]]:
    """What is trained for a row beside its network: how many steps, and one of them."""
    from ..methods.base import CrossEntropy
    from ..methods.wsol import PooledMaps
    from ..nets.convnets import small_cnn
    from .parts.common import sized
    from .parts.minmax import localiser

    trunk = partial(localiser, trunk=_keyword(row.net, "trunk"), head="cam_avg")
    others: list[tuple[Any, Any, Any]] = [(row.net, trunk, PooledMaps)]
    others += [(_keyword(m, "source"), partial(sized, small_cnn, width=6), CrossEntropy) for m in row.measures]
    for asked, net, method in others:
        if plan := _keyword(asked, "plan"):
            other = SimpleNamespace(net=net, method=method, augment=None, data=_keyword(asked, "data"))
            images = images_of(other, "smoke").train if other.data else task.train
            yield plan.epochs * (images // plan.batch_size), _counted(other, plan, task, plan.batch_size)[0]
    if drawing := _keyword(row.data, "annotators"):
        yield drawing[preset].iterations, _drawn(drawing[preset], False)
        yield task.train / DRAWN, _drawn(drawing[preset], True)


def _keyword(call: Any, name: str) -> Any:
    return call.keywords.get(name) if isinstance(call, partial) else None


@functools.cache
def _drawn(plan: Any, only: bool) -> Counts:
    """One step of pix2pix, or ``only`` the drawing of `DRAWN` masks."""
    from ..methods import pseudo_annotator
    from ..nets.pix2pix import UNetGenerator, patch_discriminator

    with hollow():
        net = UNetGenerator(downs=plan.downs, width=plan.width)
        judge = patch_discriminator(width=plan.width, layers=plan.discriminator_layers)
        weights = sum(p.nbytes for part in (net, judge) for p in part.parameters())
        images = torch.rand(DRAWN if only else plan.batch_size, 3, plan.size, plan.size)
        none: Any = SimpleNamespace(zero_grad=lambda: None, step=lambda: None)
        with Counts(0 if only else 3 * weights) as counts, torch.set_grad_enabled(not only):
            if only:
                net(images)
            else:
                pseudo_annotator.step(net, judge, [none, none], images, images[:, :1], plan)
    counts.each.append((0, 0 if only else 7 * weights, False))
    return counts
