"""One readable loop for every method: CPU, one accelerator, several processes, bf16; exact resume after a kill.

The loop wraps no module in DistributedDataParallel. Every process accumulates the gradients of its share of the batch
over as many backward passes as its method yields, and accelerate averages them once, just before the optimiser step.
So Min-Max's uneven recursion, ReFF's second derivative and unused parameters need no special care, at the price of not
overlapping communication with the backward pass.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from .data.batch import ArrayData, Batch, Dataset, fingerprint
from .data.files import write_atomically
from .identity import identity
from .methods.base import Method
from .preset import Clock, Preset, make_optimizer, make_schedule

Augment = Callable[[Batch, torch.Generator], Batch]


def epoch_order(length: int, batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """Shuffled full batches of one epoch, a function of ``(seed, epoch)`` alone; the odd rest is left out.

    A data set smaller than ``batch_size`` gives one batch with all of it.
    """
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    order = torch.randperm(length, generator=generator).tolist()
    size = min(batch_size, length)
    return [order[i : i + size] for i in range(0, length - size + 1, size)]


def fit(
    method: Method,
    data: Dataset,
    preset: Preset,
    *,
    seed: int = 0,
    out: str | Path | None = None,
    resume: bool = True,
    augment: Augment | None = None,
    quiet: bool = True,
) -> list[dict[str, float]]:
    """Train ``method`` in place.

    Args:
        method: what to train; see `methods.base.Method`.
        data: training set; an `ArrayData` is moved to the accelerator as a whole.
        preset: how to optimise.
        seed: seeds Python, NumPy and torch, and decides the order of the images.
        out: folder for the checkpoint; None keeps nothing. A run killed at any moment and started again with the same
            arguments ends with the weights of an uninterrupted one, bit for bit on a CPU.
        resume: continue from the checkpoint in ``out`` where there is one; False starts over.
        augment: ``(batch, generator) -> batch`` applied on the device, drawing from the given generator only.
        quiet: no progress bar.

    Returns:
        One dictionary per epoch: the mean of each named loss term over its steps and all processes, ``seconds``, and
        ``lr``, that of its last step.

    Raises:
        ValueError: the data set is empty, several processes cannot share a batch equally, a checkpoint is damaged or
            belongs to another run (other preset, seed, first images, or settings of the method).
        FloatingPointError: a loss term is no longer finite; the last whole checkpoint stays as it was.
    """
    run = _Run(method, data, preset, seed, out, augment, quiet)
    if resume:
        run.restore()
    while run.epoch < preset.epochs:
        run.train_epoch()
    return run.finish()


class _Run:
    """The state of one training run: what a checkpoint has to hold, and the loop that changes it."""

    def __init__(self, method, data, preset, seed, out, augment, quiet):
        from accelerate import Accelerator
        from accelerate.utils import set_seed

        length = min(len(data), preset.limit or len(data))
        if length < 1:
            raise ValueError("data must hold at least one image, got an empty data set")
        self.engine = Accelerator()
        set_seed(seed + self.engine.process_index)
        device = self.engine.device
        layout = torch.channels_last if preset.channels_last else torch.contiguous_format
        self.method = method.to(device, memory_format=layout).train()
        self.layout, self.preset, self.seed, self.augment = layout, preset, seed, augment
        self.data = data.to(device) if isinstance(data, ArrayData) and device.type != "cpu" else data
        self.length, self.quiet = length, quiet or not self.engine.is_main_process
        world = self.engine.num_processes
        if min(length, preset.batch_size) % world:  # unequal shares would weigh images unequally
            raise ValueError(f"batch_size must be a multiple of the {world} processes, got {preset.batch_size}")
        first = epoch_order(length, preset.batch_size, seed, 0)
        self.steps, self.signature = len(first), self.describe(self.data.__getitems__(first[0]))
        self.optimizer = make_optimizer(method.parameter_groups(), preset)
        self.schedule = make_schedule(self.optimizer, preset, self.steps)
        self.average = _averaged(method, preset.ema)
        self.generator = torch.Generator(device).manual_seed(seed + 1 + self.engine.process_index)
        self.epoch, self.step, self.sums, self.history = 0, 0, {}, []
        self.seconds = 0.0  # spent in this epoch before the last checkpoint
        self.path = None if out is None else Path(out) / "checkpoint.pt"
        self.saved_at = time.monotonic()

    # --- the loop ---------------------------------------------------------------------------------------------------

    def batches(self) -> Iterator[Batch]:
        """This process's share of the remaining batches of the epoch. Strided, so that AMC's pairs stay together."""
        order = epoch_order(self.length, self.preset.batch_size, self.seed, self.epoch)[self.step :]
        rank, world = self.engine.process_index, self.engine.num_processes
        loader = torch.utils.data.DataLoader(
            self.data,
            batch_sampler=[indices[rank::world] for indices in order],
            collate_fn=_as_it_is,
            num_workers=self.preset.workers,
            generator=torch.Generator().manual_seed(self.seed),  # else it would draw from the global one
        )
        for batch in loader:
            batch = batch.to(self.engine.device)
            if self.augment is not None:
                batch = self.augment(batch, self.generator)
            yield batch._replace(images=batch.images.contiguous(memory_format=self.layout))

    def train_epoch(self) -> None:
        from tqdm.auto import tqdm

        start = time.monotonic() - self.seconds
        bar = tqdm(self.batches(), f"epoch {self.epoch + 1}", self.steps, disable=self.quiet, initial=self.step)
        for batch in bar:
            self.train_step(batch)
            self.step += 1
            if self.may_save_now():
                self.save(time.monotonic() - start)
        self.close_epoch(time.monotonic() - start)

    def may_save_now(self) -> bool:
        """Inside an epoch only a lone process saves: clocks differ between processes, and saving is a joint act."""
        due = time.monotonic() - self.saved_at > self.preset.checkpoint_seconds
        return self.path is not None and due and self.engine.num_processes == 1 and self.step < self.steps

    def train_step(self, batch: Batch) -> None:
        clock = Clock(self.epoch, self.epoch * self.steps + self.step, self.preset.epochs, self.steps)
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(batch.images.device.type, torch.bfloat16, enabled=self.preset.precision == "bf16"):
            for terms in self.method.losses(batch, clock):
                with torch.autocast(batch.images.device.type, enabled=False):  # it would redo float32 parts in bf16
                    self.engine.backward(terms["total"])
                for name, value in terms.items():  # sums stay on the device: no host stall
                    self.sums[name] = self.sums.get(name, 0) + torch.as_tensor(value).detach().float()
        self.average_gradients()
        if self.preset.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.method.parameters(), self.preset.clip_norm)
        self.rate = self.optimizer.param_groups[0]["lr"]
        self.optimizer.step()
        self.schedule.step()
        if self.average is not None:
            self.average.update_parameters(self.method)

    def average_gradients(self) -> None:
        """One all-reduce of all gradients together; a parameter unused here counts as zero."""
        if self.engine.num_processes == 1:
            return
        parameters = [p for p in self.method.parameters() if p.requires_grad]
        flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters])
        flat = self.engine.reduce(flat, reduction="mean")
        for parameter, part in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
            parameter.grad = part.view_as(parameter)

    def close_epoch(self, seconds: float) -> None:
        means = self.check_finite({name: float(total) / self.steps for name, total in self.sums.items()})
        self.history.append({**means, "seconds": seconds, "lr": self.rate})
        self.epoch, self.step, self.sums, self.seconds = self.epoch + 1, 0, {}, 0.0
        if self.engine.num_processes > 1:  # BatchNorm statistics were gathered apart
            for buffer in self.method.buffers():
                if buffer.is_floating_point():
                    buffer.copy_(self.engine.reduce(buffer, reduction="mean"))
        if self.path:
            self.save(0.0)

    def check_finite(self, terms: dict[str, float]) -> dict[str, float]:
        """The means over all processes, in all of them; a term that one process does not have counts as 0 there."""
        from accelerate.utils import gather_object

        every = gather_object([terms])
        means = {name: sum(each.get(name, 0.0) for each in every) / len(every) for each in every for name in each}
        for name, value in means.items():
            if not math.isfinite(value):
                cure = "lower lr or the method's weight, or set clip_norm"
                raise FloatingPointError(f"loss term {name!r} is {value} in epoch {self.epoch}: {cure}")
        return means

    def finish(self) -> list[dict[str, float]]:
        if self.average is not None:
            self.method.load_state_dict(self.average.module.state_dict())
        return self.history

    # --- checkpoints ------------------------------------------------------------------------------------------------

    def describe(self, first: Batch) -> dict[str, object]:
        """What must be the same for a checkpoint to be continued."""
        settings = dataclasses.asdict(self.preset)
        del settings["checkpoint_seconds"], settings["workers"]
        data = fingerprint(first.images, first.labels)
        return {**settings, "seed": self.seed, "images": self.length, "data": data, **_options(self.method)}

    def save(self, seconds: float) -> None:
        self.check_finite({name: float(total) for name, total in self.sums.items()})  # never save a diverged run
        from accelerate.utils import gather_object

        generators = gather_object([{"torch": _rng_state(), "augment": self.generator.get_state()}])
        state = {
            "signature": self.signature,
            "method": self.method.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "progress": {"epoch": self.epoch, "step": self.step, "seconds": seconds},
            "sums": self.sums,
            "history": self.history,
            "generators": generators,
        }
        if self.engine.is_main_process:
            write_atomically(self.path, lambda file: torch.save(state, file))
        self.saved_at = time.monotonic()

    def restore(self) -> None:
        if self.path is None or not self.path.exists():
            return
        try:
            state = torch.load(self.path, map_location="cpu", weights_only=True)
            found = state["signature"]
        except Exception as error:
            raise ValueError(
                f"checkpoint {self.path} cannot be read ({type(error).__name__}): delete it to start over"
            ) from error
        if found != self.signature:
            wrong = [k for k in {**found, **self.signature} if found.get(k) != self.signature.get(k)]
            raise ValueError(
                f"checkpoint {self.path} belongs to another run (differs in {', '.join(wrong)}): "
                "choose another out, or resume=False to start over"
            )
        self.method.load_state_dict(state["method"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.epoch, self.step, self.seconds = (state["progress"][k] for k in ("epoch", "step", "seconds"))
        self.sums = {name: total.to(self.engine.device) for name, total in state["sums"].items()}
        self.history = state["history"]
        mine = state["generators"][self.engine.process_index]
        _set_rng_state(mine["torch"])
        self.generator.set_state(mine["augment"])


def _as_it_is(batch: Batch) -> Batch:
    return batch


def _options(method: Method) -> dict[str, str]:
    """The settings of a method and of those within it: public attributes that are neither weights nor nameless."""
    found = {}
    for part in method.modules():
        for name, value in vars(part).items() if isinstance(part, Method) else ():
            if not name.startswith("_") and name != "training":
                with contextlib.suppress(ValueError):
                    found[f"{type(part).__name__}.{name}"] = repr(identity(value))
    return found


def _averaged(method: Method, decay: float | None):
    if decay is None:
        return None
    average = torch.optim.swa_utils.get_ema_multi_avg_fn(decay)
    return torch.optim.swa_utils.AveragedModel(method, multi_avg_fn=average, use_buffers=True)


def _rng_state() -> list[Tensor]:
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [])]


def _set_rng_state(states: list[Tensor]) -> None:
    torch.set_rng_state(states[0])
    if len(states) > 1:
        torch.cuda.set_rng_state_all(states[1:])
