"""The mutation tool: what it changes, that the change is what it says, and that a test's verdict reaches it."""

from __future__ import annotations

import ast

import pytest

from tools import mutate

SOURCE = '''
LEVEL = 3


def shout(x: int = 2) -> bool:
    """Says 5 + 5."""
    if not x < 4 and x == 1:
        raise ValueError(f"x must be {3 + 4}")
    return x + 1 < -x
'''


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setattr(mutate, "ROOT", tmp_path)
    path = tmp_path / "xai_course" / "toy.py"
    path.parent.mkdir()
    path.write_text(SOURCE)
    (tmp_path / "xai_course" / "__init__.py").write_text("")
    (tmp_path / "tests").mkdir()
    return path


def test_operators_and_numbers_change_messages_and_docstrings_do_not(file):
    found = [m.change for m in mutate.mutants(file)]
    assert "x + 1 < -x -> x + 1 <= -x" in found and "x + 1 -> x - 1" in found and "-x -> x" in found
    assert "not x < 4 and x == 1 -> not x < 4 or x == 1" in found and "2 -> 3" in found
    assert not any("3 + 4" in change or "5" in change.split(" -> ")[0] for change in found)


def test_each_mutant_differs_in_that_one_place(file):
    plain = ast.unparse(ast.parse(SOURCE))
    texts = [mutate.mutated(SOURCE, mutant) for mutant in mutate.mutants(file)]
    assert len(set(texts)) == len(texts) and plain not in texts
    for text in texts:
        assert sum(a != b for a, b in zip(text.splitlines(), plain.splitlines(), strict=True)) == 1


def test_a_name_survives_an_edit_above(file):
    before = {m.name for m in mutate.mutants(file)}
    file.write_text("# a comment\n\n" + SOURCE)
    assert {m.name for m in mutate.mutants(file)} == before


@pytest.mark.parametrize(
    ("body", "verdict"),
    [("assert shout(-1) is True", "noticed"), ("assert shout", "survived"), ("while True: pass", "late")],
)
def test_verdicts_of_real_tests(file, body, verdict):
    test = file.parents[1] / "tests" / "test_toy.py"
    test.write_text(f"from xai_course.toy import shout\n\n\ndef test_toy():\n    {body}\n")
    mutant = next(m for m in mutate.mutants(file) if m.change == "x + 1 < -x -> x + 1 <= -x")
    mutant = next(m for m in mutate.mutants(file) if m.change == "-x -> x") if verdict == "noticed" else mutant
    assert mutate.noticed(mutant, 4.0 if verdict == "late" else 60.0) == verdict


def test_a_known_survivor_needs_a_reason_and_counts(tmp_path):
    results = {"xai_course/a/b.py:f: 1 -> 2 #1": "survived", "xai_course/a/b.py:f: 2 -> 3 #1": "noticed"}
    assert "50.0% of 2" in mutate.table(results, {}) and "survived:" in mutate.table(results, {})
    known = {"xai_course/a/b.py:f: 1 -> 2 #1": "the first axis of one map is the only one"}
    assert "100.0% of 2" in mutate.table(results, known) and "survived:" not in mutate.table(results, known)


def test_a_name_that_comes_through_a_door_brings_its_test(file):
    test = file.parents[1] / "tests" / "test_toy.py"
    for line, counts in (
        ("from xai_course import shout", True),
        ("from xai_course import toy", True),
        ("from xai_course.toy import LEVEL", True),
        ("from xai_course import other", False),
    ):
        test.write_text(line)
        assert (mutate.tests_of("xai_course/toy.py") == [test]) == counts, line
