"""Mark a folder of hand-ins: answers are called in the sandbox on inputs of the host, and compared here.

Each question stands alone: where an answer fails with the student's own earlier answers, it is called again with the
master's in their place. The seeds of the inputs are drawn once per folder of marks and never leave the host.
"""

from __future__ import annotations

import ast
import hashlib
import json
import random
import re
import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path

from tools.classroom.build import masters
from tools.classroom.handed_in import Cell, Paper, collect, read
from tools.classroom.questions import Choice, Question, questions
from tools.classroom.report import feedback, table
from tools.classroom.rules import Code, free
from tools.classroom.sandbox import Limits, Sandbox, bubblewrap
from xai_course.checks import compare
from xai_course.data.files import write_atomically

SEEDS = 8
EXPERIMENT = "# experiment"  # how a cell of the experiment begins


@dataclass(frozen=True)
class Mark:
    """Of one question. ``why``: what is wrong, empty with full points; ``hint``: where to look."""

    points: float
    of: float
    why: str = ""
    hint: str = ""


@dataclass(frozen=True)
class Result:
    """Of one student; ``remark`` says in plain words what was odd about the hand-in, empty if nothing was."""

    student: str
    marks: dict[str, Mark]
    remark: str = ""
    typed: str = ""
    code: list[str] = field(default_factory=list)

    @property
    def score(self) -> float:
        return sum(mark.points for mark in self.marks.values())

    @property
    def most(self) -> float:
        return sum(mark.of for mark in self.marks.values())


class Exam:
    """An assignment ready to be marked: the master's questions, points, solutions, and cases made from hidden seeds.

    Raises:
        ValueError: master and questions disagree.
    """

    def __init__(self, master: Path, seed: int):
        self.name, self.master = master.stem, Path(master)
        asked = questions(self.name, self.master)
        cells = json.loads(self.master.read_text("utf-8"))["cells"]
        code = [(c["metadata"].get("nbgrader", {}), "".join(c["source"])) for c in cells if c["cell_type"] == "code"]
        self.points = {g["grade_id"].removeprefix("test_"): float(g["points"]) for g, _ in code if g.get("grade")}
        self.solutions = {g["grade_id"]: source for g, source in code if g.get("solution")}
        if set(self.points) != set(asked):
            raise ValueError(f"{self.name}: points for {sorted(self.points)}, but questions {sorted(asked)}")
        self.questions = {name: asked[name] for name in self.points}
        imports = [node for g, source in code if not g for node in Cell(source).body]
        kinds = (ast.Import, ast.ImportFrom)
        self.prelude = "\n".join(dict.fromkeys(ast.unparse(node) for node in imports if isinstance(node, kinds)))
        parameters = [c for c in cells if "parameters" in c["metadata"].get("tags", [])]
        shown = {Cell(source).source.strip() for g, source in code if not g}
        self.shown = shown - {"".join(c["source"]).strip() for c in parameters}
        self.solved = Code([Cell(source, grade_id=name) for name, source in self.solutions.items()])
        self.seeds = random.Random(seed).sample(range(2**31), SEEDS)

    @cached_property
    def cases(self) -> dict[str, list[dict]]:
        """Inputs and expected values of every question."""
        asked = {name: q for name, q in self.questions.items() if isinstance(q, Question)}
        return {name: question.frozen(self.seeds)["cases"] for name, question in asked.items()}

    @property
    def most(self) -> float:
        return sum(self.points.values())

    def earlier(self, name: str, code: Code) -> list[str]:
        """The earlier questions that this answer calls, directly or not."""
        before = list(self.points)[: list(self.points).index(name)]
        used = free(node for nodes in code.reached(name).values() for node in nodes)
        return [each for each in before if each in used and isinstance(self.questions[each], Question)]

    def given(self, names: list[str]) -> list[str]:
        """The sources of these answers in the master, and of what they call in their turn."""
        needed = {each for name in names for each in (name, *self.earlier(name, self.solved))}
        return [self.prelude, *(source for name, source in self.solutions.items() if name in needed)]


def _is_name(node: ast.AST) -> bool:
    return isinstance(node, ast.Name)


