"""A check is sound when right answers pass, however written, and every planted wrong one and the empty stub fail.

Each answer is put to the student's check and to the marking with hidden seeds; the two must agree.
"""

from __future__ import annotations

import json
from functools import cache

import pytest
import torch

from tools.classroom.grading import judge
from tools.classroom.questions import assignments, questions
from xai_course.checks import call, decode, options

SEALED = not assignments()  # tools/classroom/seal.py: this course is public, and the key is with its teacher
needs_masters = pytest.mark.skipif(SEALED, reason="sealed: python -m tools.classroom open --key FILE")
ASKED = {name: question for assignment in assignments() for name, question in questions(assignment).items()}


class EqualsEverything:
    """The cheat that overrides comparison."""

    def __eq__(self, other):
        return True

    def __sub__(self, other):
        return 0.0

    def __abs__(self):
        return 0.0

    __le__ = __lt__ = __ge__ = __gt__ = __bool__ = lambda self, *other: True
    __hash__ = None


def stub(*arguments):
    """What the student version of a notebook holds before any work."""


def quits(*arguments):
    raise SystemExit(0)


@cache
def hidden(name: str) -> list[dict]:
    return ASKED[name].frozen(range(100, 106))["cases"]


def marked(name: str, answer) -> str:
    """What the marking finds wrong, with the answer called here instead of in the sandbox."""
    question, answers = ASKED[name], []
    for case in hidden(name):
        try:
            answers.append(call(answer, case["arguments"], case["gradients"], question.autograd))
        except BaseException as error:
            answers.append({"raised": str(error)})
            break
    return judge(question, hidden(name), json.loads(json.dumps({"answers": answers})))[0]


def styles(name: str, answer) -> list:
    """The same right answer in other types and forms: none may cost a point."""
    question, values = ASKED[name], torch.as_tensor(decode(hidden(name)[0]["expected"][0]))

    class Layer(torch.nn.Module):
        def forward(self, *arguments):
            return answer(*arguments)

    def filled(*arguments):
        result = torch.as_tensor(answer(*arguments))
        buffer = torch.zeros(result.shape, dtype=result.dtype)
        buffer[...] = result
        return buffer

    found = [Layer(), filled]
    if not question.double and values.is_floating_point():
        found.append(lambda *a: torch.as_tensor(answer(*a)).float())
    if not any(case["gradients"] for case in hidden(name)):
        found.append(lambda *a: torch.as_tensor(answer(*a)).detach().numpy())
        found.append(lambda *a: torch.as_tensor(answer(*a)).tolist())
    return [*found, lambda *a: list(torch.as_tensor(answer(*a)))] if values.ndim else found


def assert_sound(check, right: list, wrong: dict, capsys) -> None:
    """At least five right answers pass; at least eight wrong ones and the standing cheats fail, each with a hint."""
    every = [*right, *styles(check.name, right[0])]
    assert len(right) >= 2 and len(every) >= 5 and len(wrong) >= 8, "plant five right and eight wrong answers"
    for answer in every:
        assert check(answer), f"{check.name} refuses a right answer:\n{capsys.readouterr().out}"
        assert marked(check.name, answer) == ""
    cheats = {"the stub": stub, "equals everything": lambda *a: EqualsEverything(), "quits": quits}
    for name, answer in {**wrong, **cheats}.items():
        capsys.readouterr()
        assert not check(answer), f"{check.name} accepts a wrong answer: {name}"
        printed = capsys.readouterr().out
        assert "Hint: " in printed and "case “" in printed
        assert name in cheats or "raised" not in printed, f"{name} fails by an error, not by its answer: {printed}"
        assert not check(answer, quiet=True) and capsys.readouterr().out == ""
        assert marked(check.name, answer), f"the marking of {check.name} accepts a wrong answer: {name}"


def assert_choice(check, capsys) -> None:
    """Any option is only noted; other answers are refused; the right letter depends on the student."""
    question = ASKED[check.name]
    letters = "abcd"[: len(question.options)]
    capsys.readouterr()
    assert all(check(letter) for letter in letters)
    assert capsys.readouterr().out.splitlines() == [f"✓ {check.name}: recorded {letter}" for letter in letters]
    for answer in ("e", "", None, 3, type("S", (str,), {"__eq__": lambda s, o: True})("a")):
        assert not check(answer) and "answer with one of a, b, c, d" in capsys.readouterr().out
    right = {student: question.letter(student) for student in map(str, range(40))}
    assert set(right.values()) == set(letters)
    for student in ("1", "2", "3"):
        options(check.name, student)
        lines = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
        assert lines[right[student]] == question.options[question.right] and len(lines) == len(letters)
