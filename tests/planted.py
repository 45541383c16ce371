"""A check is sound when right answers pass, however written, and every planted wrong one and the empty stub fail."""

from __future__ import annotations


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


def assert_sound(check, right: list, wrong: dict, capsys) -> None:
    """At least two right answers pass; at least five wrong ones and the standing cheats fail, each with a hint."""
    assert len(right) >= 2 and len(wrong) >= 5, "plant at least two right and five wrong answers"
    for answer in right:
        assert check(answer), f"{check.name} refuses a right answer:\n{capsys.readouterr().out}"
        assert check(answer, seeds=range(100, 105), quiet=True)
    cheats = {"the stub": stub, "equals everything": lambda *a: EqualsEverything(), "quits": quits}
    for name, answer in {**wrong, **cheats}.items():
        capsys.readouterr()
        assert not check(answer), f"{check.name} accepts a wrong answer: {name}"
        printed = capsys.readouterr().out
        assert "Hint: " in printed and "case “" in printed
        assert name in cheats or "raised" not in printed, f"{name} fails by an error, not by its answer: {printed}"
        assert not check(answer, quiet=True) and capsys.readouterr().out == ""
