"""What the bench's records say: paired differences with intervals, verdicts, and the tables of its page.

Every method is compared with its twin, the same network without it, seed by seed: both saw the same images and started
from the same numbers. Five differences give a mean and Student's 95 % interval. A verdict asks more: a p-value that
survives Holm's correction over all methods of a setting.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ..measure.trivial import TRIVIAL
from . import records
from .catalogue import experiments
from .declared import document
from .experiment import Experiment

NAMES = {
    "accuracy": "accuracy",
    "validation_accuracy": "accuracy where the cue holds",
    "mAP": "mAP",
    "OF1": "F1 of all decisions",
    "fgsm_0.02": "FGSM 0.02",
    "pgd_margin_0.02": "PGD 0.02",
    "ece": "calibration error",
    "memorised": "wrong labels learnt",
    "energy_in_mask": "energy in mask",
    "pointing": "pointing",
    "iou": "IoU",
    "f1_plus": "F1+",
    "f1_minus": "F1−",
    "box_accuracy": "box accuracy",
    "deletion": "deletion",
    "insertion": "insertion",
    "time": "time × CE",
    "memory": "memory × CE",
}
MAPS = ("energy_in_mask", "pointing", "iou", "f1_plus", "f1_minus", "box_accuracy")
LESS_IS_MORE = ("ece", "memorised", "deletion", "time", "memory")
PRIMARY = {name: tuple(setting["primary"]) for name, setting in document("bench")["setting"].items()}
BLOCK = re.compile(r"^% bench (?P<what>\w+) (?P<setting>\w+)\n.*?^% end\n", re.M | re.S)


class Difference(NamedTuple):
    """A method minus its twin: mean over seeds, ends of the 95 % interval, two-sided p-value, and each seed's value."""

    mean: float
    low: float
    high: float
    p: float
    values: tuple[float, ...]


def row(key: str) -> Experiment:
    """A row by the last part of its name, in the first setting that has it."""
    return next(e for e in experiments().values() if e.paper == "bench" and e.name.endswith(f"/{key}"))


def title(key: str) -> str:
    return row(key).title


def twin(key: str) -> str:
    """The row a method is compared with; its own name where it is the plain one."""
    return row(key).twin.rpartition("/")[2] or key


def rows_of(setting: str) -> tuple[str, ...]:
    """The rows of a setting: those that it asks something of."""
    return tuple(document("bench")["setting"][setting]["ways"])


def rows_run(setting: str) -> tuple[str, ...]:
    """The rows of a setting that have a record, and so has their twin."""

    def there(key: str) -> bool:
        return records.record_path(f"bench/{setting}/{key}", "smoke").exists()

    return tuple(key for key in rows_of(setting) if there(key) and there(twin(key)))


def measured() -> tuple[str, ...]:
    """The settings in which some method has run beside its twin."""
    return tuple(s for s in PRIMARY if any(twin(key) != key for key in rows_run(s)))


def values(setting: str, key: str, metric: str) -> dict[int, float]:
    """One metric of one row by seed."""
    record = records.load(f"bench/{setting}/{key}")
    return dict(zip(record.seeds, record.metrics[metric].values))


def paired(ours: Sequence[float], theirs: Sequence[float], confidence: float = 0.95) -> Difference:
    """Mean of the differences with Student's interval, n - 1 degrees of freedom.

    Raises:
        ValueError: fewer than two pairs, or lengths that differ.
    """
    from scipy import stats

    if len(ours) != len(theirs) or len(ours) < 2:
        raise ValueError(f"ours and theirs must be of one length >= 2, got {len(ours)} and {len(theirs)}")
    gaps = [a - b for a, b in zip(ours, theirs)]
    n, mean = len(gaps), sum(gaps) / len(gaps)
    error = (sum((g - mean) ** 2 for g in gaps) / (n - 1) / n) ** 0.5
    reach = float(stats.t.ppf(0.5 + confidence / 2, n - 1)) * error
    p = 2 * float(stats.t.sf(abs(mean) / error, n - 1)) if error else float(mean == 0)
    return Difference(mean, mean - reach, mean + reach, p, tuple(gaps))


def differences(setting: str, metric: str) -> dict[str, Difference]:
    """Every method of a setting against its twin, seeds matched by number.

    Raises:
        ValueError: a method and its twin were run with other seeds. FileNotFoundError: a row was not run.
    """
    found = {}
    for key in rows_run(setting):
        if twin(key) == key:
            continue
        ours, theirs = values(setting, key, metric), values(setting, twin(key), metric)
        if ours.keys() != theirs.keys():
            raise ValueError(f"bench/{setting}/{key} and {twin(key)} must have the same seeds, got other ones")
        found[key] = paired([ours[s] for s in ours], [theirs[s] for s in ours])
    return found


def holm(p: Mapping[str, float]) -> dict[str, float]:
    """Holm's step-down adjusted p-values: calling those below 0.05 real errs anywhere in at most 5 of 100 cases."""
    adjusted, worst = {}, 0.0
    for rank, key in enumerate(sorted(p, key=p.get)):
        worst = max(worst, min(1.0, (len(p) - rank) * p[key]))
        adjusted[key] = worst
    return {key: adjusted[key] for key in p}


