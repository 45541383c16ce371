"""The pages of the papers' tables: each beside its twin (preset "cpu"), as a picture, a verdict, and numbers.

``[page.<item>]`` in ``data/experiments/<paper>.toml`` says how an item is drawn:

- ``stands``: what stands in for what; ``claim``: what the paper's table is there to show.
- ``axes``: the rest of a row's name with ``{line}`` and perhaps ``{x}``; rows that it does not fit stay in the table.
- ``metric``: one, or several, which then are the x of an item without one.
- ``lines``, ``xs``: which of them, in this order; ``lines`` may say what they are called.
- ``first``: the first seed to run, where seed 0 was looked at before the twin was settled.
- ``note``: what a reader must know before believing a row.
- ``contrast``: two rows; with an ``{x}``, the mean over all x that both have. ``on``: its metric, the first otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from statistics import stdev
from typing import Any, NamedTuple

from xai_course.measure.metrics import metric
from xai_course.measure.statistics import Difference, detectable, paired
from xai_course.runs import records
from xai_course.runs.catalogue import experiments, unknown
from xai_course.runs.declared import document
from xai_course.runs.experiment import Experiment
from xai_course.runs.report import how_it_ran, in_common, item_title, table

KEYS = {"first", "note", "stands", "claim", "axes", "metric", "lines", "xs", "contrast", "on"}
PRINTED = {"seconds": "minutes"}  # what the paper prints in place of what a record has


class Point(NamedTuple):
    """One place of a picture: its line and x, the row and metric that it shows."""

    line: str
    x: str
    row: Experiment
    metric: str


def pages(paper: str) -> dict[str, dict[str, Any]]:
    """How the items of a paper are drawn.

    Raises:
        ValueError: an unknown key.
    """
    found = document(paper).get("page", {})
    for item, page in found.items():
        for key in page.keys() - KEYS:
            raise ValueError(f"data/experiments/{paper}.toml, [page.{item}]: {unknown('key', key, KEYS)}")
    return found


def rows_of(paper: str, item: str) -> list[Experiment]:
    return [e for e in experiments().values() if (e.paper, e.item) == (paper, item)]


def values(row: Experiment, name: str) -> tuple[float, ...]:
    """What the twin gave, per seed, in the paper's unit; () without a record."""
    if "cpu" not in row.presets or not records.record_path(row.name, "cpu").exists():
        return ()
    record = records.load(row.name, "cpu")
    if name == "seconds":
        return record.cpu_seconds  # a machine with other work to do tells nothing by its clock
    found = record.metrics.get(name)
    return tuple(v * scale(name) for v in found.values) if found else ()


def printed(row: Experiment, name: str) -> float | None:
    """The paper's number, or None where it prints none."""
    found = re.match(r"\d+(\.\d+)?", row.reported.get(PRINTED.get(name, name), ""))
    return float(found[0]) if found else None


def scale(name: str) -> int:
    """Shares are drawn in per cent, as the papers print them."""
    return 100 if name != "seconds" and metric(name).unit == "share" else 1


def points(paper: str, item: str) -> list[Point]:
    """All places of an item's picture, lines in order."""
    page, found = pages(paper)[item], []
    names = page["metric"] if isinstance(page["metric"], list) else [page["metric"]]
    pattern = re.escape(page["axes"])
    for axis, known in (("line", page.get("lines")), ("x", page.get("xs"))):
        pattern = pattern.replace(rf"\{{{axis}\}}", f"(?P<{axis}>{'|'.join(map(re.escape, known or ())) or '.+'})")
    for row in rows_of(paper, item):
        fits = re.fullmatch(f"{item}/{pattern}", row.name.partition("/")[2])
        if not fits or not row.stand_in:
            continue
        x = fits.groupdict().get("x")
        own = [n for n in names if values(row, n) or printed(row, n) is not None]
        if x is None and len(names) > 1:
            found += [Point(fits["line"], n, row, n) for n in own or names]
        else:
            found.append(Point(fits["line"], x or "", row, (own or names)[0]))
    lines, xs = list(page.get("lines", {p.line: "" for p in found})), page.get("xs", [p.x for p in found])
    return sorted((p for p in found if p.line in lines and p.x in xs), key=lambda p: lines.index(p.line))


