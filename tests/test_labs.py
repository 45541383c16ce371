"""The labs are there to do: stubs that say "not done yet", checks with hints, solutions that pass them."""

from __future__ import annotations

import ast
import copy
import json

import pytest
import torch

from tools import notebook_paths
from tools.gates import labs as gate
from tools.run_notebooks import code_cells, text
from xai_course import checks

LABS = {path.stem: json.loads(path.read_text("utf-8")) for path in notebook_paths()}


def imports(notebook: dict) -> str:
    """The import statements of the third code cell."""
    body = ast.parse(text(code_cells(notebook)[2])).body
    return "\n".join(ast.unparse(node) for node in body if isinstance(node, ast.Import | ast.ImportFrom))


def cases() -> list:
    found = [(name, *each) for name, lab in LABS.items() for each in gate.exercises(lab)]
    return [pytest.param(*each, id=f"{each[0]}-{each[1]}") for each in found]


@pytest.mark.parametrize(("name", "title", "stub", "check", "solution"), cases())
def test_a_stub_is_not_done_a_solution_passes_and_a_wrong_answer_gets_a_hint(
    name, title, stub, check, solution, capsys
):
    names: dict = {}
    exec(imports(LABS[name]), names)
    exec(stub, names)
    exec(check, names)
    said = capsys.readouterr().out
    asked = check.count("exercise(")
    assert said.count("not done yet") == asked >= 1 and "✗" not in said, said
    exec(solution, names)
    exec(check, names)
    said = capsys.readouterr().out
    assert said.count("✓") == asked, said
    defined = {node.name for node in ast.parse(stub).body if isinstance(node, ast.FunctionDef)}
    assert len(defined) == asked
    for each in defined:
        right = names[each]
        names[each] = lambda *given, right=right: spoilt(right(*given))
    exec(check, names)
    said = capsys.readouterr().out
    assert said.count("✗") == asked == said.count("Hint: "), said


def spoilt(value):
    return torch.as_tensor(value).double() + 1 if not isinstance(value, (list, tuple)) else [spoilt(v) for v in value]


LAB = "2_amc"
FAULTS = {
    "two exercises less": (lambda cells: drop(cells, 2), "2 exercises, at least 3"),
    "no minutes": (lambda cells: edit(cells, "### Exercise 2", "minutes*", "long*"), "1 exercises lack difficulty"),
    "no check": (lambda cells: drop_after(cells, "### Exercise 2", 2), "1 exercises lack difficulty"),
    "no solution": (lambda cells: edit(cells, "<details><summary>Solution", "```python", "```"), "exercises lack"),
    "the answer stands there": (lambda cells: edit(cells, "def pair_costs", "    ...", "    return theta"), "no stub"),
    "a check that asks nothing": (
        lambda cells: edit(cells, "exercise(\n    pair_costs", "exercise(", "print("),
        "no check",
    ),
    "numbers": (lambda cells: edit(cells, "### Exercise 2", "Exercise 2", "Exercise 1"), "are numbered"),
    "no control": (lambda cells: [edit(cells, "interact(\n", "interact(", "show(") for _ in "ab"], "0 live controls"),
    "title": (lambda cells: edit(cells, "# Lab 2: ", "# Lab 2: ", "# "), "its title does not begin with 'Lab 2: '"),
    "no experiment": (lambda cells: edit(cells, "## Try next", "## Try next", "## More"), "no Try next"),
    "a value under the check": (lambda cells: edit(cells, "exercise(\n    pair_costs", ");", ")"), "with a semicolon"),
    "in the way": (lambda cells: swap(cells, at(cells, "### Exercise 3") + 4), "between an announcement and its code"),
    "no caption": (lambda cells: cells[at(cells, "show.pair_on_sphere")]["metadata"].clear(), "without a caption"),
    "no number": (lambda cells: figure(cells, "show.hinge").pop("name"), "name is its own and begins with lab2-"),
    "one number twice": (
        lambda cells: figure(cells, "show.hinge").update(name="lab2-slider-1"), "its own and begins with lab2-"),
    "no minutes promised": (lambda cells: edit(cells, "# Lab 2", "exercises about", "and"), "no '*Reading and trying"),
    "too few minutes": (
        lambda cells: edit(cells, "# Lab 2", "about 50", "about 35"), "says reading about 35 minutes, counted are "),
    "an exercise uncounted": (
        lambda cells: edit(cells, "# Lab 2", "about 30", "about 20"), "says exercises about 20 minutes"),
    "a reading less": (lambda cells: edit(cells, "Reading 3", "<summary>Reading 3", "Reading 3"), "folds 2"),
}  # fmt: skip


def at(cells: list, start: str) -> int:
    return next(i for i, cell in enumerate(cells) if start in text(cell))


def edit(cells: list, start: str, old: str, new: str) -> None:
    cell = cells[at(cells, start)]
    assert old in text(cell)
    cell["source"] = text(cell).replace(old, new)


def figure(cells: list, start: str) -> dict:
    return cells[at(cells, start)]["metadata"]["mystnb"]["figure"]


def drop(cells: list, count: int) -> None:
    for number in range(1, count + 1):
        first = at(cells, f"### Exercise {number}")
        del cells[first : first + 4]


def swap(cells: list, place: int) -> None:
    """The cell at ``place`` comes before the exercise that it follows."""
    cells.insert(place - 4, cells.pop(place))


def drop_after(cells: list, start: str, steps: int) -> None:
    del cells[at(cells, start) + steps]


@pytest.mark.parametrize(("fault", "said"), FAULTS.values(), ids=FAULTS)
def test_the_gate_stops_a_lab_without_something_to_do(fault, said):
    broken = copy.deepcopy(LABS[LAB])
    assert gate.to_do(LAB, broken) == []
    fault(broken["cells"])
    assert said in "\n".join(gate.to_do(LAB, broken))


def test_every_lab_passes_the_gate_and_the_recipes_need_no_experiment():
    assert [problem for name, lab in LABS.items() for problem in gate.to_do(name, lab)] == []
    assert gate.to_do(LAB, LABS["8_your_own_loop"])[-1] == "no Try next with a cell to change"


def test_an_answer_that_fails_says_why(capsys):
    def broken(x):
        raise RuntimeError("no such thing")

    assert not checks.exercise(broken, ((1.0,), 1.0, "try again"))
    assert "raised RuntimeError: no such thing" in capsys.readouterr().out
    assert checks.exercise(4, ((), 4.0, "count")) and not checks.exercise(5, ((), 4.0, "count"))
    assert "Hint: count" in capsys.readouterr().out
