"""Where records come from: which the present code and declarations would not give, and what all of them cost."""

import dataclasses
import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from fnmatch import fnmatchcase

from . import records, sweep
from .catalogue import experiments
from .experiment import commit
from .records import Metric, Record

SETTLED = ({"other code"}, {"uncommitted code"}, {"other code", "uncommitted code"})  # by one seed, trained again


def every() -> Iterator[Record]:
    """All sound records of declared rows and of rows that once were."""
    folder = records.results_folder()
    names = {path.parent.relative_to(folder).as_posix() for path in folder.rglob("*.json")}
    for name in sorted(names):
        if name.split("/")[0] != "benchmarks":
            yield from records.available(name).values()


def stale(record: Record) -> list[str]:
    """Why a record is not what its row would give now, in a few words each; [] where it is.

    The code is that of the run, or that under which `recheck` found one of its seeds unchanged.
    """
    row = experiments().get(record.experiment)
    if row is None or record.preset not in row.presets:
        return ["no longer declared"]
    settings = json.loads(json.dumps(row.settings(record.preset)))
    code, made = (record.checked.get(key, getattr(record, key)) for key in ("code", "commit"))
    reasons = {
        "other code": code != row.at(record.preset).code(),
        "uncommitted code": made.endswith("+") or made == "unknown",
        "other settings": record.settings != settings,
    }
    return [reason for reason, holds in reasons.items() if holds]


def stale_lines() -> list[str]:
    """One line for every stale record, the counts last; [] where there is none."""
    found = {f"{r.experiment} [{r.preset}]": reasons for r in every() if (reasons := stale(r))}
    counts = Counter(reason for reasons in found.values() for reason in reasons)
    lines = [f"{name}: {', '.join(reasons)}" for name, reasons in found.items()]
    counted = ", ".join(f"{n} with {why}" if "no longer" not in why else f"{n} {why}" for why, n in counts.items())
    return [*lines, f"{len(found)} of {sum(1 for _ in every())} records are stale: {counted}"] if found else []


def recheck(pattern: str = "*") -> Iterator[str]:
    """Trains the cheapest seed of every record that only the code makes stale; one line each, the quickest first.

    Where every metric comes out as recorded, the record says so (``checked``) and is no longer stale. Else it is left
    as it is: run its row again, or find out what changed.
    """
    found = [r for r in every() if fnmatchcase(r.experiment, pattern) and {*stale(r)} in SETTLED]
    jobs = {}
    for record in sorted(found, key=lambda r: min(r.seconds)):
        seed = record.seeds[record.seconds.index(min(record.seconds))]
        jobs[record.experiment, record.preset, seed, True, True] = record
    for job, result in sweep.work(list(jobs), 1):
        record, seed = jobs[job], job[2]
        if isinstance(result, BaseException):
            yield f"{record.experiment} [{record.preset}]: seed {seed} failed, {type(result).__name__}: {result}"
            continue
        place = record.seeds.index(seed)
        then = {name: Metric((metric.values[place],)) for name, metric in record.metrics.items()}
        now = {name: Metric((round(value, 6),)) for name, value in result["metrics"].items()}
        other = [
            f"{name} {then.get(name)} now {now.get(name)}"
            for name in then | now
            if repr(then.get(name)) != repr(now.get(name))
        ]
        if not other:
            row = experiments()[record.experiment].at(record.preset)
            same = {"seed": seed, "code": row.code(), "commit": commit(row.files())}
            records.save(dataclasses.replace(record, checked=same))
        yield f"{record.experiment} [{record.preset}]: seed {seed} {', '.join(other) or 'as recorded'}"


def spent_lines() -> list[str]:
    """What the records of each paper took: trainings, hours of training, and of all processors where it was counted."""
    totals: dict[str, Counter] = defaultdict(Counter)
    for record in every():
        seen = {"records": 1, "trainings": len(record.seeds), "seconds": sum(record.seconds)}
        cpu = {"cpu": sum(record.cpu_seconds), "counted": len(record.cpu_seconds)}
        for paper in (record.experiment.split("/")[0], "all"):
            totals[paper].update(seen | cpu)
    return [
        f"{paper:<15} {t['records']:4} records {t['trainings']:5} trainings {t['seconds'] / 3600:6.1f} h of training"
        + (f" {t['cpu'] / 3600:6.1f} CPU h in {t['counted']} trainings" if t["counted"] else "")
        for paper, t in sorted(totals.items(), key=lambda item: (item[0] == "all", item[0]))
    ]
