"""Where records come from: which the present code and declarations would not give, and what all of them cost."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator

from . import records
from .catalogue import experiments
from .records import Record


def every() -> Iterator[Record]:
    """All sound records of declared rows and of rows that once were."""
    folder = records.results_folder()
    names = {path.parent.relative_to(folder).as_posix() for path in folder.rglob("*.json")}
    for name in sorted(names):
        if name.split("/")[0] != "benchmarks":
            yield from records.available(name).values()


def stale(record: Record) -> list[str]:
    """Why a record is not what its row would give now, in a few words each; [] where it is."""
    row = experiments().get(record.experiment)
    if row is None or record.preset not in row.presets:
        return ["no longer declared"]
    settings = json.loads(json.dumps(row.settings(record.preset)))
    reasons = {
        "other code": record.code != row.code(),
        "uncommitted code": record.commit.endswith("+") or record.commit == "unknown",
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
