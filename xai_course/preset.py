"""How long and how to optimise, as plain data: the preset, its optimiser and schedule, the ramps, and the clock."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import exp
from typing import Any, NamedTuple

import torch

from ._require import require

__all__ = [
    "Clock",
    "GaussianRamps",
    "Preset",
    "adam_beta1",
    "gaussian_ramp_down",
    "gaussian_ramp_up",
    "half_precision",
    "make_optimizer",
    "make_schedule",
]


class Clock(NamedTuple):
    """Where training stands, for ramps: ``epoch`` in [0, epochs), ``step`` counts all optimiser steps so far.

    Example:
        >>> Clock(epoch=1, step=15, epochs=4, steps_per_epoch=10).progress
        0.375
    """

    epoch: int = 0
    step: int = 0
    epochs: int = 1
    steps_per_epoch: int = 1

    @property
    def progress(self) -> float:
        """Share of all steps already done, in [0, 1)."""
        return self.step / max(1, self.epochs * self.steps_per_epoch)


# --- ramps: pure functions of the epoch, counted from 0, in the form of Laine and Aila -------------------------------


def gaussian_ramp_up(epoch: float, length: float = 80, steepness: float = 5.0) -> float:
    r"""Weight :math:`w(t) = \exp[-k\,(1 - t/T)^2]` for :math:`t < T`, else 1 (AMC-Loss, Sec. 3.2, :math:`T = 80`).

    Args:
        epoch: :math:`t \ge 0`; fractions of an epoch are allowed.
        length: :math:`T \ge 0`, epochs until the weight is 1; 0 means no ramp.
        steepness: :math:`k`, 5 in AMC-Loss and in Loss-Attention's released code, 1 in Loss-Attention's Sec. V-A.

    Returns:
        In (0, 1]; :math:`w(0) = e^{-k}`, 0.0067 or 0.368.

    Example:
        >>> [round(gaussian_ramp_up(t, 10), 3) for t in (0, 5, 10)]
        [0.007, 0.287, 1.0]

    Raises:
        ValueError: a negative ``epoch``, ``length`` or ``steepness``.
    """
    _not_negative(epoch=epoch, length=length, steepness=steepness)
    return 1.0 if epoch >= length else exp(-steepness * (1 - epoch / length) ** 2)


def gaussian_ramp_down(epoch: float, epochs: int = 300, length: float = 50) -> float:
    r"""Factor :math:`r(t) = \exp[-12.5\,(1 - (E-t)/T)^2]` in the last :math:`T` epochs, else 1 (AMC-Loss, Sec. 3.2).

    The official code writes the same curve as :math:`\exp[-((t-(E-T))/T)^2 \cdot 12.5]`.

    Args:
        epoch: :math:`t` in ``[0, epochs]``.
        epochs: :math:`E`, epochs in all.
        length: :math:`T \ge 0`, epochs over which the factor falls; 0 means no ramp.

    Returns:
        In (0, 1]; :math:`e^{-12.5/4} \approx 0.044` half-way down, close to 0 in the last epoch.

    Raises:
        ValueError: a negative ``epoch`` or ``length``, or ``epoch`` beyond ``epochs``.

    Example:
        >>> [round(gaussian_ramp_down(t), 3) for t in (0, 250, 275, 300)]
        [1.0, 1.0, 0.044, 0.0]
    """
    _not_negative(epoch=epoch, length=length)
    require(epoch <= epochs, f"epoch must not exceed epochs={epochs}", epoch)
    if length == 0 or epoch < epochs - length:
        return 1.0
    return exp(-12.5 * (1 - (epochs - epoch) / length) ** 2)


def adam_beta1(epoch: float, *, start: float = 0.9, end: float = 0.5, epochs: int = 300, down: float = 50) -> float:
    r"""Adam's momentum :math:`\beta_1(t) = 0.9\,r(t) + 0.5\,(1 - r(t))` (AMC-Loss, Sec. 3.2).

    Example:
        >>> [round(adam_beta1(t), 3) for t in (0, 250, 275, 300)]
        [0.9, 0.9, 0.518, 0.5]
    """
    falling = gaussian_ramp_down(epoch, epochs, down)
    return start * falling + end * (1 - falling)


def _not_negative(**arguments: float) -> None:
    for name, value in arguments.items():
        require(value >= 0, f"{name} must not be negative", value)


# --- the preset and what it names -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Preset:
    """How long and how to optimise. Frozen, so that a run record can quote it.

    Attributes:
        epochs, batch_size: passes over the data; images per step over all processes together.
        optimizer: "adam" (momentum is beta_1) or "sgd".
        nesterov: SGD's look-ahead momentum.
        schedule: "constant", "steps" (a tenth after each epoch in ``milestones``), "one_cycle" (peak ``lr``), "cosine"
            (to 0), "gaussian_ramps" (AMC-Loss, Sec. 3.2: up over the share ``ramp_up`` of the epochs, down
            over the last share ``ramp_down``, momentum falling to 0.5 with it), or "gaussian_steps" (Adam in
            Loss-Attention, Sec. V-B: `GaussianSteps`).
        clip_norm: largest global gradient norm, None for no limit.
        precision: "no" (float32), or autocast to "bf16", to "fp16" (losses scaled), or to what the device has ("auto",
            see `half_precision`).
        ema: decay of the averaged weights that training ends with; None ends with the last ones. Averaging does not
            influence training, so a second run without it gives the raw weights of the same trajectory.
        limit: use only the first so many training images.
        workers: loader processes for data sets that decode files.
        checkpoint_seconds: shortest time between two checkpoints inside an epoch (several processes save only at its
            end).

    Example:
        >>> Preset(epochs=3, optimizer="sgd", lr=0.1, nesterov=True).batch_size
        64
        >>> Preset(optimizer="adma")
        Traceback (most recent call last):
        ValueError: optimizer must be one of adam, sgd, got 'adma'
    """

    epochs: int = 10
    batch_size: int = 64
    optimizer: str = "adam"
    lr: float = 1e-3
    momentum: float = 0.9
    weight_decay: float = 0.0
    schedule: str = "constant"
    ramp_up: float = 80 / 300
    ramp_down: float = 50 / 300
    clip_norm: float | None = None
    precision: str = "no"
    channels_last: bool = False
    ema: float | None = None
    limit: int | None = None
    workers: int = 0
    checkpoint_seconds: float = 60.0
    milestones: tuple[int, ...] = ()
    nesterov: bool = False

    def __post_init__(self) -> None:
        for name, allowed in _CHOICES.items():
            require(
                getattr(self, name) in allowed, f"{name} must be one of {', '.join(allowed)}", repr(getattr(self, name))
            )
        if self.schedule.endswith("steps") != bool(self.milestones):
            raise ValueError(f'milestones belong to schedule "steps", got {self.milestones} with {self.schedule!r}')
        for name in ("ramp_up", "ramp_down"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"{name} is a share of the epochs in [0, 1]", value)
        for name in ("epochs", "batch_size", "limit"):
            value = getattr(self, name)
            whole = (isinstance(value, int) and value >= 1) or (name, value) == ("limit", None)
            require(whole, f"{name} must be a whole number of at least 1", repr(value))
        limit, stops = self.clip_norm, self.milestones
        require(limit is None or limit > 0, "clip_norm must be above 0, or None for no limit", limit)
        rising = list(stops) == sorted({stop for stop in stops if 0 < stop < self.epochs})
        require(rising, f"milestones must rise within 1 .. {self.epochs - 1}", stops)
        require(
            not self.nesterov or self.optimizer == "sgd", 'nesterov belongs to optimizer "sgd"', repr(self.optimizer)
        )
        steps = self.schedule != "gaussian_steps" or self.optimizer == "adam"
        require(steps, 'schedule "gaussian_steps" belongs to optimizer "adam"', repr(self.optimizer))


_CHOICES = {
    "optimizer": ("adam", "sgd"),
    "schedule": ("constant", "steps", "one_cycle", "cosine", "gaussian_ramps", "gaussian_steps"),
    "precision": ("no", "bf16", "fp16", "auto"),
}


def half_precision(precision: str, device: torch.device | str = "cpu") -> torch.dtype | None:
    """What a preset's ``precision`` means on ``device``; None for float32.

    "auto" is bfloat16 on CUDA from compute capability 8 (Ampere), below it float16, and float32 elsewhere: older GPUs,
    such as Colab's T4, have no units for bfloat16.

    Example:
        >>> half_precision("bf16"), half_precision("auto")
        (torch.bfloat16, None)
    """
    if precision == "auto" and torch.device(device).type == "cuda":
        precision = "bf16" if torch.cuda.get_device_capability() >= (8, 0) else "fp16"
    return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)


class GaussianRamps:
    """Learning rate ``lr w(t) r(t)`` and momentum ``0.9 r(t) + 0.5 (1 - r(t))``, t in epochs (AMC-Loss, Sec. 3.2).

    Example:
        >>> preset = Preset(epochs=10, schedule="gaussian_ramps", lr=0.1, ramp_up=0.5)
        >>> optimizer = make_optimizer([{"params": [torch.zeros(1)]}], preset)
        >>> schedule, rates = make_schedule(optimizer, preset, steps_per_epoch=1), []
        >>> for _ in range(6):
        ...     rates.append(round(optimizer.param_groups[0]["lr"], 4))
        ...     schedule.step()
        >>> rates
        [0.0007, 0.0041, 0.0165, 0.0449, 0.0819, 0.1]
    """

    def __init__(self, optimizer: torch.optim.Optimizer, preset: Preset, steps_per_epoch: int):
        self.optimizer, self.preset, self.steps_per_epoch, self.count = optimizer, preset, steps_per_epoch, -1
        self.step()

    def step(self) -> None:
        self.count += 1
        epoch, p = self.count // self.steps_per_epoch, self.preset
        up, down = p.ramp_up * p.epochs, p.ramp_down * p.epochs
        falling = gaussian_ramp_down(epoch, p.epochs, down)
        for group in self.optimizer.param_groups:
            base = group.setdefault("initial_lr", group["lr"])
            group["lr"] = base * gaussian_ramp_up(epoch, up) * falling
            momentum = adam_beta1(epoch, start=p.momentum, epochs=p.epochs, down=down)
            if "betas" in group:
                group["betas"] = (momentum, group["betas"][1])
            else:
                group["momentum"] = momentum

    def state_dict(self) -> dict[str, int]:
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.count = state["count"] - 1
        self.step()


class GaussianSteps(GaussianRamps):
    r"""Adam as in Loss-Attention, Sec. V-B: rate ``lr`` :math:`e^{-(1-T)^2}`, a tenth of it after each milestone.

    T rises from 0 to 1 over the share ``ramp_up`` of the epochs; :math:`\beta_2` is 0.99 until then and 0.999 after.

    Example:
        >>> preset = Preset(epochs=5, schedule="gaussian_steps", lr=0.003, ramp_up=0.4, milestones=(3, 4))
        >>> optimizer = make_optimizer([{"params": [torch.zeros(1)]}], preset)
        >>> schedule, seen = make_schedule(optimizer, preset, steps_per_epoch=1), []
        >>> for _ in range(5):
        ...     seen.append((round(optimizer.param_groups[0]["lr"], 5), optimizer.param_groups[0]["betas"][1]))
        ...     schedule.step()
        >>> seen
        [(0.0011, 0.99), (0.00234, 0.99), (0.003, 0.999), (0.0003, 0.999), (3e-05, 0.999)]
    """

    def step(self) -> None:
        self.count += 1
        epoch, p = self.count // self.steps_per_epoch, self.preset
        up, dropped = p.ramp_up * p.epochs, sum(milestone <= epoch for milestone in p.milestones)
        for group in self.optimizer.param_groups:
            base = group.setdefault("initial_lr", group["lr"])
            group["lr"] = base * gaussian_ramp_up(epoch, up, steepness=1) * 0.1**dropped
            group["betas"] = (p.momentum, 0.99 if epoch < up else 0.999)


def make_optimizer(groups: Iterable[dict[str, Any]], preset: Preset) -> torch.optim.Optimizer:
    """Adam or SGD over parameter groups (`Method.parameter_groups`); a group may carry its own learning rate.

    Example:
        >>> groups = [{"params": [torch.zeros(1)]}, {"params": [torch.zeros(1)], "lr": 0.5}]
        >>> [group["lr"] for group in make_optimizer(groups, Preset(lr=0.1)).param_groups]
        [0.1, 0.5]
    """
    groups = [{**group, "params": list(group["params"])} for group in groups]
    momentum, decay, ahead = preset.momentum, preset.weight_decay, preset.nesterov
    fused = any(p.is_cuda for group in groups for p in group["params"]) or None  # one kernel, and no stall for fp16
    if preset.optimizer == "adam":
        return torch.optim.Adam(groups, lr=preset.lr, betas=(momentum, 0.999), weight_decay=decay, fused=fused)
    return torch.optim.SGD(groups, lr=preset.lr, momentum=momentum, weight_decay=decay, nesterov=ahead, fused=fused)


def make_schedule(
    optimizer: torch.optim.Optimizer, preset: Preset, steps_per_epoch: int
) -> torch.optim.lr_scheduler.LRScheduler | GaussianRamps:
    """The schedule object that is stepped once per optimiser step.

    Example:
        >>> preset = Preset(epochs=2, schedule="steps", milestones=(1,), optimizer="sgd", lr=1.0)
        >>> optimizer = make_optimizer([{"params": [torch.zeros(1)]}], preset)
        >>> schedule, rates = make_schedule(optimizer, preset, steps_per_epoch=2), []
        >>> for _ in range(4):
        ...     rates.append(optimizer.param_groups[0]["lr"])
        ...     optimizer.step()
        ...     schedule.step()
        >>> rates
        [1.0, 1.0, 0.1, 0.1]
    """
    total = preset.epochs * steps_per_epoch
    if preset.schedule == "one_cycle":
        peaks = [group["lr"] for group in optimizer.param_groups]
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, peaks, total_steps=total, cycle_momentum=False)
    if preset.schedule == "steps":
        at = [epoch * steps_per_epoch for epoch in preset.milestones]
        return torch.optim.lr_scheduler.MultiStepLR(optimizer, at, gamma=0.1)
    if preset.schedule == "cosine":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total)
    if preset.schedule.startswith("gaussian"):
        kind = GaussianRamps if preset.schedule == "gaussian_ramps" else GaussianSteps
        return kind(optimizer, preset, steps_per_epoch)
    return torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
