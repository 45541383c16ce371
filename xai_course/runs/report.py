"""Paper-against-ours tables, made from run records only."""

from __future__ import annotations

import re
from itertools import groupby

from ..data.batch import fingerprint
from . import records
from .catalogue import PAPERS, experiments, unknown
from .experiment import Experiment
from .records import Record


def report_markdown(paper: str, *items: str) -> str:
    """All tables of one paper (or only the ``items`` named, such as "table1") as Markdown.

    Raises:
        ValueError: an unknown paper or item.
    """
    if paper not in PAPERS:
        raise ValueError(unknown("paper", paper, PAPERS))
    rows = [e for e in experiments().values() if e.paper == paper and (not items or e.item in items)]
    known = {e.item for e in experiments().values() if e.paper == paper}
    for item in items:
        if item not in known:
            raise ValueError(unknown(f"item of {paper}", item, known))
    groups = {name: list(group) for name, group in groupby(sorted(rows, key=lambda e: e.item), key=lambda e: e.item)}
    in_order = dict.fromkeys(e.item for e in rows)
    return "\n\n".join(_table(name, groups[name]) for name in in_order)


def item_title(item: str) -> str:
    """ "table1" -> "Table 1", "digits" -> "Textured Digits (ours)"."""
    match = re.fullmatch(r"(table|fig)(?:ure)?_?(\w+)", item)
    if match:
        return f"{'Table' if match[1] == 'table' else 'Figure'} {match[2].upper() if match[2].isalpha() else match[2]}"
    return "Textured Digits (ours)" if item == "digits" else item.replace("_", " ").capitalize()


def _table(item: str, rows: list[Experiment]) -> str:
    found = {e.name: records.available(e.name) for e in rows}
    reported = dict.fromkeys(metric for e in rows for metric in e.reported)
    ours = dict.fromkeys(metric for e in rows if found[e.name] for metric in e.shown)
    head = ["Row", *(f"{_words(m)} (paper)" for m in reported), *(f"{_words(m)} (ours)" for m in ours), "How ours ran"]
    lines = [f"**{item_title(item)}**", "", "| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for experiment in rows:
        paper = [experiment.reported.get(metric, "") for metric in reported]
        if not found[experiment.name]:
            reason = f"not run: needs {experiment.needs}" if experiment.needs else "not run yet"
            lines.append("| " + " | ".join([experiment.title, *paper, *("" for _ in ours), reason]) + " |")
        for record in found[experiment.name].values():
            mine = [str(record.metrics.get(metric, "")) for metric in ours]
            lines.append("| " + " | ".join([experiment.title, *paper, *mine, how_it_ran(record)]) + " |")
    return "\n".join(lines)


def how_it_ran(record: Record) -> str:
    """Preset, seeds, data and its fingerprint over all seeds, device and time in a few words."""
    seconds = sum(record.seconds) / len(record.seconds)
    data = f"{record.data['name']} ({fingerprint(*record.data['fingerprints'])[:8]})"
    return f"{record.preset}, {record.seeds_text}, {data}, {record.device}, {seconds:.0f} s per seed"


def _words(metric: str) -> str:
    return metric.replace("_", " ")
