"""Experiments of a second, importable by worker processes, that log every step they begin."""

from __future__ import annotations

import os
import time
from functools import partial
from pathlib import Path

import torch
from torch import nn

from xai_course.data.batch import ArrayData, Splits, fingerprint
from xai_course.methods.base import CrossEntropy, predict
from xai_course.nets.convnets import GapClassifier
from xai_course.preset import Preset
from xai_course.runs.experiment import Experiment, run_seed

STEPS = 12


class Logged(CrossEntropy):
    """Writes each step's number to a file of this run, and which process it is."""

    def __init__(self, net, name: str):
        super().__init__(net)
        self.name = f"{name}-{torch.initial_seed()}"

    def losses(self, batch, clock):
        folder = Path(os.environ["XAI_COURSE_TOY_LOG"])
        folder.mkdir(exist_ok=True)
        (folder / f"{self.name}.pid").write_text(str(os.getpid()))
        with (folder / self.name).open("a") as file:
            file.write(f"{clock.step}\n")
        time.sleep(0.05)
        yield from super().losses(batch, clock)


def data(preset: str, seed: int) -> Splits:
    g = torch.Generator().manual_seed(1)
    part = ArrayData(torch.rand(32, 1, 6, 6, generator=g), torch.arange(32) % 2)
    return Splits("Toys", part, part, part, ("a", "b"), fingerprint(part.images))


def net(splits: Splits) -> nn.Module:
    return GapClassifier(nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU()), nn.Linear(3, 2))


def loss(method, splits) -> dict[str, float]:
    logits, labels = predict(method, splits.test)
    return {"loss": nn.functional.cross_entropy(logits, labels)}


TOYS = {
    f"amc/toy/{name}": Experiment(
        name=f"amc/toy/{name}",
        title=name,
        data=data,
        net=net,
        method=partial(Logged, name=name),
        presets={"smoke": Preset(epochs=3, batch_size=8, checkpoint_seconds=0.0)},
        measures=(loss,),
        shown=("loss",),
    )
    for name in ("first", "second")
}
assert TOYS["amc/toy/first"].presets["smoke"].epochs * 4 == STEPS


def find(name: str) -> Experiment:
    return TOYS[name]


def one(job: tuple) -> dict:
    name, preset, seed, resume, quiet = job
    return run_seed(TOYS[name], preset, seed, resume=resume, quiet=quiet)
