"""What a person marks: a table to fill in, and a sheet to print, with each student's words beside the rubric."""

from __future__ import annotations

import ast
import html
import math
from contextlib import suppress

from tools.classroom.build import TEXTS
from tools.classroom.handed_in import Paper
from tools.classroom.report import as_csv

RUBRIC = {
    "reason": ("none, or against the option chosen", "the right step, with a slip", "complete"),
    "prediction": ("none, or after the run", "directions", "directions, sizes and why"),
    "control": ("not used", "named", "what it would have shown if the claim were false"),
    "verdict": ("none, or more than the numbers say", "what they say", "also what one run cannot say"),
}
"""Criterion to what earns 0, 1 and 2 points. A reason counts beside a wrong letter too."""
MOST = 2 * len(RUBRIC)
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title><style>body{{font:11pt/1.4 system-ui;max-width:48rem;margin:auto}}
section{{break-inside:avoid;border-top:1px solid}}pre{{white-space:pre-wrap;font:inherit;margin:.3rem 0 .6rem 1rem}}
td,th{{border:1px solid;padding:.2rem .5rem;text-align:left}}table{{border-collapse:collapse;width:100%}}
</style></head><body><h1>{title}</h1>{sections}</body></html>
"""


def words(paper: Paper) -> dict[str, str]:
    """The student's answers in words, found by the variable's name; nothing is run."""
    found = dict.fromkeys(TEXTS, "")
    for cell in paper.cells:
        for node in cell.body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id in found:
                value = node.value.value if isinstance(node.value, ast.Constant) else ""
                found[node.targets[0].id] = str(value).strip()[:4000]
    return found


def sheet(papers: list[Paper], assignment: str) -> str:
    """A page to print: a section per student, with boxes to tick."""
    rows = "".join(
        f"<tr><th>{name}</th>"
        + "".join(f"<td>☐ {points} {html.escape(text)}</td>" for points, text in enumerate(levels))
        for name, levels in RUBRIC.items()
    )
    sections = []
    for paper in papers:
        said = "".join(f"<b>{n}</b><pre>{html.escape(t or '(nothing)')}</pre>" for n, t in words(paper).items())
        sections.append(f"<section><h2>{html.escape(paper.student)}</h2>{said}<table>{rows}</table></section>")
    return PAGE.format(title=html.escape(f"{assignment}: by hand, {MOST} points"), sections="".join(sections))


def blank(students: list[str], filled: list[dict[str, str]]) -> str:
    """``manual.csv``: a row per student and a column per criterion, 0 to 2; what is filled in stays."""
    known = {row["student"].strip().removeprefix("'"): row for row in filled}
    names = [*students, *(name for name in known if name not in students)]
    return as_csv(
        [["student", *RUBRIC], *([name, *(known.get(name, {}).get(c) or "" for c in RUBRIC)] for name in names)]
    )


def number(row: dict[str, str], column: str, where: str) -> float:
    """A cell as a number, with a decimal point or comma; 0 if it is empty.

    Raises:
        ValueError: it is none, or not finite.
    """
    text = (row[column] or "0").strip().replace(",", ".")
    with suppress(ValueError):
        if math.isfinite(found := float(text)):
            return found
    raise ValueError(f"{where}: {row['student']} has {row[column]!r} as {column}; expected a number")


def points(row: dict[str, str], where: str) -> float:
    """The sum of a row's levels, or its ``points`` where there is such a column.

    Raises:
        ValueError: something else than 0, 1 or 2.
    """
    if "points" in row:
        return number(row, "points", where)
    levels = [(row.get(name) or "0").strip() for name in RUBRIC]
    if wrong := [each for each in levels if each not in ("0", "1", "2")]:
        raise ValueError(f"{where}: {row['student']} has {wrong[0]!r}; the levels are 0, 1 and 2")
    return float(sum(map(int, levels)))