def verdicts(setting: str, metric: str, level: float = 0.05) -> dict[str, str]:
    """ "higher", "lower" or "open" for each method against its twin."""
    found = differences(setting, metric)
    adjusted = holm({key: d.p for key, d in found.items()})
    return {key: "open" if adjusted[key] >= level else "higher" if d.mean > 0 else "lower" for key, d in found.items()}


# --- tables -----------------------------------------------------------------------------------------------------------


def _line(cells: Sequence[str]) -> str:
    """A row of a table; numbers, deviations and intervals stay on one line."""
    kept = [cell.replace(" ± ", "\u00a0±\u00a0").replace(" … ", "\u00a0…\u00a0") for cell in cells]
    return "| " + " | ".join(kept) + " |"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join([_line(head), _line(["---"] * len(head)), *map(_line, rows)])


def mean_sd(setting: str, key: str, metric: str) -> str:
    """ "0.884 ± 0.003", or nothing where the row lacks the metric."""
    return str(records.load(f"bench/{setting}/{key}").metrics.get(metric, ""))


def scores_table(setting: str) -> str:
    """What each row reached, mean and standard deviation over the seeds."""
    metrics = [m for m in NAMES if m in records.load(f"bench/{setting}/ce").metrics and m not in MAPS[2:]]
    if setting not in ("shifted", "textures"):
        metrics = [m for m in metrics if m != "validation_accuracy"]
    rows = [[title(key), *(mean_sd(setting, key, m) for m in metrics)] for key in rows_run(setting)]
    return _table(["", *(NAMES[m] for m in metrics)], rows)


def differences_table(setting: str) -> str:
    """Paired differences to the twin on the two declared columns, and the verdict."""
    head, columns = ["", "against"], []
    for metric in PRIMARY[setting]:
        head += [f"{NAMES[metric]}: difference", "95 % interval", "verdict"]
        columns.append((differences(setting, metric), verdicts(setting, metric)))
    rows = []
    for key in columns[0][0]:
        cells = [title(key), title(twin(key))]
        for found, said in columns:
            d = found[key]
            cells += [f"{d.mean:+.3f}", f"{d.low:+.3f} … {d.high:+.3f}", said[key]]
        rows.append(cells)
    return _table(head, rows)


def maps_table(setting: str) -> str:
    """Scores of the maps, the trivial ones and the untrained network's first."""
    metrics = [m for m in MAPS if m != "box_accuracy" or setting != "multi"]
    rows = [
        [f"*{name.replace('_', ' ')}*", *(mean_sd(setting, "ce", f"{m}_{name}") for m in metrics)]
        for name in (*TRIVIAL, "untrained")
    ]
    if "loss_attention" in rows_run(setting):
        untrained = [mean_sd(setting, "loss_attention", f"{m}_untrained") for m in metrics]
        rows.append(["*untrained, Loss-Attention*", *untrained])
    rows += [[title(key), *(mean_sd(setting, key, m) for m in metrics)] for key in rows_run(setting)]
    return _table(["", *(NAMES[m] for m in metrics)], rows)


def verdict_text(setting: str) -> str:
    """The verdicts of a setting in words, and what was declared and not run."""
    lines = []
    for metric in PRIMARY[setting]:
        said, found = verdicts(setting, metric), differences(setting, metric)
        if not said:
            continue
        parts = [
            f"{word} for {' · '.join(f'{title(k)} ({found[k].mean:+.3f})' for k in said if said[k] == word)}"
            for word in ("higher", "lower")
            if word in said.values()
        ]
        left = [title(k) for k in said if said[k] == "open"]
        parts += [f"open for {' · '.join(left)}"] if left else []
        name = NAMES[metric]
        lines.append(
            f"- **{name[0].upper() + name[1:] if name.islower() else name}**, against the twin: {'; '.join(parts)}."
        )
    missing = [title(k) for k in rows_of(setting) if k not in rows_run(setting)]
    if missing:
        lines.append(f"- Declared and not run: {' · '.join(missing)}.")
    return "\n".join(lines)


TABLES = {"verdict": verdict_text, "scores": scores_table, "differences": differences_table, "maps": maps_table}


def refreshed(page: str) -> str:
    """The page's text with every table between ``% bench <table> <setting>`` and ``% end`` made anew from the records.

    Raises:
        ValueError: an unknown table.
    """

    def made(match: re.Match) -> str:
        if match["what"] not in TABLES or match["setting"] not in PRIMARY:
            raise ValueError(
                f"tables are {', '.join(TABLES)} of {', '.join(PRIMARY)}, got {match[0].splitlines()[0]!r}"
            )
        return f"% bench {match['what']} {match['setting']}\n\n{TABLES[match['what']](match['setting'])}\n\n% end\n"

    return BLOCK.sub(made, page)