def grade(
    submissions: Path,
    master: Path,
    out: Path,
    *,
    sandbox: bool = True,
    limits: Limits | None = None,
    regrade: bool = False,
    only: frozenset[str] = frozenset(),
    jobs: int = 1,
    platform: str = "",
) -> Iterator[Result]:
    """Mark every submission, found as `collect` does.

    Writes ``scores.csv`` (again after each submission, whole at any time, with all who were ever marked into ``out``),
    ``feedback/STUDENT.html`` and ``results/`` below ``out``. What was marked before and has not changed is kept, unless
    ``regrade``; with ``only``, the marks of other questions are kept.

    Raises:
        ValueError: the folder is missing or holds no submission, ``only`` names no question, or the master is faulty.
        RuntimeError: ``sandbox`` and bubblewrap is not installed.
    """
    if sandbox:
        bubblewrap()
    exam, found = Exam(master, _seed(Path(out))), collect(Path(submissions), platform)
    if unknown := only - set(exam.points):
        raise ValueError(f"questions of {exam.name} are {', '.join(exam.points)}, got {', '.join(sorted(unknown))}")
    known = {name: set(_names(path)) for name, path in masters(master.parent).items()}
    work = partial(_graded, exam, known, Path(out), sandbox, limits or Limits(), regrade or bool(only), only)
    results = {student: result for student in _kept(Path(out)) if (result := _old(Path(out), student)[1])}
    with ThreadPoolExecutor(jobs) as pool:
        for result in pool.map(lambda item: work(*item), found.items()):
            results[result.student] = result
            rows = [results[student] for student in sorted(results)]
            write_atomically(Path(out) / "scores.csv", partial(_write, text=table(rows, list(exam.points))))
            yield result


def _names(master: Path) -> list[str]:
    cells = json.loads(master.read_text("utf-8"))["cells"]
    ids = [cell["metadata"].get("nbgrader", {}) for cell in cells]
    return [each["grade_id"].removeprefix("test_") for each in ids if each.get("grade")]


def _seed(out: Path) -> int:
    """The secret of this folder of marks, the same whenever it is marked again."""
    path = out / "seed"
    if not path.exists():
        write_atomically(path, lambda file: file.write(str(secrets.randbits(48)).encode()))
    return int(path.read_text())


def _write(file, text: str) -> None:
    file.write(text.encode(errors="replace"))  # a student's text can hold halves of a character


def _kept(out: Path) -> list[str]:
    return sorted(path.stem for path in (out / "results").glob("*.json"))


def _old(out: Path, student: str) -> tuple[str, Result | None]:
    """The key and the result of an earlier marking."""
    kept = out / "results" / f"{student}.json"
    if not kept.exists():
        return "", None
    old = json.loads(kept.read_text("utf-8"))
    marks = {name: Mark(**mark) for name, mark in old["marks"].items()}
    return old["key"], Result(student, marks, old["remark"], old["typed"], old["code"])


def _graded(exam, known, out, sandbox, limits, again, only, student: str, paths: list[Path]) -> Result:
    """The kept result where nothing changed, else a new one; and its page."""
    paper = read(student, paths, exam.name, known)
    sources = [exam.master.read_bytes(), json.dumps(exam.cases).encode(), repr((sandbox, limits)).encode()]
    sources += [cell.source.encode(errors="replace") for cell in paper.cells] + [
        r.encode(errors="replace") for r in paper.remarks
    ]
    key = hashlib.sha256(b"\0".join(sources)).hexdigest()
    kept = out / "results" / f"{student}.json"
    old_key, old = _old(out, student)
    if old and old_key == key and not again:
        return old
    try:
        result = examine(exam, paper, limits, sandbox, only)
    except (RecursionError, MemoryError, ValueError) as error:
        marks = {name: Mark(0, of, "not marked") for name, of in exam.points.items()}
        return Result(student, marks, f"marking stopped ({type(error).__name__}): the teacher has to look at this one")
    if only and old and set(old.marks) == set(exam.points):
        result = replace(result, marks={name: result.marks.get(name, old.marks[name]) for name in exam.points})
    write_atomically(kept, partial(_write, text=json.dumps({"key": key, **asdict(result)})))
    write_atomically(out / "feedback" / f"{student}.html", partial(_write, text=feedback(result, exam.name)))
    return result


