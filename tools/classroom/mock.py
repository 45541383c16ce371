"""A class of 77: styles, mistakes, accidents and attacks, each with the mark that it deserves.

``python -m tools.classroom mock`` writes their notebooks, grades them as a teacher would, and prints who got what and
why; a mark that differs from the expected one is a failure.
"""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tools.classroom.build import released
from tools.classroom.grading import Exam, Result, grade
from tools.classroom.mock_answers import MISTAKES, STYLES
from tools.classroom.mock_attacks import ATTACKS
from tools.classroom.questions import Choice
from tools.classroom.sandbox import Limits

ASSIGNMENT = "amc"
HONEST = "pair_loss"  # what a cheat answers
LIMITS = Limits(cell_seconds=10, question_seconds=20, memory_mb=1500, processes=40, files_mb=64)
FEW = {"numpy", "autograd", "bare", "steals what is lent"}  # one of each kind


@dataclass(frozen=True)
class Seat:
    """A student: what kind, the points deserved, words of the remark, and how the hand-in is written."""

    name: str
    kind: str
    expected: float
    said: str
    write: Callable[[Path], None]


class Desk:
    """Writes notebooks for the assignment."""

    def __init__(self, master: Path):
        self.master, self.exam = master, Exam(master, 0)
        self.student = json.loads(released(master))
        self.right = {name: _solution(source) for name, source in self.exam.solutions.items()}
        self.most = self.exam.most

    def notebook(self, student: str, answers: dict[str, str] | None = None, before: str = "") -> dict:
        """The student version with answers (all right, if none are given) and a cell before the first question."""
        content = copy.deepcopy(self.student)
        answers = self.right if answers is None else answers
        choice = next(name for name, asked in self.exam.questions.items() if isinstance(asked, Choice))
        letter = f"{choice} = {self.exam.questions[choice].letter(student)!r}"
        for cell in content["cells"]:
            name = grade_id(cell)
            if "parameters" in cell["metadata"].get("tags", []):
                cell["source"] = f"student = {student!r}"
            elif name in answers:
                cell["source"] = letter if answers[name] is self.right[choice] else answers[name]
        if before:
            place = next(at for at, cell in enumerate(content["cells"]) if grade_id(cell)) - 1
            content["cells"].insert(place, code(before))
        return content

    def seats(self) -> Iterator[Seat]:
        """The class, in the order of the table."""
        for name, answers in STYLES.items():
            student = f"style {name}"
            yield Seat(student, "style", self.most, "", self._paper(student, {**self.right, **answers}))
        for name, (answers, said) in MISTAKES.items():
            student = f"mistake {name}"
            left = self.most - sum(self.exam.points[each] for each in answers)
            yield Seat(student, "mistake", left, said, self._paper(student, {**self.right, **answers}))
        for name, (change, points, said) in ACCIDENTS.items():
            student = f"accident {name}"
            write = lambda folder, s=student, change=change: change(self, folder, s)  # noqa: E731
            yield Seat(student, "accident", self.most if points is None else points, said, write)
        for name, (cell, said) in ATTACKS.items():
            student = f"attack {name}"
            answers = {HONEST: self.right[HONEST]}
            yield Seat(student, "attack", self.exam.points[HONEST], said, self._paper(student, answers, cell))

    def _paper(self, student: str, answers: dict[str, str], before: str = "") -> Callable[[Path], None]:
        return lambda folder: save(folder / f"{student}.ipynb", self.notebook(student, answers, before))


def grade_id(cell: dict) -> str:
    return cell["metadata"].get("nbgrader", {}).get("grade_id", "")


def code(source: str) -> dict:
    return {"cell_type": "code", "metadata": {}, "source": source, "outputs": [], "execution_count": None}


def save(path: Path, notebook: dict, mark: bytes = b"") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(mark + json.dumps(notebook).encode())


def _solution(source: str) -> str:
    return "\n".join(line for line in source.splitlines() if not line.strip().startswith(("### BEGIN", "### END")))


# --- accidents: how they happen, the points (None: all), what is said ------------------------------------------------


