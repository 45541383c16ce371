"""The student's checks are data made from the references, and hold no answer; how a difference is told."""

from __future__ import annotations

import ast
import json
import subprocess
import sys

import pytest
import torch
from planted import ASKED, needs_masters

from tools import ROOT
from tools.classroom.questions import Case, Choice, Question, assignments, freeze, questions
from tools.rooms import PACKAGE
from xai_course import checks
from xai_course.checks import Check, Small, call, compare, decode, encode, variant


@pytest.mark.parametrize("assignment", assignments())
def test_the_stored_checks_are_what_the_references_give(assignment):
    """Up to rounding, which differs between processors; ``python -m tools.classroom freeze`` writes them."""
    stored = json.loads((ROOT / "data" / "checks" / f"{assignment}.json").read_text("utf-8"))
    made = json.loads(freeze(assignment))

    def same(a, b):
        if isinstance(a, dict):
            return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
        if isinstance(a, list):
            return len(a) == len(b) and all(map(same, a, b))
        return a == pytest.approx(b, rel=1e-9, abs=1e-12) if isinstance(a, float) else a == b

    assert same(stored, made), "run python -m tools.classroom freeze"
    assert set(stored) == set(questions(assignment))


@needs_masters
def test_every_check_is_offered_and_no_other_and_nothing_is_read_before():
    offered = {name for name in dir(checks) if name.startswith("check_")}
    assert offered == {f"check_{name}" for name in ASKED}
    from xai_course.checks import check_angles

    assert check_angles is checks.check_angles
    with pytest.raises(AttributeError, match="check_nothing"):
        checks.check_nothing  # noqa: B018
    code = "import xai_course.checks as c; print(c._questions.cache_info().currsize)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "0\n"


@needs_masters
def test_what_a_student_installs_or_receives_holds_no_reference_and_no_answer():
    functions = {node.name for p in PACKAGE.rglob("*.py") for node in ast.walk(ast.parse(p.read_text("utf-8")))
                 if isinstance(node, ast.FunctionDef)}  # fmt: skip
    own = {q.reference.__name__ for q in ASKED.values() if isinstance(q, Question)} - {"_undecided"}
    assert len(own) > 25 and not functions & own
    for path in (ROOT / "data" / "checks").glob("*.json"):
        for name, stored in json.loads(path.read_text("utf-8")).items():
            assert not isinstance(ASKED[name], Choice) or set(stored) == {"options"}
            assert "lambda" not in json.dumps(stored) and "def " not in json.dumps(stored)


def check_of(reference, *cases, **settings) -> Check:
    question = Question("it", reference, lambda g: cases, **settings)
    return Check("it", json.loads(json.dumps(question.frozen((0,)))))


VECTOR = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda x: x, "result: expected 2, got 1 (float64) at [0]; 3 of 3 values differ"),
        (lambda x: 2 * x + torch.tensor([0, 0, 1e-7]), "expected 6, got 6.0000001 (float64) at [2]; 1 of 3"),
        (lambda x: 2 * x[:2], "expected shape [3], got [2]"),
        (lambda x: (2 * x).half(), "expected a tensor (float64 or float32) or a number, got float16"),
        (lambda x: {"a": 1}, "or a number, got dict"),
        (lambda x: "6", "or a number, got str"),
        (lambda x: None, "got None: does your function return it?"),
        (lambda x: 2 * x / 0 * 0, "expected 2, got nan"),
        (lambda x: 1 / 0, "your function raised ZeroDivisionError: division by zero"),
    ],
)
def test_a_failing_case_says_which_what_and_where(answer, said, capsys):
    check = check_of(lambda x: 2 * x, Case("three", (VECTOR,), "times two"))
    assert not check(answer)
    out = capsys.readouterr().out
    assert "✗ it: case “three”" in out and said in out and "Hint: times two" in out


def test_a_type_costs_nothing_unless_the_question_asks_for_it(capsys):
    thirds = lambda x: x / 3  # noqa: E731
    loose, strict = (check_of(thirds, Case("c", (VECTOR,), "h"), double=double) for double in (False, True))
    for answer in (lambda x: thirds(x).float(), lambda x: thirds(x).numpy(), lambda x: thirds(x).tolist(),
                   lambda x: thirds(x).numpy().astype("float32"), lambda x: [v / 3 for v in x]):  # fmt: skip
        assert loose(answer)
    assert not loose(lambda x: thirds(x).float() + 1e-4)
    assert not strict(lambda x: thirds(x).float())
    assert "your answer is float32, and this question asks for float64" in capsys.readouterr().out
    third = check_of(lambda x: 1 / 3, Case("c", (VECTOR,), "h"))
    exact = torch.tensor(1 / 3, dtype=torch.float64)
    for answer in (exact, exact.numpy(), 1 / 3, exact.float().item()):  # expected is the number itself, not its float32
        assert third(lambda x, answer=answer: answer)
    assert not third(lambda x: exact + 3e-8) and not third(lambda x: 1 / 3 + 1e-4)
    assert loose(lambda x: thirds(x).float().tolist()) and not strict(lambda x: thirds(x).float().tolist())
    number = check_of(lambda x: float(x.sum()), Case("c", (VECTOR,), "h"))
    assert number(lambda x: x.sum().numpy()[()]) and number(lambda x: 6) and number(lambda x: x.sum().float())


def test_a_function_that_spoils_its_arguments_cannot_spoil_the_next_case():
    check = check_of(lambda x: x.sum(), *(Case(n, (VECTOR,), "h") for n in "ab"))
    assert check(lambda x: (x.sum(), x.zero_())[0])


def test_gradients_are_compared_and_a_missing_one_is_named(capsys):
    check = check_of(lambda x: x**2, Case("g", (VECTOR,), "h", gradients=(0,)))
    assert check(lambda x: x * x) and check(lambda x: [v * v for v in x])
    assert not check(lambda x: x.detach() ** 2)
    assert "gradient with respect to argument 1: there is none" in capsys.readouterr().out
    assert not check(lambda x: x.detach() * x)
    constant = check_of(lambda x: x.sum() * 0, Case("g", (VECTOR,), "h", gradients=(0,)))
    assert constant(lambda x: 0 * x.sum()) and not constant(lambda x: torch.tensor(0.0))


def test_arguments_survive_as_data():
    small = Small("scaled distance", target=VECTOR, scale=3)
    for value in (VECTOR, VECTOR > 1, torch.tensor(2), 0.1, 3, True, small, [small, Small("product")]):
        data = json.loads(json.dumps(encode(value)))
        assert encode(decode(data)) == data
    assert decode(encode(small))(VECTOR) == 0 and decode(encode(small))(VECTOR + 1) == 9


@pytest.mark.parametrize(
    "junk",
    [[], [[]], [{}], ["x"], [{"dtype": "float64", "shape": [3], "values": ["a"] * 3}], [[[1]]], [{"function": "x"}],
     [{"dtype": "float64", "shape": [10**12], "values": [1]}], [{"dtype": "system", "shape": [], "values": 1}],
     [10**400], [True], [{"dtype": "float64", "shape": "x", "values": [1, 2, 3]}]],
)  # fmt: skip
def test_forged_data_are_wrong_and_break_nothing(junk):
    case = {"gradients": [], "expected": call(lambda x: x, [encode(VECTOR)])}
    assert compare(junk, case, 1e-8)


def test_variants_belong_to_the_student():
    draw = lambda *names: torch.rand(4, generator=variant(*names)).tolist()  # noqa: E731
    assert draw("s1", "q") == draw(" S1 ", "q") != draw("s2", "q") and draw("s1", "q") != draw("s1", "r")
