"""The mutation tool: what it changes, that the change is what it says, and that a test's verdict reaches it."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

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
    texts = [ast.unparse(mutate.mutated(SOURCE, mutant)) for mutant in mutate.mutants(file)]
    assert len(set(texts)) == len(texts) and plain not in texts
    for text in texts:
        assert sum(a != b for a, b in zip(text.splitlines(), plain.splitlines(), strict=True)) == 1


def test_a_name_survives_an_edit_above(file):
    before = {m.name for m in mutate.mutants(file)}
    file.write_text("# a comment\n\n" + SOURCE)
    assert {m.name for m in mutate.mutants(file)} == before


JUDGED = {  # a function of the library, a test of it, and what becomes of the function's one mutant
    "looked": ("return -x", "assert looked(1) == -1", "noticed tests/test_toy.py::test_looked"),
    "blind": ("return -x", "assert abs(blind(1)) == 1", "survived 1 tests"),
    "idle": ("return -x", "assert idle", "survived 0 tests"),
    "ends": ("while not x: pass", "ends(1)", "late tests/test_toy.py::test_ends"),
    "two": ("return [-x for _ in 'a']", "assert two(1) == [-1]", "noticed tests/test_toy.py::test_two"),
    "preset": ("''; return x", "assert preset() == 2", "noticed tests/test_toy.py::test_preset"),
    "unread": ("''; return x", "unread()", "survived 1 tests"),
    "alone": ("return -x", "alone(1); assert RUN", "survived 1 tests"),
    "slow": ("return -x", "slow(1)", "survived 1 tests, 1 slower tests untried"),
}
BEFORE = """import time
from xai_course.toy import *
RUN = []

def test_a_helper():
    RUN.append(1)  # what test_alone needs, so that it fails on its own

def test_slower():
    start = time.process_time()
    while time.process_time() < start + 0.3: pass
    assert slow(1) == -1
