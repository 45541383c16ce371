"""How long and how to optimise, as plain data; the optimiser and the schedule that it names."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .methods.base import Method
from .methods.ramps import adam_beta1, gaussian_ramp_down, gaussian_ramp_up


@dataclass(frozen=True)
class Preset:
    """How long and how to optimise. Frozen, so that a run record can quote it.

    Attributes:
        epochs, batch_size: passes over the data; images per step over all processes together.
        optimizer: "adam" (momentum is beta_1) or "sgd".
        nesterov: SGD's look-ahead momentum.
        schedule: "constant", "steps" (a tenth after each epoch in ``milestones``), "one_cycle" (peak ``lr``), "cosine"
            (to 0), or "gaussian_ramps" (AMC-Loss, Sec. 3.2: up over ``ramp_up`` epochs, down over the last
            ``ramp_down``, momentum falling to 0.5 with it).
        clip_norm: largest global gradient norm, None for no limit.
        precision: "no" (float32) or "bf16" (autocast).
        ema: decay of the averaged weights that training ends with; None ends with the last ones. Averaging does not
            influence training, so a second run without it gives the raw weights of the same trajectory.
        limit: use only the first so many training images.
        workers: loader processes for data sets that decode files.
        checkpoint_seconds: shortest time between two checkpoints inside an epoch (several processes save only at its
            end).
    """

    epochs: int = 10
    batch_size: int = 64
    optimizer: str = "adam"
    lr: float = 1e-3
    momentum: float = 0.9
    weight_decay: float = 0.0
    schedule: str = "constant"
    ramp_up: int = 80
    ramp_down: int = 50
    clip_norm: float | None = None
    precision: str = "no"
    channels_last: bool = False
    ema: float | None = None
    limit: int | None = None
    workers: int = 0
    checkpoint_seconds: float = 60.0
    milestones: tuple[int, ...] = ()
    nesterov: bool = False

    def __post_init__(self):
        choices = {"optimizer": _OPTIMIZERS, "schedule": _SCHEDULES, "precision": ("no", "bf16")}
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}")
        if (self.schedule == "steps") != bool(self.milestones):
            raise ValueError(f'milestones belong to schedule "steps", got {self.milestones} with {self.schedule!r}')
        for name in ("epochs", "batch_size", "limit"):
            value = getattr(self, name)
            if not (isinstance(value, int) and value >= 1) and (name, value) != ("limit", None):
                raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise ValueError(f"clip_norm must be above 0, or None for no limit, got {self.clip_norm}")
        if list(self.milestones) != sorted(set(self.milestones)) or not all(
            0 < m < self.epochs for m in self.milestones
        ):
            raise ValueError(f"milestones must rise within 1 .. {self.epochs - 1}, got {self.milestones}")
        if self.nesterov and self.optimizer != "sgd":
            raise ValueError(f'nesterov belongs to optimizer "sgd", got {self.optimizer!r}')


_OPTIMIZERS = ("adam", "sgd")
_SCHEDULES = ("constant", "steps", "one_cycle", "cosine", "gaussian_ramps")


class GaussianRamps:
    """Learning rate ``lr w(t) r(t)`` and momentum ``0.9 r(t) + 0.5 (1 - r(t))``, t in epochs (AMC-Loss, Sec. 3.2)."""

    def __init__(self, optimizer: torch.optim.Optimizer, preset: Preset, steps_per_epoch: int):
        self.optimizer, self.preset, self.steps_per_epoch, self.count = optimizer, preset, steps_per_epoch, -1
        self.step()

    def step(self) -> None:
        self.count += 1
        epoch, p = self.count // self.steps_per_epoch, self.preset
        down = gaussian_ramp_down(epoch, p.epochs, p.ramp_down)
        for group in self.optimizer.param_groups:
            base = group.setdefault("initial_lr", group["lr"])
            group["lr"] = base * gaussian_ramp_up(epoch, p.ramp_up) * down
            momentum = adam_beta1(epoch, start=p.momentum, epochs=p.epochs, down=p.ramp_down)
            if "betas" in group:
                group["betas"] = (momentum, group["betas"][1])
            else:
                group["momentum"] = momentum

    def state_dict(self) -> dict:
        return {"count": self.count}

    def load_state_dict(self, state: dict) -> None:
        self.count = state["count"] - 1
        self.step()


def make_optimizer(method: Method, preset: Preset) -> torch.optim.Optimizer:
    """Adam or SGD over ``method.parameter_groups()``; a group may carry its own learning rate."""
    groups = method.parameter_groups()
    if preset.optimizer == "adam":
        return torch.optim.Adam(groups, lr=preset.lr, betas=(preset.momentum, 0.999), weight_decay=preset.weight_decay)
    options = {"weight_decay": preset.weight_decay, "nesterov": preset.nesterov}
    return torch.optim.SGD(groups, lr=preset.lr, momentum=preset.momentum, **options)


def make_schedule(optimizer: torch.optim.Optimizer, preset: Preset, steps_per_epoch: int):
    """The schedule object that is stepped once per optimiser step."""
    total = preset.epochs * steps_per_epoch
    if preset.schedule == "one_cycle":
        peaks = [group["lr"] for group in optimizer.param_groups]
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, peaks, total_steps=total, cycle_momentum=False)
    if preset.schedule == "steps":
        at = [epoch * steps_per_epoch for epoch in preset.milestones]
        return torch.optim.lr_scheduler.MultiStepLR(optimizer, at, gamma=0.1)
    if preset.schedule == "cosine":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total)
    if preset.schedule == "gaussian_ramps":
        return GaussianRamps(optimizer, preset, steps_per_epoch)
    return torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