def _changed(change: Callable[[dict], None]) -> Callable[[Desk, Path, str], None]:
    def write(desk: Desk, folder: Path, student: str) -> None:
        notebook = desk.notebook(student)
        change(notebook)
        save(folder / f"{student}.ipynb", notebook)

    return write


def _cells(order: Callable[[list], list]) -> Callable[[Desk, Path, str], None]:
    return _changed(lambda notebook: notebook.update(cells=order(notebook["cells"])))


def _scratch(source: str) -> Callable[[Desk, Path, str], None]:
    return lambda desk, folder, student: save(folder / f"{student}.ipynb", desk.notebook(student, None, source))


def _bare(notebook: dict) -> None:
    for cell in notebook["cells"]:
        cell["metadata"] = {}
    notebook["cells"] = [cell for cell in notebook["cells"] if "check_" not in "".join(cell["source"])]


def _stub_after(notebook: dict) -> None:
    """The released cell once more, below the answer."""
    at = next(at for at, cell in enumerate(notebook["cells"]) if grade_id(cell) == HONEST)
    stub = f"def {HONEST}(angles, same, margin):\n    # YOUR CODE HERE\n    raise NotImplementedError()"
    notebook["cells"].insert(at + 1, {**notebook["cells"][at], "source": stub})


def _renamed(notebook: dict) -> None:
    cell = next(cell for cell in notebook["cells"] if grade_id(cell) == HONEST)
    cell["source"] = cell["source"].replace(f"def {HONEST}", "def my_loss")


def _one_cell(cells: list) -> list:
    code_cells = [cell for cell in cells if cell["cell_type"] == "code" and "%pip" not in "".join(cell["source"])]
    return [code("\n\n".join("".join(cell["source"]) for cell in code_cells))]


def _draft_beside(desk: Desk, folder: Path, student: str) -> None:
    save(folder / student / "draft.ipynb", desk.notebook(student, {}))
    os.utime(folder / student / "draft.ipynb", (1, 1))
    save(folder / student / ".ipynb_checkpoints" / "amc-checkpoint.ipynb", desk.notebook(student, {}))
    save(folder / student / "__MACOSX" / "._amc.ipynb", {})
    save(folder / student / f"{ASSIGNMENT}.ipynb", desk.notebook(student))


def _file_and_folder(desk: Desk, folder: Path, student: str) -> None:
    save(folder / f"{student}.ipynb", desk.notebook(student, {}))
    os.utime(folder / f"{student}.ipynb", (1, 1))
    save(folder / student / "homework.ipynb", desk.notebook(student))


def _two_of_one_name(desk: Desk, folder: Path, student: str) -> None:
    for age, place in enumerate(("old", "new")):
        save(folder / student / place / "hw.ipynb", desk.notebook(student, None if age else {}))
        os.utime(folder / student / place / "hw.ipynb", (age, age))


def _chatty(notebook: dict) -> None:
    text = {"output_type": "stream", "name": "stdout", "text": "a" * 100_000_000}
    notebook["cells"][3]["outputs"] = [text]


def _bytes(content: bytes | Callable[[bytes], bytes]) -> Callable[[Desk, Path, str], None]:
    def write(desk: Desk, folder: Path, student: str) -> None:
        data = content(json.dumps(desk.notebook(student)).encode()) if callable(content) else content
        (folder / f"{student}.ipynb").write_bytes(data)

    return write


def _other(desk: Desk, folder: Path, student: str) -> None:
    shutil.copy(desk.master.with_name("cam.ipynb"), folder / f"{student}.ipynb")


def _friend(desk: Desk, folder: Path, student: str) -> None:
    save(folder / f"{student}.ipynb", desk.notebook("eve"))


# the names of parameters of a question, in a check of the student's own
CHECKED = """x = torch.ones(2, 3, dtype=torch.float64, requires_grad=True)
y = torch.autograd.grad((x * x).sum(), x)[0]"""

