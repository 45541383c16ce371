"""The mock class: a few of it here, all 77 with ``python -m tools.classroom mock``; and attacks, many in one paper."""

from __future__ import annotations

import shutil

import pytest
from planted import SEALED

from tools import NOTEBOOKS
from tools.classroom import __main__ as cli
from tools.classroom.grading import Mark, Result, examine
from tools.classroom.handed_in import Cell, Paper
from tools.classroom.mock_attacks import ATTACKS

if SEALED:
    pytest.skip("sealed: python -m tools.classroom open --key FILE", allow_module_level=True)

from tools.classroom import mock
from tools.classroom.mock_answers import MISTAKES, STYLES

MASTER = NOTEBOOKS / "assignments" / f"{mock.ASSIGNMENT}.ipynb"
needs_bwrap = pytest.mark.skipif(
    shutil.which("bwrap") is None, reason="bubblewrap is not installed (apt-get install bubblewrap)"
)


def test_the_class_has_all_kinds_and_the_expected_marks_are_those_of_the_master():
    seats = list(mock.Desk(MASTER).seats())
    kinds = [seat.kind for seat in seats]
    assert len(seats) >= 60 and len({seat.name for seat in seats}) == len(seats)
    least = {"style": 8, "mistake": 15, "accident": 18, "attack": 20}
    assert all(kinds.count(kind) >= number for kind, number in least.items())
    assert {seat.name.split(" ", 1)[1] for seat in seats} >= mock.FEW
    assert len(STYLES) >= 5 and {name for answers, _ in MISTAKES.values() for name in answers} == set(
        mock.Desk(MASTER).exam.points
    )


@needs_bwrap
def test_a_few_of_the_class_get_what_they_deserve(capsys):
    status = cli.main(["mock", "--few"])
    assert status == 0, capsys.readouterr().out
    assert f"{len(mock.FEW)} students, 0 not marked" in capsys.readouterr().out


def test_a_mark_that_nobody_deserves_is_a_fault():
    desk = mock.Desk(MASTER)
    seat = mock.Seat("attack x", "attack", 3, "angles", lambda folder: None)
    marks = {name: Mark(3 if name == mock.HONEST else 0, of, "" if name == mock.HONEST else "not answered")
             for name, of in desk.exam.points.items()}  # fmt: skip
    right = Result("attack x", marks)
    leak = Mark(0, 3, "raised " + desk.right["ramp"].splitlines()[-1].strip())
    assert mock.outcome(seat, right, desk).fault == ""
    assert "expected 3" in mock.outcome(seat, Result("attack x", {**marks, "angles": Mark(4, 4)}), desk).fault
    assert "gives a solution away" in mock.outcome(seat, Result("", {**marks, "ramp": leak}), desk).fault
    assert "remark with" in mock.outcome(mock.Seat("", "attack", 3, "other", seat.write), right, desk).fault


ENDS = {"exhausts memory", "starts processes", "moves its clock", "prints 300 MB"}  # each alone, in test_classroom.py


@needs_bwrap
def test_attacks_together_gain_nothing_and_cost_nobody_an_honest_answer():
    """Those that survive one another; an attack that answers defines ``angles``, and the last one of these counts."""
    desk = mock.Desk(MASTER)
    together = [cell for name, (cell, _) in ATTACKS.items() if name not in ENDS and "def ramp" not in cell]
    cells = [Cell(source) for source in [*together, desk.right[mock.HONEST]]]
    result = examine(desk.exam, Paper("eve", cells=cells), mock.LIMITS)
    points = {name: mark.points for name, mark in result.marks.items()}
    assert points == {**dict.fromkeys(points, 0), mock.HONEST: desk.exam.points[mock.HONEST]}, result
    assert all(mark.why for name, mark in result.marks.items() if name != mock.HONEST)
