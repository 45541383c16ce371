"""Paper-against-ours tables, made from run records only."""

import re
from collections.abc import Container, Iterable, Sequence

from ..data.batch import fingerprint
from ..measure.metrics import metric
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
    in_order = dict.fromkeys(e.item for e in rows)
    return "\n\n".join(_table(item, [e for e in rows if e.item == item]) for item in in_order)


def item_title(item: str) -> str:
    """ "table1" -> "Table 1", "digits" -> "Textured Digits (ours)"."""
    match = re.fullmatch(r"(table|fig)(?:ure)?_?(\w+)", item)
    if match:
        return f"{'Table' if match[1] == 'table' else 'Figure'} {match[2].upper() if match[2].isalpha() else match[2]}"
    return "Textured Digits (ours)" if item == "digits" else item.replace("_", " ").capitalize()


def _table(item: str, rows: list[Experiment]) -> str:
    found = {e.name: records.available(e.name) for e in rows}
    reported = dict.fromkeys(name for e in rows for name in e.reported)
    ours = dict.fromkeys(name for e in rows if found[e.name] for name in e.shown)
    shared = in_common([record for e in rows for record in found[e.name].values()])
    whose = " (ours)" if reported else ""
    head = ["Row", *(f"{_words(m)} (paper)" for m in reported)]
    head += [*(f"{_words(m)}{', %' * metric(m).percent}{whose}" for m in ours), "How ours ran"]
    lines = []
    for experiment in rows:
        paper = [experiment.reported.get(name, "") for name in reported]
        if not found[experiment.name]:
            reason = f"not run: needs {experiment.needs}" if experiment.needs else "not run yet"
            lines.append([experiment.title, *paper, *("" for _ in ours), reason])
        for record in found[experiment.name].values():
            mine = [_printed(record, name) for name in ours]
            lines.append([experiment.title, *paper, *mine, how_it_ran(record, shared)])
    all_runs = f"*All runs: {', '.join(shared.values())}.*\n\n" if shared else ""
    return f"**{item_title(item)}**\n\n{all_runs}{table(head, lines)}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; numbers, deviations and intervals stay on one line."""
    lines = [" | ".join(cells) for cells in (head, ["---"] * len(head), *rows)]
    return "\n".join(f"| {line} |".replace(" ± ", "\u00a0±\u00a0").replace(" … ", "\u00a0…\u00a0") for line in lines)


def conditions(record: Record) -> dict[str, str]:
    """Preset, seeds, data and device, each in a few words."""
    data = record.data["name"]
    return {"preset": record.preset, "seeds": record.seeds_text, "data": data, "device": record.device}


def in_common(runs: Sequence[Record]) -> dict[str, str]:
    """The `conditions` that are the same for all runs."""
    each = [conditions(record) for record in runs]
    return {k: v for k, v in (each[0] if each else {}).items() if all(other[k] == v for other in each)}


def how_it_ran(record: Record, shared: Container[str] = ()) -> str:
    """The `conditions` not ``shared`` by the table, the data's fingerprint over all seeds, and the time."""
    own = [words for name, words in conditions(record).items() if name not in shared]
    own.append(f"data\u00a0{fingerprint(*sorted(set(record.data['fingerprints'])))[:8]}")
    return ", ".join([*own, f"{sum(record.seconds) / len(record.seconds):.0f}\u00a0s\u00a0per\u00a0seed"])


def _printed(record: Record, name: str) -> str:
    """A metric as its papers print it, in per cent or not; nothing where the row lacks it."""
    found = record.metrics.get(name)
    return "" if found is None else found.percent if metric(name).percent else str(found)


def _words(name: str) -> str:
    return name.replace("_", " ")