ACCIDENTS: dict[str, tuple[Callable[[Desk, Path, str], None], float | None, str]] = {
    "nothing handed in": (lambda desk, folder, student: (folder / student).mkdir(), 0, "no notebook"),
    "twice everything": (_cells(lambda cells: cells + copy.deepcopy(cells)), None, ""),
    "stub after": (_changed(_stub_after), None, ""),
    "bare": (_changed(_bare), None, ""),
    "renamed": (_changed(_renamed), None, "my_loss stands where pair_loss should"),
    "upside down": (_cells(lambda cells: cells[::-1]), None, ""),
    "one cell": (_cells(_one_cell), None, ""),
    "byte-order mark": (_bytes(lambda data: b"\xef\xbb\xbf" + data), None, ""),
    "draft beside": (_draft_beside, None, "amc.ipynb was marked, not draft.ipynb"),
    "file and folder": (_file_and_folder, None, "homework.ipynb was marked"),
    "half a file": (_bytes(lambda data: data[: len(data) // 2]), 0, "not a readable notebook"),
    "an empty file": (_bytes(b""), 0, "not a readable notebook"),
    "two of one name": (_two_of_one_name, None, "new/hw.ipynb was marked, not old/hw.ipynb"),
    "50 MB": (_bytes(b"0" * 50_000_000), 0, "not a readable notebook"),
    "100 MB of output": (_changed(_chatty), None, "95 MB, nearly all of it output"),
    "another assignment": (_other, 0, "this is the assignment cam, not amc"),
    "an R kernel": (
        _changed(lambda n: n["metadata"].update(kernelspec={"name": "ir", "language": "R"})), None, "kernel of 'R'",
    ),
    "scratch fails": (_scratch("1 / 0"), None, "stopped: ZeroDivisionError"),
    "scratch never ends": (_scratch("while True:\n    pass"), None, "took longer than 10 s"),
    "scratch uses autograd": (_scratch(CHECKED), None, ""),
    "scratch exits": (_scratch("exit()"), None, "SystemExit"),
    "scratch crashes": (_scratch("import ctypes\nctypes.string_at(0)"), None, "ended the program, and was left out"),
    "a friend's id": (_friend, None, "the student id typed is 'eve'"),
}  # fmt: skip


# --- the run ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """What a student got; ``fault`` is empty where it is what they deserve."""

    seat: Seat
    got: float
    why: str
    fault: str


def run(master: Path, folder: Path, *, few: bool = False, jobs: int = 2) -> Iterator[Outcome]:
    """Write the class into ``folder`` (emptied first) and grade it; one outcome per student.

    Raises:
        RuntimeError: bubblewrap is not installed.
    """
    desk = Desk(master)
    seats = {seat.name: seat for seat in desk.seats() if not few or seat.name.split(" ", 1)[1] in FEW}
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "handed_in").mkdir(parents=True)
    for seat in seats.values():
        seat.write(folder / "handed_in")
    for result in grade(folder / "handed_in", master, folder / "grades", limits=LIMITS, jobs=jobs):
        yield outcome(seats[result.student], result, desk)


def outcome(seat: Seat, result: Result, desk: Desk) -> Outcome:
    """Compare what a student got with what they deserve."""
    why = "; ".join(filter(None, [result.remark, *(f"{n}: {m.why}" for n, m in result.marks.items() if m.why)]))
    fault = ""
    if abs(result.score - seat.expected) > 1e-9:
        fault = f"expected {seat.expected:g} points"
    elif seat.said not in why:
        fault = f"expected a remark with {seat.said!r}"
    elif result.score < desk.most and not why:
        fault = "no word about the missing points"
    elif seat.kind == "attack" and any(line.strip() in why for line in _secrets(desk)):
        fault = "the remark gives a solution away"
    return Outcome(seat, result.score, why, fault)


def _secrets(desk: Desk) -> list[str]:
    lines = [line for name, source in desk.right.items() if name != HONEST for line in source.splitlines()[1:]]
    return [line for line in lines if len(line.strip()) > 20]


def table(outcomes: list[Outcome]) -> str:
    """A line per student."""
    lines = [f"{'student':32} {'expected':>8} {'got':>5}  why"]
    for each in outcomes:
        lines.append(f"{each.seat.name:32} {each.seat.expected:8g} {each.got:5g}  {each.why[:100]}".rstrip())
        lines += [f"  FAULT: {each.fault}"] if each.fault else []
    wrong = sum(bool(each.fault) for each in outcomes)
    return "\n".join([*lines, f"{len(outcomes)} students, {wrong} not marked as they deserve"])
