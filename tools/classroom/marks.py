"""From the marks of all assignments to one gradebook, and to the tables that Canvas and Moodle read."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tools.classroom import manual
from tools.classroom.report import as_csv, safe

LINE = "line of the file"


@dataclass(frozen=True)
class Late:
    """What a late hand-in costs: ``share`` of its points per day begun, after ``grace`` days, at most ``most``."""

    share: float = 0.1
    grace: float = 0.0
    most: float = 1.0

    @staticmethod
    def parse(text: str) -> Late:
        """``10`` or ``10,2`` or ``10,2,50``: per cent a day, days of grace, per cent at most.

        Raises:
            ValueError: something else.
        """
        try:
            share, grace, most = [*map(float, text.split(",")), *[0.0, 100.0][text.count(",") :]][:3]
        except ValueError:
            raise ValueError(f"--late takes PERCENT[,GRACE[,MOST]], such as 10,2,50, got {text!r}") from None
        if not (0 <= share <= 100 and grace >= 0 and 0 <= most <= 100):
            raise ValueError(f"--late takes percentages from 0 to 100 and days of 0 or more, got {text!r}")
        return Late(share / 100, grace, most / 100)

    def factor(self, days: float) -> float:
        """What remains of the points after so many days."""
        begun = max(0, -int(-(days - self.grace) // 1))
        return 1 - min(self.most, self.share * begun)


def rows(path: Path, *needed: str) -> list[dict[str, str]]:
    """A CSV with a header, whatever the spreadsheet that wrote it; ``LINE`` in each row is where it ends.

    Raises:
        ValueError: it lacks a column or all rows, or is not UTF-8.
    """
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{path}: expected CSV in UTF-8; the spreadsheet's dialog for saving offers it") from None
    dialect = ";" if text[: text.find("\n")].count(";") > text[: text.find("\n")].count(",") else ","
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=dialect, restval="")
    found = [{**row, LINE: str(reader.line_num)} for row in reader if any(row.values())]
    lacking = [name for name in needed if found and name not in found[0]]
    if lacking or not found:
        raise ValueError(f"{path}: expected a line of {', '.join(needed)} and one per student; no {', '.join(lacking)}")
    return found


def people(path: Path) -> dict[str, dict[str, str]]:
    """The mapping file: ``student`` is the name of the hand-in, the other columns are the platform's.

    Raises:
        ValueError: a column is missing, or two lines have the same student or the same id.
    """
    listed = rows(path, "student", "id")
    for column in ("student", "id"):
        _all_differ(path, listed, column)
    return {row["student"].strip(): row for row in listed}


def _all_differ(path: Path, listed: list[dict[str, str]], column: str) -> None:
    seen: dict[str, str] = {}
    for row in listed:
        if (first := seen.setdefault(row[column].strip().removeprefix("'"), row[LINE])) != row[LINE]:
            raise ValueError(f"{path}: lines {first} and {row[LINE]} have the same {column} {row[column]!r}")


def gradebook(grades: Path, late: Late | None = None) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """Most points per assignment, and points per student and assignment, manual points and lateness included.

    Beside each ``scores.csv`` may stand ``manual.csv`` (the filled-in sheet, or ``student, points``; added) and
    ``late.csv`` (``student, days``).

    Raises:
        ValueError: there are no marks, or a table names a student whom the marks do not know.
    """
    tables = {path.parent.name: rows(path, "student", "score", "of") for path in sorted(grades.glob("*/scores.csv"))}
    if not tables:
        raise ValueError(f"no marks in {grades}: expected ASSIGNMENT/scores.csv, as grade writes it")
    most, points = {}, {}
    for name, table in tables.items():
        most[name] = float(table[0]["of"]) + (manual.MOST if _has_levels(grades / name / "manual.csv") else 0)
        scores = {row["student"].removeprefix("'"): float(row["score"]) for row in table}
        by_hand = _extra(grades / name / "manual.csv", scores, manual.points)
        days = _extra(grades / name / "late.csv", scores, lambda row, path: manual.number(row, "days", path), "days")
        for student, score in scores.items():
            factor = (late or Late(0)).factor(days.get(student, 0.0))
            points.setdefault(student, {})[name] = round((score + by_hand.get(student, 0.0)) * factor, 2)
    return most, points


def _has_levels(path: Path) -> bool:
    return path.exists() and "points" not in rows(path, "student")[0]


def _extra(path: Path, known: dict[str, float], number: Callable, *needed: str) -> dict[str, float]:
    if not path.exists():
        return {}
    listed = rows(path, "student", *needed)
    _all_differ(path, listed, "student")
    found = {row["student"].strip().removeprefix("'"): number(row, str(path)) for row in listed}
    if strangers := sorted(set(found) - set(known)):
        raise ValueError(f"{path}: no marks for {', '.join(strangers)}; the names are those of the hand-ins")
    return found


def plain(most: dict[str, float], points: dict[str, dict[str, float]]) -> str:
    """The gradebook: a row per student, a column per assignment, and the sum."""
    table = [["student", *most, "total", "of"]]
    for student, mine in sorted(points.items()):
        cells = [f"{mine[name]:g}" if name in mine else "" for name in most]
        table.append([student, *cells, f"{sum(mine.values()):g}", f"{sum(most.values()):g}"])
    return as_csv(table)


def canvas(most: dict[str, float], points: dict[str, dict[str, float]], known: dict[str, dict[str, str]]) -> str:
    """Canvas, *Grades > Import*: its five columns, then one per assignment, and the line of points possible.

    The columns of the mapping file are ``student, id`` and, as far as known, ``name, sis, login, section``.
    """
    table = [["Student", "ID", "SIS User ID", "SIS Login ID", "Section", *most]]
    table.append(["    Points Possible", "", "", "", "", *(f"{of:g}" for of in most.values())])
    for student, mine in sorted(points.items()):
        who = known[student]
        own = [who.get("name") or student, who["id"], *(who.get(c) or "" for c in ("sis", "login", "section"))]
        table.append([*own, *(f"{mine[name]:g}" if name in mine else "" for name in most)])
    return as_csv(table)


def moodle(most: dict[str, float], points: dict[str, dict[str, float]], known: dict[str, dict[str, str]]) -> str:
    """Moodle, *Grades > Import > CSV file*: ``ID number``, then one column per assignment; map them when importing."""
    table = [["ID number", *(f"Assignment: {name}" for name in most)]]
    for student, mine in sorted(points.items()):
        table.append([known[student]["id"], *(f"{mine[name]:g}" if name in mine else "" for name in most)])
    return as_csv(table)


def without_id(points: dict[str, dict[str, float]], known: dict[str, dict[str, str]]) -> list[str]:
    """Students with marks whom the mapping file does not name."""
    return sorted(safe(student) for student in set(points) - set(known))
