"""``python -m tools.classroom COMMAND``: what a teacher does with assignments; ``make assignments`` builds them."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from tools import BUILD, NOTEBOOKS, ROOT, write_if_changed
from tools.classroom import manual, marks, seal
from tools.classroom.build import build, masters, released, solved
from tools.classroom.grading import grade
from tools.classroom.handed_in import PLATFORMS, Cell, Paper, collect, read, strays
from tools.classroom.questions import freeze, questions
from tools.classroom.sandbox import Limits
from tools.classroom.similar import pairs
from xai_course.runs.catalogue import unknown


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status. A wrong name or folder is one line on stderr, not a traceback."""
    options = _parser().parse_args(arguments)
    try:
        return options.act(options)
    except (ValueError, OSError, RuntimeError) as error:
        print(f"classroom: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.classroom", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    building = commands.add_parser("build", help="student notebooks, keys and archives from the masters")
    building.add_argument("--out", default=BUILD / "assignments", type=Path)
    building.add_argument("--students", default=NOTEBOOKS / "students", type=Path, help="where Colab finds them")
    building.set_defaults(act=_build)
    grading = commands.add_parser("grade", help="grade a folder of submissions in a sandbox")
    grading.add_argument("submissions", type=Path, help="folder with STUDENT.ipynb or STUDENT/NAME.ipynb")
    grading.add_argument("--assignment", required=True, metavar="NAME")
    grading.add_argument("--out", default=BUILD / "grades", type=Path, help="scores and feedback go below OUT/NAME")
    grading.add_argument("--no-sandbox", action="store_true", help="run unguarded: only for your own notebooks")
    grading.add_argument("--jobs", default=1, type=int, help="submissions at a time (default 1)")
    grading.add_argument(
        "--regrade", nargs="*", metavar="QUESTION", help="mark again what has not changed; only these, if any are named"
    )
    grading.add_argument("--seconds", default=600, type=float, help="wall time per submission (default 600)")
    grading.add_argument("--memory-mb", default=4000, type=float, help="memory per submission (default 4000)")
    grading.set_defaults(act=_grade)
    freezing = commands.add_parser("freeze", help="write the students' checks from the references of the questions")
    freezing.add_argument("--out", default=ROOT / "data" / "checks", type=Path)
    freezing.set_defaults(act=_freeze)
    alike = commands.add_parser("similar", help="which hand-ins resemble each other")
    alike.add_argument("submissions", type=Path)
    alike.add_argument("--assignment", required=True, metavar="NAME")
    alike.add_argument("--least", default=0.5, type=float, help="smallest share that is listed (default 0.5)")
    alike.set_defaults(act=_similar)
    acting = commands.add_parser("mock", help="grade a made-up class of styles, mistakes, accidents and attacks")
    acting.add_argument("--few", action="store_true", help="one of each kind")
    acting.add_argument("--jobs", default=2, type=int, help="submissions at a time (default 2)")
    acting.set_defaults(act=_mock)
    solving = commands.add_parser("solutions", help="the solutions of an assignment, once its deadline is over")
    solving.add_argument("--assignment", required=True, metavar="NAME")
    solving.add_argument("--deadline", required=True, type=datetime.fromisoformat, metavar="2026-12-01T23:59")
    solving.add_argument("--out", default=NOTEBOOKS / "solutions", type=Path)
    solving.set_defaults(act=_solutions)
    hand = commands.add_parser("sheet", help="a table and a page to mark by hand what is written in words")
    hand.add_argument("submissions", type=Path)
    hand.add_argument("--assignment", required=True, metavar="NAME")
    hand.add_argument("--out", default=BUILD / "grades", type=Path)
    hand.set_defaults(act=_sheet)
    for name, act, text in (
        ("seal", seal.seal, "lock masters and references away"),
        ("open", seal.unseal, "unlock them"),
    ):
        locking = commands.add_parser(name, help=text)
        locking.add_argument("--key", required=True, type=Path, metavar="FILE", help="outside the repository")
        locking.set_defaults(act=_lock, how=act)
    collecting = commands.add_parser("marks", help="one gradebook of all assignments, for Canvas or Moodle too")
    collecting.add_argument("--grades", default=BUILD / "grades", type=Path, help="where grade wrote its results")
    platform = collecting.add_mutually_exclusive_group()
    platform.add_argument(
        "--canvas", type=Path, metavar="PEOPLE.csv", help="columns student, id (name, sis, login, section)"
    )
    platform.add_argument("--moodle", type=Path, metavar="PEOPLE.csv", help="columns student, id")
    collecting.add_argument(
        "--late", type=marks.Late.parse, metavar="PERCENT[,GRACE[,MOST]]", help="cost of a late day"
    )
    collecting.set_defaults(act=_marks)
    for command in (building, grading, freezing, alike, acting, solving, hand):
        command.add_argument("--masters", default=NOTEBOOKS / "assignments", type=Path)
    for command in (grading, alike, hand):
        command.add_argument("--platform", choices=[*PLATFORMS], default="", help="whose download the folder is")
    return parser


def _build(options: argparse.Namespace) -> int:
    for name, master in masters(options.masters).items():
        made = build(master, options.out / name)
        write_if_changed(options.students / f"{name}.ipynb", made.student.read_bytes())
        print(f"{name}: {made.student}, {made.key}, {made.archive}")
    return 0


def _freeze(options: argparse.Namespace) -> int:
    for name, master in masters(options.masters).items():
        path = options.out / f"{name}.json"
        print(f"{path}: {'written' if write_if_changed(path, freeze(name, master).encode()) else 'as before'}")
    return 0


def _master(options: argparse.Namespace) -> Path:
    known = masters(options.masters)
    if options.assignment not in known:
        raise ValueError(unknown("assignment", options.assignment, known))
    return known[options.assignment]


def _papers(options: argparse.Namespace) -> dict[str, Paper]:
    master = _master(options)
    names = {options.assignment: set(questions(options.assignment, master))}
    found = collect(options.submissions, options.platform)
    return {who: read(who, paths, options.assignment, names) for who, paths in found.items()}


def _solutions(options: argparse.Namespace) -> int:
    path = options.out / f"{options.assignment}.ipynb"
    write_if_changed(path, solved(_master(options), options.deadline).encode())
    print(f"{path}: commit and push it, or upload it")
    return 0


def _sheet(options: argparse.Namespace) -> int:
    papers, out = _papers(options), options.out / options.assignment
    table, page = out / "manual.csv", out / "sheet.html"
    filled = marks.rows(table, "student", *manual.RUBRIC) if table.exists() else []
    write_if_changed(table, manual.blank(list(papers), filled).encode())
    write_if_changed(page, manual.sheet(list(papers.values()), options.assignment).encode(errors="replace"))
    print(f"{table}: a line for each of {len(papers)} students; {page}: to print")
    return 0


def _similar(options: argparse.Namespace) -> int:
    papers = {who: paper.cells for who, paper in _papers(options).items()}
    given = [Cell("".join(c["source"])) for c in json.loads(released(_master(options)))["cells"]]
    listed = pairs(papers, given, options.least)
    print(*(f"{share:4.0%}  {one}  {other}" for share, one, other in listed), sep="\n")
    print(
        f"{len(listed)} pairs of {len(papers)} hand-ins share {options.least:.0%} or more: read both before you judge"
    )
    return 0


def _mock(options: argparse.Namespace) -> int:
    from tools.classroom import mock

    outcomes = []
    for outcome in mock.run(
        masters(options.masters)[mock.ASSIGNMENT], BUILD / "mock", few=options.few, jobs=options.jobs
    ):
        outcomes.append(outcome)
        print(f"{len(outcomes)}: {outcome.seat.name} {outcome.fault}", file=sys.stderr, flush=True)
    print(mock.table(outcomes))
    return int(any(outcome.fault for outcome in outcomes))


def _lock(options: argparse.Namespace) -> int:
    for path in options.how(options.key):
        print(path.relative_to(ROOT))
    print(f"the key is {options.key}: keep it, and give it to nobody but those who teach")
    return 0


def _marks(options: argparse.Namespace) -> int:
    most, points = marks.gradebook(options.grades, options.late)
    path = options.canvas or options.moodle
    if path is None:
        name, text = "gradebook.csv", marks.plain(most, points)
    else:
        known = marks.people(path)
        if lacking := marks.without_id(points, known):
            raise ValueError(f"{path} has no line for {', '.join(lacking)}")
        name, write = ("canvas.csv", marks.canvas) if options.canvas else ("moodle.csv", marks.moodle)
        text = write(most, points, known)
    write_if_changed(options.grades / name, text.encode())
    print(f"{options.grades / name}: {len(points)} students, {len(most)} assignments")
    return 0


def _grade(options: argparse.Namespace) -> int:
    master = _master(options)
    limits = Limits(seconds=options.seconds, memory_mb=options.memory_mb)
    out = options.out / options.assignment
    guard = {"sandbox": not options.no_sandbox, "limits": limits, "jobs": options.jobs, "platform": options.platform}
    again = {"regrade": options.regrade is not None, "only": frozenset(options.regrade or ())}
    for result in grade(options.submissions, master, out, **guard, **again):
        line = f"{result.student}: {result.score:g} of {result.most:g}  {result.remark}"
        print(line.encode(errors="replace").decode(), flush=True)
    print(f"scores: {out / 'scores.csv'}, feedback: {out / 'feedback'}")
    if beside := strays(options.submissions):
        print(f"passed over, since they are no notebooks: {', '.join(beside)}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
