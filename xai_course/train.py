"""One readable loop for every method: CPU, accelerator, several processes, half precision; exact resume after a kill.

The loop wraps no module in DistributedDataParallel. Every process accumulates the gradients of its share of the batch
over as many backward passes as its method yields, and accelerate averages them once, before the optimiser step.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from .data.batch import Batch, Dataset, fingerprint
from .data.files import save_whole
from .identity import identity
from .methods.base import Method
from .preset import Clock, Preset, half_precision, make_optimizer, make_schedule

__all__ = ["Augment", "epoch_order", "fit"]

Augment = Callable[[Batch, torch.Generator], Batch]
PARTS = ("method", "optimizer", "schedule", "scaler", "average")  # what a checkpoint holds the state of
CURE = "lower lr or the method's weight, or set clip_norm"


def epoch_order(length: int, batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """Shuffled full batches of one epoch, a function of ``(seed, epoch)`` alone; the odd rest is left out.

    A data set smaller than ``batch_size`` gives one batch with all of it.

    Example:
        >>> first, second = epoch_order(7, 3, seed=0, epoch=0)
        >>> len(first + second), epoch_order(7, 3, seed=0, epoch=0) == [first, second]
        (6, True)
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
        data: training set; one with a method ``to`` is moved to the accelerator as a whole.
        preset: how to optimise.
        seed: seeds Python, NumPy and torch, and decides the order of the images.
        out: folder for the checkpoint; None keeps nothing. A run killed at any moment and called again ends with the
            weights of an uninterrupted one, bit for bit on a CPU. A lone process asked to end (SIGTERM) saves first.
            On another kind of device a run goes on with fresh random numbers.
        resume: continue from the checkpoint in ``out`` where there is one; False starts over.
        augment: ``(batch, generator) -> batch`` applied on the device, drawing from the given generator only.
        quiet: no progress bar with the time left.

    Returns:
        One dictionary per epoch: the mean of each named loss term over its steps and all processes, ``seconds``, and
        ``lr``, that of its last step.

    Raises:
        ValueError: the data set is empty, several processes cannot share a batch equally, a checkpoint is damaged or
            belongs to another run (other preset, seed, first images, number of processes, or settings of the method).
        FloatingPointError: a loss term or a weight is no longer finite; the last whole checkpoint stays as it was.
        OSError: the checkpoint cannot be written; the last whole one stays as it was.

    Example:
        >>> from xai_course import CrossEntropy, nets
        >>> from xai_course.data import ArrayData
        >>> data = ArrayData(torch.rand(16, 3, 16, 16), torch.arange(16) % 4)
        >>> fit(CrossEntropy(nets.small_cnn(4, width=4)), data, Preset(epochs=1, batch_size=8))
        [{'total': 1..., 'seconds': ..., 'lr': 0.001}]
    """
    run = _Run(method, data, preset, seed, None if out is None else Path(out, "checkpoint.pt"), augment)
    if resume:
        run.restore()
    from tqdm.auto import tqdm

    hidden = quiet or not run.engine.is_main_process
    total, done = preset.epochs * run.steps, run.epoch * run.steps + run.step
    with _asked_to_end(run), tqdm(None, type(method).__name__, total, disable=hidden, initial=done) as run.bar:
        while run.epoch < preset.epochs and not run.ending:
            run.train_epoch()
    if run.ending:
        print(f"asked to end: saved in {run.path}, the same call goes on from there", flush=True)
        signal.raise_signal(signal.SIGTERM)  # whoever was listening before decides what it means
        raise SystemExit(128 + signal.SIGTERM)
    return run.finish()


@contextlib.contextmanager
def _asked_to_end(run: _Run) -> Iterator[None]:
    """While training, SIGTERM makes the run save after its step and end. Only the main thread may listen."""
    if run.path is None or run.world > 1 or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: setattr(run, "ending", True))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


class _Run:
    """The state of one training run: what a checkpoint has to hold, and the loop that changes it."""

    epoch = step = 0
    seconds = 0.0  # spent in this epoch before the last checkpoint
    ending = False  # asked to save and end
    bar: Any  # of the whole run, with the time left

    def __init__(
        self, method: Method, data: Dataset, preset: Preset, seed: int, path: Path | None, augment: Augment | None
    ):
        self.length = min(len(data), preset.limit or len(data))
        if self.length < 1:
            raise ValueError("data must hold at least one image, got an empty data set")
        self.preset, self.seed, self.path, self.augment = preset, seed, path, augment
        self.sums: dict[str, Tensor] = {}
        self.history: list[dict[str, float]] = []
        self.start_engine()
        self.place(method, data)
        first = epoch_order(self.length, preset.batch_size, seed, 0)
        self.steps = len(first)
        self.signature = {**self.describe(self.data.__getitems__(first[0])), "processes": self.world}
        self.optimizer = make_optimizer(method.parameter_groups(), preset)
        self.schedule = make_schedule(self.optimizer, preset, self.steps)
        self.half = half_precision(preset.precision, self.device)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.half is torch.float16)
        self.average = _averaged(method, preset.ema)
        self.saved_at = time.monotonic()

    def start_engine(self) -> None:
        """Which device, which of how many processes, and every random number generator."""
        from accelerate import Accelerator

        self.engine = Accelerator()
        self.device, self.rank, self.world = self.engine.device, self.engine.process_index, self.engine.num_processes
        if min(self.length, self.preset.batch_size) % self.world:  # unequal shares would weigh images unequally
            size = self.preset.batch_size
            raise ValueError(f"batch_size must be a multiple of the {self.world} processes, got {size}")
        self.generator = torch.Generator(self.device)
        self.reseed(self.seed)

    def reseed(self, seed: int) -> None:
        from accelerate.utils import set_seed

        set_seed(seed + self.rank)
        self.generator.manual_seed(seed + 1 + self.rank)

    def place(self, method: Method, data: Dataset) -> None:
        """Method and, where it is held in memory, data on the device; and the loader that feeds them."""
        self.layout = torch.channels_last if self.preset.channels_last else torch.contiguous_format
        self.method = method.to(self.device).to(memory_format=self.layout).train()
        self.data = data.to(self.device) if self.device.type != "cpu" and hasattr(data, "to") else data
        workers = min(self.preset.workers, os.cpu_count() or 1) * (self.data is data)  # a worker has no device
        self.loader = torch.utils.data.DataLoader(
            cast("torch.utils.data.Dataset[Batch]", self.data),
            batch_sampler=self,
            collate_fn=torch.utils.data.default_convert,  # data sets give whole batches
            num_workers=workers,
            pin_memory=workers > 0 and self.device.type == "cuda",
            persistent_workers=workers > 0 and self.device.type != "cpu",
        )

    # --- the loop ---------------------------------------------------------------------------------------------------
    def __iter__(self) -> Iterator[list[int]]:
        """This process's positions of the epoch's remaining batches. Strided, so that AMC's pairs stay together."""
        order = epoch_order(self.length, self.preset.batch_size, self.seed, self.epoch)[self.step :]
        return iter([indices[self.rank :: self.world] for indices in order])

    def batches(self) -> Iterator[Batch]:
        """This process's share of the remaining batches of the epoch, on the device."""
        self.loader.generator = torch.Generator().manual_seed(self.seed)  # else it would draw from the global one
        for batch in self.loader:
            batch = batch.to(self.device)
            if self.augment is not None:
                batch = self.augment(batch, self.generator)
            yield batch._replace(images=batch.images.contiguous(memory_format=self.layout))

    def train_epoch(self) -> None:
        """The rest of the epoch; where the run is asked to end, only up to the next checkpoint."""
        start = time.monotonic() - self.seconds
        for batch in self.batches():
            self.train_step(batch)
            self.step += 1
            self.bar.update()
            if self.step < self.steps and self.may_save_now():
                self.save(time.monotonic() - start)
                if self.ending:
                    return
        self.close_epoch(time.monotonic() - start)

    def may_save_now(self) -> bool:
        """Inside an epoch only a lone process saves: clocks differ between processes, and saving is a joint act."""
        due = self.ending or time.monotonic() - self.saved_at > self.preset.checkpoint_seconds
        return self.path is not None and due and self.world == 1

    def train_step(self, batch: Batch) -> None:
        clock = Clock(self.epoch, self.epoch * self.steps + self.step, self.preset.epochs, self.steps)
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, self.half, enabled=self.half is not None):
            for terms in self.method.losses(batch, clock):
                with torch.autocast(self.device.type, enabled=False):  # it would redo float32 parts in half precision
                    self.engine.backward(self.scaler.scale(terms["total"]))
                for name, value in terms.items():  # sums stay on the device: no host stall
                    self.sums[name] = self.sums.get(name, 0) + torch.as_tensor(value).detach().float()
        self.average_gradients()
        if self.preset.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.method.parameters(), self.preset.clip_norm)
        self.rate = self.optimizer.param_groups[0]["lr"]
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.schedule.step()
        if self.average is not None:
            self.average.update_parameters(self.method)

    def average_gradients(self) -> None:
        """One all-reduce of all gradients together; a parameter unused here counts as zero."""
        if self.world == 1:
            return
        parameters = [p for p in self.method.parameters() if p.requires_grad]
        flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters])
        flat = self.engine.reduce(flat, reduction="mean")
        for parameter, part in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
            parameter.grad = part.view_as(parameter)

    def close_epoch(self, seconds: float) -> None:
        """The epoch's line of the history, and a checkpoint."""
        means = self.check_finite({name: float(total) / self.steps for name, total in self.sums.items()})
        self.history.append({**means, "seconds": seconds, "lr": self.rate})
        self.epoch, self.step, self.sums, self.seconds = self.epoch + 1, 0, {}, 0.0
        if self.world > 1:  # BatchNorm statistics were gathered apart
            for buffer in self.method.buffers():
                if buffer.is_floating_point():
                    buffer.copy_(self.engine.reduce(buffer, reduction="mean"))
        self.save(0.0)

    def check_finite(self, terms: dict[str, float]) -> dict[str, float]:
        """The means over all processes, in all of them; a term that one process does not have counts as 0 there."""
        from accelerate.utils import gather_object

        every = gather_object([terms])
        means = {name: sum(each.get(name, 0.0) for each in every) / len(every) for each in every for name in each}
        for name, value in means.items():
            if not math.isfinite(value):
                raise FloatingPointError(f"loss term {name!r} is {value} in epoch {self.epoch}: {CURE}")
        return means

    def check_weights(self) -> None:
        """A finite loss can have a gradient that is not; the weights are the same in all processes."""
        for name, weight in self.method.named_parameters():
            if not weight.isfinite().all():
                raise FloatingPointError(f"weight {name!r} is not finite after epoch {self.epoch}: {CURE}")

    def finish(self) -> list[dict[str, float]]:
        """Training ends with the averaged weights where there are any."""
        del self.loader  # its processes end with it
        self.check_weights()
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
        """All that the next steps depend on, whole or not at all; never a diverged run."""
        from accelerate.utils import gather_object

        if self.path is None:
            return
        self.check_finite({name: float(total) for name, total in self.sums.items()})
        self.check_weights()
        state = {
            "signature": self.signature,
            **{name: part.state_dict() for name in PARTS if (part := getattr(self, name)) is not None},
            "progress": {"epoch": self.epoch, "step": self.step, "seconds": seconds},
            "sums": self.sums,
            "history": self.history,
            "device": self.device.type,
            "generators": gather_object([self.random_states()]),
        }
        if self.engine.is_main_process:
            cure = "make room or choose another out; the same call goes on from the last whole checkpoint"
            save_whole(self.path, state, cure)
        self.saved_at = time.monotonic()

    def random_states(self) -> list[Tensor]:
        """Of every generator that training draws from: the CPU's, the device's own, the one for augmentation."""
        own = [torch.cuda.get_rng_state()] if self.device.type == "cuda" else []
        return [torch.get_rng_state(), *own, self.generator.get_state()]

    def restore(self) -> None:
        """Continue from the checkpoint, if there is one."""
        if self.path is None:
            return
        self.engine.wait_for_everyone()  # one process may still be saving what came before
        if (seen := self.check_finite({"seen": float(self.path.exists())})["seen"]) < 1:
            if seen:
                raise ValueError(f"checkpoint {self.path} is not seen by all processes: out must be a shared folder")
            return
        state = self.read(self.path)
        for group in state["optimizer"]["param_groups"]:
            group["fused"] = self.optimizer.defaults["fused"]  # the device's affair, as where Adam's steps lie
        for name in PARTS:
            if state.get(name):
                getattr(self, name).load_state_dict(state[name])
        self.epoch, self.step, self.seconds = (state["progress"][k] for k in ("epoch", "step", "seconds"))
        self.sums = {name: total.to(self.device) for name, total in state["sums"].items()}
        self.history = state["history"]
        if self.epoch == self.preset.epochs:
            return  # nothing more is drawn
        if state["device"] == self.device.type:
            host, *own, augment = state["generators"][self.rank]
            torch.set_rng_state(host)
            for kept in own:
                torch.cuda.set_rng_state(kept)
            self.generator.set_state(augment)
        else:
            self.reseed((self.seed * 1_000_003 + self.epoch * self.steps + self.step) % 2**31)
            said = f"{self.path}: trained on {state['device']}, goes on on {self.device.type} with fresh random numbers"
            self.engine.print(said, flush=True)

    def read(self, path: Path) -> dict[str, Any]:
        """The checkpoint, once it is whole and this run's own."""
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            there, here = state["signature"], self.signature
        except Exception as error:
            raise ValueError(f"checkpoint {path} cannot be read ({error!r:.60}): delete it to start over") from error
        pairs = {key: (there.get(key), here.get(key)) for key in {**there, **here}}
        if wrong := [f"{key}: {old} there, {new} here" for key, (old, new) in pairs.items() if old != new]:
            what = f"checkpoint {path} belongs to another run (differs in {', '.join(wrong)})"
            raise ValueError(f"{what}: choose another out, or resume=False to start over")
        return state


def _options(method: Method) -> dict[str, str]:
    """The settings of a method and of those within it: public attributes that are neither weights nor nameless."""
    found = {}
    for part in method.modules():
        for name, value in vars(part).items() if isinstance(part, Method) else ():
            if not name.startswith("_") and name != "training":
                with contextlib.suppress(ValueError):
                    found[f"{type(part).__name__}.{name}"] = repr(identity(value))
    return found


def _averaged(method: Method, decay: float | None) -> torch.optim.swa_utils.AveragedModel | None:
    if decay is None:
        return None
    average = torch.optim.swa_utils.get_ema_multi_avg_fn(decay)
    return torch.optim.swa_utils.AveragedModel(method, multi_avg_fn=average, use_buffers=True)
