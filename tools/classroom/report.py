"""What comes out of marking: a table for the teacher and a page for each student, in which nothing runs."""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tools.classroom.grading import Result

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>body{{font:1rem/1.5 system-ui;max-width:60rem;margin:2rem auto;padding:0 1rem}}
td,th{{padding:.3rem .8rem;text-align:left;vertical-align:top}}pre{{background:#f4f4f4;padding:.6rem;overflow:auto}}
</style></head><body><h1>{title}</h1><p><strong>{score:g} of {most:g} points</strong></p>{remark}
<table><tr><th>question</th><th>points</th><th>what was found</th></tr>{rows}</table>{code}</body></html>
"""


def feedback(result: Result, assignment: str) -> str:
    """The student's page: points, what is wrong and where to look, and the code that was marked."""
    rows = []
    for name, mark in result.marks.items():
        hint = f"<br>Hint: {html.escape(mark.hint)}" if mark.hint else ""
        found = html.escape(mark.why) + hint if mark.why else "right"
        rows.append(f"<tr><td>{html.escape(name)}</td><td>{mark.points:g} of {mark.of:g}</td><td>{found}</td></tr>")
    return PAGE.format(
        title=html.escape(f"{assignment}: {result.student}"),
        score=result.score,
        most=result.most,
        remark=f"<p>{html.escape(result.remark)}</p>" if result.remark else "",
        rows="".join(rows),
        code="".join(f"<pre>{html.escape(source)}</pre>" for source in result.code if source.strip()),
    )


def table(results: Sequence[Result], names: Sequence[str]) -> str:
    """``scores.csv``: a row per student with the points per question, and why points are missing."""
    rows = [["student", "score", "of", *names, "remark"]]
    for r in results:
        points = [f"{r.marks[name].points:g}" if name in r.marks else "" for name in names]
        lost = [f"{name}: {mark.why}" for name, mark in r.marks.items() if mark.why]
        remark = "; ".join(filter(None, [r.remark, *lost]))
        rows.append([r.student, f"{r.score:g}", f"{r.most:g}", *points, remark])
    return as_csv(rows)


def as_csv(rows: Sequence[Sequence[object]]) -> str:
    """CSV in which no cell is a formula to a spreadsheet."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([[safe(str(cell)) for cell in row] for row in rows])
    return text.getvalue()


def safe(cell: str) -> str:
    """A text that begins like a formula is quoted; numbers stay numbers."""
    try:
        float(cell)
        return cell
    except ValueError:
        text = cell.replace("\x00", "")
        return "'" + text if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
