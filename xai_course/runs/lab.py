"""What a lab needs besides the library: training that goes on where it stopped, and table rows loaded or trained.

A lab runs on machines that are taken away. `fit` keeps every network under a name made from all that decides it, so a
lab that is run again loads what was finished, continues what was not, and trains anew whatever the reader has changed.
"""

import dataclasses
import os
import shutil
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import torch

from .. import colab, train
from ..data.batch import Dataset, fingerprint
from ..data.files import cache_folder
from ..identity import code_of, identity, sources
from ..methods.base import Method
from ..preset import Preset
from ..show.slider import live
from ..train import Augment
from . import records
from .catalogue import experiments, find
from .experiment import Experiment, collect, run_seed
from .records import Record

KEPT_DAYS = 30  # a network that no lab has asked for in this time is removed
SPARE_BYTES = 50 * 2**20
STARTED = time.time()


def folder() -> Path:
    """Where labs keep their networks: ``XAI_COURSE_LABS``, else ``labs`` in the cache folder (``XAI_COURSE_CACHE``)."""
    return Path(os.environ.get("XAI_COURSE_LABS") or cache_folder() / "labs")


def fit(
    method: Method,
    data: Dataset,
    preset: Preset,
    *,
    seed: int = 0,
    augment: Augment | None = None,
    resume: bool = True,
) -> list[dict[str, float]]:
    """`train.fit` that keeps its checkpoint under `key`: killed and called again it goes on, finished it loads at once.

    Arguments and result are those of `train.fit`; on a CPU the weights are those of an uninterrupted run, bit for bit.
    A bar shows the time left where a reader has a kernel; a page stays quiet.
    ``resume=False`` trains anew. Where a run cannot be named (a loss written in the notebook itself, say) or its folder
    has no room or cannot be written, one line says so and the run is trained without being kept.
    """
    try:
        out = _room_for(folder() / key(method, data, preset, seed=seed, augment=augment), method)
    except (ValueError, OSError, RecursionError) as why:
        print(f"{type(method).__name__} is trained without a checkpoint: {why}")
        out = None
    if out is not None and resume and (checkpoint := out / "checkpoint.pt").exists():
        checkpoint.touch()
        print(f"{type(method).__name__}: a checkpoint of this very run is used; resume=False trains it anew")
    return train.fit(method, data, preset, seed=seed, out=out, resume=resume, augment=augment, quiet=not live())


def key(method: Method, data: Dataset, preset: Preset, *, seed: int = 0, augment: Augment | None = None) -> str:
    """Sixteen hex digits that change with anything that decides the trained weights.

    That is: preset, seed, the images with labels, masks and order that training reads, the method with all its settings
    and initial weights, the augmentation, the package's code that training runs through, and PyTorch. Not the device.

    Raises:
        ValueError: something has no lasting name (see `identity`), or package files changed after they were loaded.
    """
    settings = dataclasses.asdict(preset)
    del settings["checkpoint_seconds"], settings["workers"]  # they change when it is saved and loaded, not what
    length = min(len(data), preset.limit or len(data))
    parts = [range(i, min(i + 256, length)) for i in range(0, length, 256)]
    images = [identity(tuple(data.__getitems__(part))) for part in parts]
    own = (identity(method), identity(augment))  # first: what has no lasting name has no source either
    through = (train.fit, method, augment)
    if max(file.stat().st_mtime for file in sources(*through)) > STARTED:
        raise ValueError("the package's files have changed since they were loaded: restart the kernel to use them")
    return fingerprint(torch.__version__, code_of(*through), settings, seed, *own, images)


def _room_for(out: Path, method: Method) -> Path:
    """The folder ``out``, made and writable; networks that nobody has asked for lately make room.

    Raises:
        OSError: it cannot be written, or the disk is nearly full; the message says what to do.
    """
    for old in out.parent.glob("[0-9a-f]" * 16):
        if (file := old / "checkpoint.pt").exists() and time.time() - file.stat().st_mtime > KEPT_DAYS * 86400:
            shutil.rmtree(old, ignore_errors=True)
    cure = "set XAI_COURSE_CACHE to a folder with room that may be written"
    try:
        out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out).close()
    except OSError as error:
        raise OSError(f"{out} cannot be written ({error.strerror}); {cure}") from error
    weights = sum(value.nbytes for value in method.state_dict().values())
    need = 8 * weights + SPARE_BYTES  # an old and a new checkpoint: weights, their average, two moments
    if (free := shutil.disk_usage(out).free) < need:
        raise OSError(f"{need / 1e6:.0f} MB are needed and {free / 1e6:.0f} MB are free in {out}; {cure}")
    return out


def rows(
    table: str,
    names: Iterable[str] | None = None,
    profile: str = "smoke",
    retrain: bool = False,
    *,
    skip_missing: bool = False,
    save: bool = False,
) -> dict[str, Record]:
    """Rows of one table, loaded or trained; all rows of a table come from one profile, so that they can be compared.

    Args:
        table: what the experiments' names begin with, such as ``"amc/digits"``.
        names: the rest of their names; None for all that are declared.
        profile: used where the whole table has it, else smoke, and a line says so.
        retrain: run the experiments here, with the seeds of their committed records. What was finished here before is
            loaded from the cache folder, and an interrupted run goes on where it stopped.
        skip_missing: leave out rows without a record instead of raising.
        save: with ``retrain``, replace the committed records by the new ones.

    Returns:
        Record by name, in the order of ``names``.

    Raises:
        ValueError: an unknown row or profile.
        FileNotFoundError: a row has no record; the message is the command that makes it.
    """
    profile = colab.resolve(profile)
    declared = {name.removeprefix(f"{table}/"): e for name, e in experiments().items() if name.startswith(f"{table}/")}
    names = tuple(declared) if names is None else tuple(names)
    chosen = {name: find(f"{table}/{name}") for name in names}
    if not all(_has(experiment, profile, retrain) for experiment in declared.values()):
        said = "declared" if retrain else "recorded (retrain = True trains rows here)"
        colab.say_once(f"{table}: not every row is {said} at profile {profile}, so all rows are the smoke ones")
        profile = "smoke"
    if retrain:
        return {name: _trained(experiment, profile, save) for name, experiment in chosen.items()}
    there = {n: records.record_path(e.name, profile).exists() or not skip_missing for n, e in chosen.items()}
    return {name: records.load(experiment.name, profile) for name, experiment in chosen.items() if there[name]}


def _has(experiment: Experiment, profile: str, retrain: bool) -> bool:
    """Whether a row can be had at ``profile``; one that was never run does not keep the others from it."""
    if retrain:
        return profile in experiment.presets
    paths = {name: records.record_path(experiment.name, name) for name in (profile, "smoke")}
    return paths[profile].exists() or not paths["smoke"].exists()


def _trained(experiment: Experiment, profile: str, save: bool) -> Record:
    known = records.available(experiment.name)
    record = known.get(profile) or known.get("smoke")
    seeds = record.seeds if record else (0, 1, 2)
    took = ""
    if record and profile in known:
        took = f"; the committed run took {sum(record.seconds):.0f} s on {record.device}"
    colab.say_once(f"{experiment.name}: training {profile}, seeds {', '.join(map(str, seeds))}{took}")
    results = [run_seed(experiment, profile, seed, quiet=not live()) for seed in seeds]
    return collect(experiment, profile, seeds, results, force=save, save=save)