def examine(exam: Exam, paper: Paper, limits: Limits, walls: bool = True, only: frozenset[str] = frozenset()) -> Result:
    """Run a paper's cells and mark its answers; those of ``only``, if it names any."""
    asked = {name: q for name, q in exam.questions.items() if not only or name in only}
    if not {name for cell in paper.cells for name in (*cell.names(), cell.grade_id)} & set(exam.points):
        marks = {name: Mark(0, exam.points[name], "nothing to mark") for name in asked}
        return Result(paper.student, marks, "; ".join(paper.remarks), code=[c.source for c in paper.cells])
    cells, remarks = arrange(exam, paper)
    code = Code(paper.cells, exam.shown)
    names = {name: _renamed(name, code, paper, remarks) for name in asked}
    with Sandbox(cells, limits, walls=walls) as box:
        typed = box.ask(order="student", name="student", given=[], names=[]).get("value")
        typed = str(typed)[:60] if isinstance(typed, str) else "anonymous"
        faults = {name: _fault(exam, q, partial(box.ask, name=names[name]), code, typed) for name, q in asked.items()}
        for name in asked:  # after all else was asked: what is lent here can be told in no other answer
            if faults[name][0] and _right_with_the_master_s(exam, name, partial(box.ask, name=names[name]), code):
                faults[name] = ("", "")
        marks = {}
        for name, (why, hint) in faults.items():
            why = _absence(name, paper, box) if why == MISSING else why
            marks[name] = Mark(0 if why else exam.points[name], exam.points[name], why, hint if why else "")
        remarks += _accidents(paper, box, len(cells))
    own = re.search(rf"(?<![^\W_]){re.escape(typed.strip())}(?![^\W_])", paper.student, re.I) if typed.strip() else None
    if not own and any(isinstance(q, Choice) for q in asked.values()):
        none = "no student id was typed" if typed == "anonymous" else f"the student id typed is {typed!r}"
        remarks.append(f"{none}: the options stood in that order")
    return Result(paper.student, marks, "; ".join(paper.remarks + remarks), typed, [c.source for c in paper.cells])


MISSING = "no answer"


def _fault(exam: Exam, question, ask: Callable[..., dict], code: Code, typed: str) -> tuple[str, str]:
    """What is wrong with an answer, and a hint; an empty text where nothing is."""
    name = question.name
    if isinstance(question, Choice):
        reply = ask(order=name, given=[], names=[])
        letter = reply.get("value")
        if letter is None:
            return str(reply.get("raised") or MISSING), ""
        right = isinstance(letter, str) and letter.strip().lower() == question.letter(typed)
        return "" if right else f"{str(letter)[:20]!r} is not right", question.hint
    if broken := code.broken(question, set(exam.questions)):
        return broken, ""
    reply = ask(order=name, given=[], names=[], **_order(exam, question))
    why, hint = judge(question, exam.cases[name], reply)
    return (MISSING, "") if "raised NotImplementedError" in why else (why, hint)


def _order(exam: Exam, question: Question) -> dict:
    inputs = [[case["arguments"], case["gradients"]] for case in exam.cases[question.name]]
    return {"inputs": inputs, "autograd": question.autograd}


def _right_with_the_master_s(exam: Exam, name: str, ask: Callable[..., dict], code: Code) -> bool:
    """Whether a wrong answer is right with the master's in place of the student's earlier ones that it calls."""
    question, earlier = exam.questions[name], exam.earlier(name, code)
    if not earlier or isinstance(question, Choice) or code.broken(question, set(exam.questions)):
        return False
    order = f"{name} with the master's {earlier}"
    reply = ask(order=order, given=exam.given(earlier), names=earlier, **_order(exam, question))
    return not judge(question, exam.cases[name], reply)[0]


