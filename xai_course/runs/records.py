"""Run records: one JSON file per experiment and preset, the only source of numbers in the book."""

import contextlib
import json
import os
import statistics
import warnings
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ..data.files import course_file, locked, write_atomically

SCHEMA = 1


@dataclass(frozen=True)
class Metric:
    """One measured quantity: a value per seed."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def sd(self) -> float:
        """Sample standard deviation over the seeds; 0 for a single one."""
        return statistics.stdev(self.values) if len(self.values) > 1 else 0.0

    def __str__(self) -> str:
        return f"{self.mean:.3f} ± {self.sd:.3f}" if len(self.values) > 1 else f"{self.mean:.3f}"

    @property
    def percent(self) -> str:
        """A share as the papers print it: "43.4 ± 4.9", without the sign."""
        sd = f" ± {100 * self.sd:.1f}" if len(self.values) > 1 else ""
        return f"{100 * self.mean:.1f}{sd}"


@dataclass(frozen=True)
class Record:
    """What a run gave and everything that decided it.

    Attributes:
        metrics: name to `Metric`; values in the order of ``seeds``.
        curves: loss term to one list per seed with its mean in each epoch.
        settings: preset, data, network and method as the experiment declares them.
        data: name of the data set and ``fingerprints``, one per seed in their order (older records: each once).
        commit: the checkout's; "+" behind it where a file behind ``code`` was not committed.
        seconds: training time per seed. memory_mb: peak of the accelerator's memory, or of the process on a CPU.
        cpu_seconds: spent on data, training and measuring, per seed, by the process that finished it; older: none.
        checked: the ``seed`` that later ``code`` at a later ``commit`` gave again to the last digit; {} if none.
    """

    experiment: str
    preset: str
    seeds: tuple[int, ...]
    metrics: dict[str, Metric]
    curves: dict[str, list[list[float]]]
    settings: dict
    data: dict
    device: str
    versions: dict[str, str]
    commit: str
    code: str
    seconds: tuple[float, ...]
    memory_mb: float
    created: str
    schema: int = field(default=SCHEMA)
    cpu_seconds: tuple[float, ...] = ()
    checked: dict = field(default_factory=dict)

    @property
    def seeds_text(self) -> str:
        return f"{len(self.seeds)} seed{'s' * (len(self.seeds) != 1)}"


def results_folder() -> Path:
    """``data/results``, or ``XAI_COURSE_RESULTS``."""
    return Path(os.environ.get("XAI_COURSE_RESULTS") or course_file("results"))


def record_path(experiment: str, preset: str) -> Path:
    return results_folder() / experiment / f"{preset}.json"


def save(record: Record, *, force: bool = False) -> Path:
    """Write the record in one step; an earlier one stays whole if this fails.

    One of more seeds is kept, with a warning, unless ``force`` is set: a trial must not cost what took days.
    """
    content = asdict(record)
    content["metrics"] = {name: [round(v, 6) for v in metric.values] for name, metric in record.metrics.items()}
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=True) + "\n"
    path = record_path(record.experiment, record.preset)
    with locked(path.parent):
        earlier = 0
        with contextlib.suppress(OSError, ValueError):  # none, or a damaged one
            earlier = len(_read(path).seeds)
        if earlier > len(record.seeds) and not force:
            kept = f"{path} keeps its {earlier} seeds, this run has {len(record.seeds)}: `--force` replaces them"
            warnings.warn(kept, stacklevel=2)
            return path
        return write_atomically(
            path, lambda file: file.write(text.encode()), "set XAI_COURSE_RESULTS to another folder"
        )


def load(experiment: str, preset: str = "smoke") -> Record:
    """The record of one experiment.

    Raises:
        FileNotFoundError: it was not run; the message is the command that runs it.
        ValueError: the file is damaged or of another schema version.
    """
    path = record_path(experiment, preset)
    if not path.exists():
        raise FileNotFoundError(f"no record of {experiment}: run `xai-course run {experiment} --preset {preset}`")
    return _read(path)


def _read(path: Path) -> Record:
    try:
        content = json.loads(path.read_text("utf-8"))
        if content["schema"] != SCHEMA:
            raise ValueError(f"schema {content['schema']}, this version reads {SCHEMA}")
        content["metrics"] = {name: Metric(tuple(values)) for name, values in content["metrics"].items()}
        lists = {"cpu_seconds": tuple(content.get("cpu_seconds", ()))}
        return Record(**content | lists | {key: tuple(content[key]) for key in ("seeds", "seconds")})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"record {path} cannot be used ({error}): delete it and run the experiment again") from error


def available(experiment: str) -> dict[str, Record]:
    """Every sound record of an experiment by preset; damaged ones are named in a warning and skipped."""
    found = {}
    for path in sorted((results_folder() / experiment).glob("*.json")):
        try:
            found[path.stem] = _read(path)
        except ValueError as error:
            warnings.warn(str(error), stacklevel=2)
    return found