def label(paper: str, item: str, point: Point) -> str:
    """What a line is called."""
    lines, doc = pages(paper)[item].get("lines"), document(paper)
    if isinstance(lines, dict):
        return lines[point.line]
    for kind, key in (("method", "title"), ("head", "words"), ("way", "title")):
        said = doc.get(kind, {}).get(point.line, {})
        if "{" not in (said.get(key) or "{"):
            return said[key]
    alone = "{x}" not in pages(paper)[item]["axes"]
    return point.row.title.rpartition(": ")[2] if alone else point.line


def ran(paper: str, item: str) -> bool:
    """Whether every row of the picture has something to show; a twin need not measure all that the paper prints."""
    shown: dict[str, bool] = {}
    for p in points(paper, item):
        shown[p.row.name] = shown.get(p.row.name, False) or bool(values(p.row, p.metric))
    return bool(shown) and all(shown.values())


def rank_agreement(found: list[Point]) -> tuple[float, int, int] | None:
    """Kendall's tau between paper and twin over the lines, mean over the x; number of lines and of x."""
    from scipy.stats import kendalltau

    taus, most = [], 0
    for x in dict.fromkeys(p.x for p in found):
        both = [(printed(p.row, p.metric), values(p.row, p.metric)) for p in found if p.x == x]
        pairs = [(a, sum(b) / len(b)) for a, b in both if a is not None and b]
        if len({a for a, _ in pairs}) > 1:
            taus.append(float(kendalltau(*zip(*pairs)).statistic))
            most = max(most, len(pairs))
    return (sum(taus) / len(taus), most, len(taus)) if taus else None


def contrast(paper: str, item: str) -> tuple[Difference, float | None, str, str] | None:
    """The item's main contrast: the twin's differences, the paper's where it prints both, and what is compared."""
    page, every = pages(paper)[item], experiments()
    if "contrast" not in page:
        return None
    first = page["metric"] if isinstance(page["metric"], str) else page["metric"][0]
    ours, theirs = page["contrast"]
    pattern = re.escape(f"{paper}/{ours}").replace(r"\{x\}", "(?P<x>.+)")
    matched = [(every[n], m.groupdict().get("x", "")) for n in every if (m := re.fullmatch(pattern, n))]
    pairs = [(a, every[f"{paper}/{theirs}".replace("{x}", x)]) for a, x in matched]
    name = {a.name: next((p.metric for p in points(paper, item) if p.row.name == a.name), first) for a, _ in pairs}
    name = dict.fromkeys(name, page["on"]) if "on" in page else name
    runs = [(values(a, name[a.name]), values(b, name[a.name])) for a, b in pairs]
    runs = [(a, b) for a, b in runs if a and len(a) == len(b)]
    if not runs or len(runs[0][0]) < 2:
        return None
    means = [[sum(v) / len(v) for v in zip(*side)] for side in zip(*runs)]
    told = [(printed(a, name[a.name]), printed(b, name[a.name])) for a, b in pairs]
    gaps = [a - b for a, b in told if a is not None and b is not None]
    said = sum(gaps) / len(gaps) if gaps else None
    return paired(*means), said, f"{_short(ours)} minus {_short(theirs)}", next(iter(name.values()))


def _short(row: str) -> str:
    return f"`{row.partition('/')[2].replace('{x}', '…')}`"


