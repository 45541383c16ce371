"""Experiments as data: what to train on what, and one function that turns it into a run record."""

import functools
import json
import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch
from torch import nn

from .. import train
from .._require import require
from ..data.batch import Splits, fingerprint
from ..data.files import cache_folder, write_atomically
from ..identity import HERE, code_of, identity, sources
from ..methods.base import Method
from ..preset import Preset, half_precision
from ..train import fit
from . import records
from .records import Metric, Record

RESULT = {"metrics", "curves", "data", "seconds", "cpu_seconds", "memory_mb", "device"}  # of a finished seed


@dataclass(frozen=True)
class Experiment:
    """One row of a table or one panel of a figure.

    Attributes:
        name: ``paper/item/row``, for example ``amc/table1/mnist/amc``.
        title: the row's name in a table.
        data: called with ``preset`` and ``seed``, gives `Splits`.
        net: called with the splits under the run's seed.
        method: called with the network.
        presets: what "smoke", "colab" and "paper" mean here.
        measures: each called with the trained method and the splits; their dictionaries are merged.
        reported: the paper's own numbers, as printed.
        needs: what this row takes that is not at hand everywhere (a licence, a download, a GPU).
        augment: applied to training batches.
        shown: the metrics a results table prints, beside those reported.
        twin: the name of the row in the same table that it is compared with; "" for none.
        stand_in: the same row on data at hand with a small network, what preset "cpu" runs; None for none.
    """

    name: str
    title: str
    data: Callable[..., Splits]
    net: Callable[[Splits], nn.Module]
    method: Callable[[nn.Module], Method]
    presets: Mapping[str, Preset]
    measures: Sequence[Callable[[Method, Splits], dict[str, float]]]
    reported: Mapping[str, str] = field(default_factory=dict)
    needs: str = ""
    augment: Callable | None = None
    shown: Sequence[str] = ("accuracy",)
    twin: str = ""
    stand_in: "Experiment | None" = None

    def at(self, preset: str) -> "Experiment":
        """What a preset runs: the stand-in at "cpu", where there is one, else the row itself."""
        return self.stand_in if preset == "cpu" and self.stand_in else self

    @property
    def paper(self) -> str:
        return self.name.split("/")[0]

    @property
    def item(self) -> str:
        return self.name.split("/")[1]

    def preset(self, name: str) -> Preset:
        require(name in self.presets, f"{self.name} has the presets {', '.join(self.presets)}", repr(name))
        return self.presets[name]

    def settings(self, preset: str) -> dict:
        """Everything declared, as plain data."""
        parts = ("data", "net", "method", "augment", "measures")
        plan = identity(asdict(self.preset(preset)))
        return {"preset": plan, **{part: identity(getattr(self.at(preset), part)) for part in parts}}

    def code(self) -> str:
        """Hash of the source that decides a run, so that a cached seed is never reused after it changed.

        That is: the training loop, the files of everything declared, and what these files import from this package.
        """
        return code_of(*self._calls())

    def files(self) -> list[Path]:
        """The files of this package behind `code`."""
        return [file for file in sources(*self._calls()) if file.is_relative_to(HERE)]

    def _calls(self) -> tuple[object, ...]:
        return train.fit, self.data, self.net, self.method, self.augment, *self.measures


def run(
    experiment: Experiment,
    preset: str = "smoke",
    seeds: Sequence[int] = (0, 1, 2),
    *,
    resume: bool = True,
    quiet: bool = True,
    force: bool = False,
) -> Record:
    """Train and measure one experiment with every seed, write its record and return it.

    A seed that was finished before under the same settings and code is not run again, nor is one of a row declared
    alike; one that was interrupted goes on from its checkpoint. Both are kept in the cache folder until the settings
    change. A record of more seeds is replaced only where ``force`` is set.

    Raises:
        ValueError: an unknown preset, or no seed.
    """
    require(seeds, "seeds must name at least one seed, got none")
    results = [run_seed(experiment, preset, seed, resume=resume, quiet=quiet) for seed in seeds]
    return collect(experiment, preset, seeds, results, force=force)


