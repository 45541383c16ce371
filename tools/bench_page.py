"""The bench page's tables, made from the run records at staging: ``{bench} <table> <setting>``."""

from __future__ import annotations

from xai_course.runs import records
from xai_course.runs.comparison import (
    MAPS,
    NAMES,
    differences,
    maps_table,
    mean_sd,
    primary,
    rows_of,
    rows_run,
    settings,
    title,
    twin,
    verdicts,
)
from xai_course.runs.report import table


def scores(setting: str) -> str:
    """What each row reached, mean and standard deviation over the seeds."""
    there, shown = records.load(f"bench/{setting}/ce").metrics, rows_of(setting)["ce"].shown
    metrics = [m for m in NAMES if m in there and m not in MAPS[2:] and (m != "validation_accuracy" or m in shown)]
    rows = [[title(key), *(mean_sd(setting, key, m) for m in metrics)] for key in rows_run(setting)]
    return table(["", *(NAMES[m] for m in metrics)], rows)


def gaps(setting: str) -> str:
    """Paired differences to the twin on the declared columns, and the verdict."""
    head, columns = ["", "against"], []
    for metric in primary(setting):
        head += [f"{NAMES[metric]}: difference", "95 % interval", "verdict"]
        columns.append((differences(setting, metric), verdicts(setting, metric)))
    rows = []
    for key in columns[0][0]:
        cells = [title(key), title(twin(key))]
        for found, said in columns:
            d = found[key]
            cells += [f"{d.mean:+.3f}", f"{d.low:+.3f} … {d.high:+.3f}", said[key]]
        rows.append(cells)
    return table(head, rows)


def verdict(setting: str) -> str:
    """The verdicts of a setting in words, and what was declared and not run."""
    lines = []
    for metric in primary(setting):
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


TABLES = {"verdict": verdict, "scores": scores, "differences": gaps, "maps": maps_table}


def bench_markdown(what: str, setting: str) -> str:
    """One table of one setting as Markdown.

    Raises:
        ValueError: an unknown table or setting.
    """
    if what not in TABLES or setting not in settings():
        raise ValueError(f"tables are {', '.join(TABLES)} of {', '.join(settings())}, got {what} {setting}")
    return TABLES[what](setting)
