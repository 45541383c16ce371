"""``python -m tools.classroom build | grade``: the teacher's commands; ``make assignments`` calls the first."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tools import BUILD, NOTEBOOKS
from tools.classroom.course import build, grade, masters
from tools.classroom.sandbox import Limits
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
    building.set_defaults(act=_build)
    grading = commands.add_parser("grade", help="grade a folder of submissions in a sandbox")
    grading.add_argument("submissions", type=Path, help="folder with STUDENT.ipynb or STUDENT/NAME.ipynb")
    grading.add_argument("--assignment", required=True, metavar="NAME")
    grading.add_argument("--out", default=BUILD / "grades", type=Path, help="scores and feedback go below OUT/NAME")
    grading.add_argument("--no-sandbox", action="store_true", help="run unguarded: only for your own notebooks")
    grading.add_argument("--seconds", default=600, type=float, help="wall time per submission (default 600)")
    grading.add_argument("--memory-mb", default=4000, type=float, help="memory per submission (default 4000)")
    grading.set_defaults(act=_grade)
    for command in (building, grading):
        command.add_argument("--masters", default=NOTEBOOKS / "assignments", type=Path)
    return parser


def _build(options: argparse.Namespace) -> int:
    for name, master in masters(options.masters).items():
        made = build(master, options.out / name)
        print(f"{name}: {made.student}, {made.key}, {made.archive}")
    return 0


def _grade(options: argparse.Namespace) -> int:
    known = masters(options.masters)
    if options.assignment not in known:
        raise ValueError(unknown("assignment", options.assignment, known))
    limits = Limits(seconds=options.seconds, memory_mb=options.memory_mb)
    out = options.out / options.assignment
    guard = {"sandbox": not options.no_sandbox, "limits": limits}
    for result in grade(options.submissions, known[options.assignment], out, **guard):
        print(f"{result.student}: {result.score:g} of {result.most:g}  {result.remark}", flush=True)
    print(f"scores: {out / 'scores.csv'}, feedback: {out / 'feedback'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