def run_seed(experiment: Experiment, preset: str, seed: int, *, resume: bool = True, quiet: bool = True) -> dict:
    """One trained and measured network, as plain data; finished results come from the cache."""
    experiment = experiment.at(preset)
    settings, code = experiment.settings(preset), experiment.code()
    key = fingerprint(settings, code)
    folder = cache_folder() / "runs" / experiment.name / preset / f"seed{seed}-{key}"
    done = folder / "result.json"  # or that of a row declared alike
    if resume:
        for found in (cache_folder() / "runs").rglob(f"{preset}/{folder.name}/result.json"):
            if kept := _finished(found):
                return kept

    from accelerate.utils import set_seed

    spent = sum(os.times()[:4])  # by this process and its children that have ended
    splits = experiment.data(preset=preset, seed=seed)
    set_seed(seed)
    method = experiment.method(experiment.net(splits))
    plan = experiment.preset(preset)
    if torch.cuda.is_available():  # else a seed would be told the peak of the seeds and rows before it
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    history = fit(
        method, splits.train, plan, seed=seed, out=folder, resume=resume, augment=experiment.augment, quiet=quiet
    )
    seconds = sum(epoch["seconds"] for epoch in history) or time.perf_counter() - start
    metrics: dict[str, float] = {}
    for measure in experiment.measures:
        metrics |= {name: float(value) for name, value in measure(method.eval(), splits).items()}
    result = {
        "metrics": metrics,
        "curves": {k: [round(epoch[k], 5) for epoch in history] for k in history[0] if k not in ("seconds", "lr")},
        "data": {"name": splits.name, "fingerprint": splits.fingerprint},
        "seconds": round(seconds, 2),
        "cpu_seconds": round(sum(os.times()[:4]) - spent, 2),
        "memory_mb": _peak_memory_mb(),
        "device": device_name(plan.precision),
    }
    write_atomically(
        done, lambda file: file.write(json.dumps(result).encode()), "set XAI_COURSE_CACHE to another folder"
    )
    (folder / "checkpoint.pt").unlink(missing_ok=True)
    return result


def _finished(path: Path) -> dict:
    """A finished seed's result; nothing where there is none or it is damaged: then the seed is trained again."""
    try:
        found = json.loads(path.read_text("utf-8"))
        return found if set(found) >= RESULT else {}
    except (OSError, ValueError, TypeError):
        return {}


def collect(
    experiment: Experiment,
    preset: str,
    seeds: Sequence[int],
    results: Sequence[dict],
    *,
    force: bool = False,
    save: bool = True,
) -> Record:
    """Join the results of all seeds into one record and, with ``save``, write it."""
    fingerprints = [r["data"]["fingerprint"] for r in results]
    record = Record(
        experiment=experiment.name,
        preset=preset,
        seeds=tuple(seeds),
        metrics={k: Metric(tuple(r["metrics"][k] for r in results)) for k in results[0]["metrics"]},
        curves={k: [r["curves"][k] for r in results] for k in results[0]["curves"]},
        settings=experiment.settings(preset),
        data={"name": results[0]["data"]["name"], "fingerprints": fingerprints},
        device=", ".join(sorted({r["device"] for r in results})),
        versions={"python": platform.python_version(), **{p: version(p) for p in ("torch", "torchvision", "numpy")}},
        commit=commit(experiment.at(preset).files()),
        code=experiment.at(preset).code(),
        seconds=tuple(r["seconds"] for r in results),
        memory_mb=max(r["memory_mb"] for r in results),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        cpu_seconds=tuple(r["cpu_seconds"] for r in results),
    )
    if save:
        records.save(record, force=force)
    return record


def commit(files: Iterable[Path]) -> str:
    """The commit of the checkout, "+" behind it where one of ``files`` differs from it; "unknown" outside a checkout.

    What a row declares needs no commit: its record holds all of it.
    """
    try:
        git = functools.partial(subprocess.run, cwd=HERE, capture_output=True, text=True, check=True)
        head = git(["git", "rev-parse", "--short=12", "HEAD"]).stdout.strip()
        return head + "+" * bool(git(["git", "status", "--porcelain", "--", *files]).stdout.strip())
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def device_name(precision: str = "no") -> str:
    """What a record says of the hardware: the accelerator's name and what "auto" became, or the kind of processor."""
    if torch.cuda.is_available():
        resolved = half_precision(precision, "cuda") if precision == "auto" else None
        return torch.cuda.get_device_name() + (f", {resolved}".replace("torch.", "") if resolved else "")
    return f"CPU ({platform.machine()}, {torch.get_num_threads()} thread{'s' * (torch.get_num_threads() != 1)})"


def _peak_memory_mb() -> float:
    import resource

    if torch.cuda.is_available():
        return round(torch.cuda.max_memory_allocated() / 2**20, 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if platform.system() == "Darwin" else 2**10), 1)