"""
SCRIPT = """import sys
from pathlib import Path
from tools import mutate, noticing
root = mutate.ROOT = noticing.ROOT = Path(sys.argv[1])
sys.path.insert(0, str(root))
noticing.prepared, mutate.files = (lambda: None), lambda: [root / "xai_course/toy.py"]
traces, verdicts = mutate.Traces(root / "traces.json"), mutate.Verdicts(root / "verdicts.jsonl")
mutate.judge(mutate.mutants(root / "xai_course/toy.py"), traces, verdicts, 0.2)
"""


def test_verdicts_of_real_tests(file):
    """In a process of its own, as the command runs; the second call judges nothing again but what is due."""
    default = {"preset": "=2", "unread": "=2"}
    file.write_text("\n".join(f"def {n}(x{default.get(n, '')}):\n    {body}\n" for n, (body, _, _) in JUDGED.items()))
    tests = file.parents[1] / "tests" / "test_toy.py"
    tests.write_text(BEFORE + "\n".join(f"def test_{n}():\n    {body}\n" for n, (_, body, _) in JUDGED.items()))

    def said():
        call = [sys.executable, "-c", SCRIPT, str(file.parents[1])]
        done = subprocess.run(call, capture_output=True, text=True, check=False, cwd=Path(mutate.__file__).parents[1])
        assert done.returncode == 0, done.stderr + done.stdout
        lines = [line.split(maxsplit=1) for line in done.stdout.splitlines() if "toy.py:" in line and "(line " in line]
        return {rest.split(":")[1]: f"{word} {rest.split(') ')[1]}" for word, rest in lines}

    assert said() == {name: verdict for name, (_, _, verdict) in JUDGED.items()}
    tests.write_text(tests.read_text() + "\ndef test_blindness():\n    assert blind(1) == -1\n")
    again = said()
    assert (
        again["blind"] == "noticed tests/test_toy.py::test_blindness" and "looked" not in again and "idle" not in again
    )


def test_traces_are_kept_until_a_file_they_name_changes(file, tmp_path, monkeypatch):
    monkeypatch.setattr("tools.noticing.ROOT", tmp_path)
    traces = mutate.Traces(tmp_path / "traces.json")
    (tmp_path / "tests" / "test_toy.py").write_text("")
    traces.add("tests/test_toy.py", [("tests/test_toy.py::test_toy", 0.1, {"xai_course/toy.py": [7]})], False)
    again = mutate.Traces(tmp_path / "traces.json", 60)
    assert not mutate.Traces(tmp_path / "traces.json", 61).fresh("tests/test_toy.py")  # it was cut at 60
    assert again.fresh("tests/test_toy.py") and not again.fresh("tests/test_other.py")
    mutant = next(
        m for m in mutate.mutants(file) if m.change == "x + 1 < -x -> x + 1 <= -x"
    )  # on the function's last line
    assert mutate.chosen(mutant, again.tests(), 60) == ([], 0)
    file.write_text(SOURCE + "\n")
    assert not again.fresh("tests/test_toy.py")


def test_a_known_survivor_needs_a_reason_and_counts(tmp_path):
    results = {"xai_course/a/b.py:f: 1 -> 2 #1": "survived", "xai_course/a/b.py:f: 2 -> 3 #1": "noticed"}
    assert "50.0% of 2" in mutate.table(results, {}) and "survived:" in mutate.table(results, {})
    known = {"xai_course/a/b.py:f: 1 -> 2 #1": "the first axis of one map is the only one"}
    assert "100.0% of 2" in mutate.table(results, known) and "survived:" not in mutate.table(results, known)


def test_the_count_says_what_was_noticed_by_room():
    results = {"xai_course/a/b.py:f: 1 -> 2 #1": "survived", "xai_course/c.py:f: 2 -> 3 #1": "late"}
    count = tomllib.loads(mutate.counted(results, {"xai_course/a/b.py:f: 1 -> 2 #1": "a reason"}))
    assert count == {
        **{"mutants": 2, "noticed": 1, "explained": 1},
        "a": {"mutants": 1, "noticed": 0, "explained": 1},
        "c": {"mutants": 1, "noticed": 1, "explained": 0},
    }


def faults(count: dict, today: dict[str, int]) -> list[str]:
    """What is wrong with a kept count: too few mutants or too many unnoticed, or no sample of ``today``'s files."""
    rooms = {name: room for name, room in count.items() if isinstance(room, dict)}
    total = {key: sum(room[key] for room in rooms.values()) for key in ("mutants", "noticed", "explained")}
    size = max(1, count["mutants"])
    found = {
        "the rooms do not add up": total != {key: count[key] for key in total},
        "more explained than there are reasons": count["explained"] > len(mutate.reasons()),
        "a room is missing or new": rooms.keys() != today.keys(),
        "too few mutants": count["mutants"] < 300,
        "below the floor": count["noticed"] + count["explained"] < 0.92 * count["mutants"],
        "sampled otherwise": any(abs(rooms[r]["mutants"] / size - today[r] / 300) > 0.03 for r in rooms & today.keys()),
    }
    return [fault for fault, there in found.items() if there]


def test_the_kept_count_is_of_a_sample_of_300_of_which_92_in_100_are_noticed_or_explained():
    assert mutate.SAMPLE >= 300 and mutate.FLOOR >= 0.92
    today: dict[str, int] = {}
    for mutant in mutate.sample(300):
        room = Path(mutant.file).with_suffix("").parts[1]
        today[room] = today.get(room, 0) + 1
    count = tomllib.loads(mutate.COUNT.read_text("utf-8"))
    assert faults(count, today) == []
    big = max(today, key=today.__getitem__)
    for key, lower in {"mutants": 299, "noticed": int(0.92 * count["mutants"]) - count["explained"] - 1}.items():
        lowered = count | {key: lower, big: count[big] | {key: count[big][key] - count[key] + lower}}
        assert faults(lowered, today)
    assert faults({name: value for name, value in count.items() if name != big}, today)


def test_every_reason_is_of_a_change_that_the_tool_makes_today():
    files = {name.split(":")[0] for name in mutate.reasons()}
    there = {mutant.name for file in files for mutant in mutate.mutants(mutate.ROOT / file)}
    assert sorted(mutate.reasons().keys() - there) == []
    assert all(len(reason.split()) >= 5 for reason in mutate.reasons().values())