def judge(question: Question, cases: list[dict], reply: dict) -> tuple[str, str]:
    """The first case in which what came back from the sandbox differs from what is expected, and its hint."""
    if reply.get("missing"):
        return MISSING, ""
    answers = reply.get("answers")
    if not isinstance(answers, list):
        return str(reply.get("raised", "nothing came back"))[:300], ""
    for case, got in zip(cases, [*answers, *[[]] * len(cases)]):
        if isinstance(got, dict):
            fault = f"your function raised {str(got.get('raised'))[:300]}"
        else:
            fault = compare(got if isinstance(got, list) else [], case, question.tolerance, question.double)
        if fault:
            return f"case “{case['name']}”: {fault}", case["hint"]
    return "", ""


def arrange(exam: Exam, paper: Paper) -> tuple[list[str], list[str]]:
    """The sources to run, the master's imports first, without checks and forgotten placeholders; and remarks.

    Of what the student was given, and of the experiment, only cells run that define something which an answer uses.
    """
    shown = [c.source.strip() in exam.shown or c.source.startswith(EXPERIMENT) for c in paper.cells]
    own = [node for c, given in zip(paper.cells, shown) if not given for top in c.body for node in ast.walk(top)]
    used = {node.id for node in own if _is_name(node)} - {node.arg for node in own if isinstance(node, ast.arg)}
    defined: dict[str, list[str]] = {}
    for cell in paper.cells:
        for name, node in cell.names().items():
            defined.setdefault(name, []).append(ast.dump(node))
    cells = [exam.prelude]
    for cell, given in zip(paper.cells, shown):
        lines = cell.source.splitlines()
        for node in cell.body:
            forgotten = isinstance(node, ast.FunctionDef) and node.name not in cell.names() and node.name in defined
            if forgotten or _is_check(node):
                first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
                lines[first - 1 : node.end_lineno] = [""] * (node.end_lineno - first + 1)
        made = {name for name, node in cell.names().items() if not isinstance(node, (ast.Import, ast.ImportFrom))}
        setup = "xai_course.setup()" in cell.source and "find_spec" in cell.source
        cells.append("" if setup or (given and not made & used) else "\n".join(lines))
    twice = [name for name in exam.points if len(set(defined.get(name, []))) > 1]
    return cells, [f"{name} is answered {len(set(defined[name]))} times, and the last one counts" for name in twice]


def _is_check(node: ast.stmt) -> bool:
    if isinstance(node, ast.ImportFrom):
        return node.module == "xai_course.checks" and all(alias.name.startswith("check_") for alias in node.names)
    call = node.test if isinstance(node, ast.Assert) else getattr(node, "value", None)
    return isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id.startswith("check_")


def _renamed(name: str, code: Code, paper: Paper, remarks: list[str]) -> str:
    """The name under which the answer stands: the question's, or that of the only function in its cell."""
    for cell in paper.cells:
        functions = [n for n, node in cell.names().items() if isinstance(node, ast.FunctionDef)]
        if name not in code.nodes and cell.grade_id == name and len(functions) == 1:
            code.nodes[name] = code.nodes[functions[0]]
            remarks.append(f"{functions[0]} stands where {name} should, and was taken for it")
            return functions[0]
    return name


def _absence(name: str, paper: Paper, box: Sandbox) -> str:
    """Why an answer is not there."""
    for at, cell in enumerate(paper.cells, start=1):
        if cell.grade_id == name or re.search(rf"\bdef {name}\b|^{name}\s*=", cell.source, re.M):
            fault = box.stopped.get(at) or box.faults.get(at, "")
            if fault and "NotImplementedError" not in fault:
                return f"its cell stopped: {fault}"
    return "not answered"


def _accidents(paper: Paper, box: Sandbox, count: int) -> list[str]:
    """What happened to cells on the way, a remark each; placeholders and failed checks are no accidents."""
    said = []
    for at in range(1, count):
        cell = paper.cells[at - 1]
        if at in box.stopped:
            said.append(f"cell {cell.number} {box.stopped[at]}, and was left out")
        elif (fault := box.faults.get(at)) and not fault.startswith(("NotImplementedError", "AssertionError")):
            said.append(f"cell {cell.number} stopped: {fault[:120]}")
    return said[:4] + ([f"{len(said) - 4} more cells stopped"] if len(said) > 4 else [])