def verdict(paper: str, item: str) -> str:
    """Does the twin bear the table out? From the records, in a few sentences."""
    parts, found = [], contrast(paper, item)
    if found:
        gap, said, what, name = found
        unit = "s" if name == "seconds" else "points" if scale(name) == 100 else metric(name).unit
        word = "open" if gap.low <= 0 <= gap.high else "higher" if gap.mean > 0 else "lower"
        if said is not None and word != "open":
            word += ", as in the paper" if (said > 0) == (gap.mean > 0) else ", against the paper"
        words = PRINTED.get(name, name).replace("_", " ")
        parts.append(f"**{what}, {name.replace('_', ' ')}: {word}.**")
        if said is not None:
            parts.append(f"The paper prints {said:+.2f} ({'points' if unit == 'points' else words}).")
        parts.append(f"The twin gives {gap.mean:+.2f} {unit}, 95 % interval {gap.low:+.2f} to {gap.high:+.2f}.")
        n = len(gap.values)
        least = detectable(stdev(gap.values), n)
        parts.append(f"With {n} seeds a true difference of {least:.2f} {unit} would have been found.")
    if ranks := rank_agreement(points(paper, item)):
        tau, lines, xs = ranks
        over = f" (mean over {xs} columns)" if xs > 1 else ""
        parts.append(f"Order of the {lines} rows, paper against twin: Kendall's τ = {tau:+.2f}{over}.")
    return " ".join(parts)


def numbers(paper: str, item: str) -> str:
    """The paper's numbers and ours; rows with neither are left out."""
    rows = rows_of(paper, item)
    found = {e.name: records.available(e.name) for e in rows}
    metrics = {p.metric for p in points(paper, item)}
    reported = dict.fromkeys(name for e in rows for name in e.reported)
    ours = dict.fromkeys(n for e in rows if found[e.name] for n in (*e.shown, *sorted(metrics)) if n != "seconds")
    shared = in_common([record for e in rows for record in found[e.name].values()])
    lines = []
    for row in rows:
        paper_cells = [row.reported.get(name, "") for name in reported]
        for record in found[row.name].values():
            cells = [_cell(record, name) for name in ours]
            lines.append([row.title, *paper_cells, *cells, how_it_ran(record, shared)])
        if not found[row.name] and any(paper_cells):
            lines.append([row.title, *paper_cells, *("" for _ in ours), ""])
    if not lines:
        return ""
    head = ["Row", *(f"{_words(n)} (paper)" for n in reported)]
    head += [f"{_words(n)}{', %' * (scale(n) == 100)} (ours)" for n in ours]
    said = f"*All runs: {', '.join(shared.values())}.*\n\n" if shared else ""
    return said + table([*head, "How ours ran" if ours else ""], lines)


def _cell(record: records.Record, name: str) -> str:
    found = record.metrics.get(name)
    return "" if found is None else found.percent if scale(name) == 100 else str(found)


def _words(name: str) -> str:
    return name.replace("_", " ")


def section(paper: str, item: str) -> Iterator[str]:
    """One table with its twin as Markdown blocks."""
    page = pages(paper)[item]
    yield f"## {item_title(item)}"
    yield f"*The paper:* {page['claim']} *The twin:* {page['stands']}."
    if ran(paper, item):
        stem = f"{paper}_{item}"
        alt = f"Printed numbers of {item_title(item)} beside those of its twin, {page['stands']}"
        caption = f"{item_title(item)}: what the paper prints, and its twin ({page['stands']}); dots are seeds."
        options = f":name: fig-twin-{stem.replace('_', '-')}\n:alt: {alt}\n"
        yield f"```{{picture}} twins.{stem}\n{options}\n{caption}\n```"
        yield " ".join([verdict(paper, item), page.get("note", "")]).strip()
    else:
        later = f" --from {page['first']}" if "first" in page else ""
        yield f"Not run yet: `xai-course run '{paper}/{item}/*' --preset cpu{later}`."
    if listed := numbers(paper, item):
        yield f"````{{dropdown}} The numbers of {item_title(item)}\n{listed}\n````"


def twins_markdown(paper: str) -> str:
    """All tables of one paper beside their twins.

    Raises:
        ValueError: an unknown paper, or one without such tables.
    """
    if not pages(paper):
        raise ValueError(f"no table of {paper!r} has a twin")
    done = [item for item in pages(paper) if ran(paper, item)]
    said = f"**Run so far: {len(done)} of {len(pages(paper))} twins.**"
    told = [f"- {item_title(item)}: {short}" for item in done if (short := verdict(paper, item).partition(".**")[0])]
    listed = "\n".join(line.replace(": **", ": ") for line in told)
    return "\n\n".join([said, *filter(None, [listed]), *(b for item in pages(paper) for b in section(paper, item))])
