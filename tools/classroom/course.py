"""Assignments with nbgrader: build what students, teachers and the grader need from one master, and grade a folder."""

from __future__ import annotations

import csv
import html
import io
import json
import logging
import os
import shutil
import sys
import warnings
import zipfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import cache, partial
from pathlib import Path

from tools.classroom.sandbox import Executed, Limits, bubblewrap, execute
from xai_course.data.batch import fingerprint
from xai_course.data.files import write_atomically

LARGEST_NOTEBOOK = 10 * 2**20  # bytes; an honest submission has far less than one megabyte


@dataclass(frozen=True)
class Built:
    """Paths of the student version, the instructor's key (with solutions and hidden tests) and the student archive."""

    student: Path
    key: Path
    archive: Path


@dataclass(frozen=True)
class Result:
    """One graded submission. ``questions``: points by grade id; ``remark``: what went wrong, empty if nothing did."""

    student: str
    score: float
    most: float
    remark: str = ""
    questions: dict[str, float] = field(default_factory=dict)


def masters(folder: Path) -> dict[str, Path]:
    """Assignment name to master notebook.

    Raises:
        ValueError: the folder holds none.
    """
    found = {path.stem: path for path in sorted(Path(folder).glob("*.ipynb"))}
    if not found:
        raise ValueError(f"no master notebooks (*.ipynb) in {folder}")
    return found


def build(master: Path, out: Path) -> Built:
    """Student notebook (solutions cut, hidden tests gone), key and a zip archive for students, in ``out``."""
    name, out = master.stem, Path(out)
    course = _Course(master, out / ".course")
    shutil.rmtree(course.root, ignore_errors=True)
    course.open()
    student, key = out / f"{name}.ipynb", out / f"{name}_key.ipynb"
    out.mkdir(parents=True, exist_ok=True)
    shutil.copy(course.root / "release" / name / f"{name}.ipynb", student)
    shutil.copy(master, key)
    shutil.rmtree(course.root)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.write(student, student.name)
    return Built(student, key, write_atomically(out / f"{name}.zip", lambda f: f.write(archive.getvalue())))


def grade(
    submissions: Path, master: Path, out: Path, *, sandbox: bool = True, limits: Limits | None = None
) -> Iterator[Result]:
    """Grade every submission: ``submissions/STUDENT.ipynb`` or ``submissions/STUDENT/ANYTHING.ipynb``.

    Writes ``scores.csv`` (again after each submission, whole at any time), ``feedback/STUDENT.html`` and the executed
    notebooks below ``out``. A submission graded before and unchanged since is not run again. One that cannot be read or
    stops half-way is graded for what ran, and its remark says why.

    Raises:
        ValueError: the folder is missing or holds no submission.
        RuntimeError: ``sandbox`` and bubblewrap is not installed.
    """
    if sandbox:
        bubblewrap()
    found = _submissions(Path(submissions))
    course = _Course(master, Path(out) / "course")
    course.open()
    key = fingerprint(master.read_bytes(), sandbox)
    results: list[Result] = []
    for student, path in found.items():
        done = course.root.parent / "results" / f"{student}-{fingerprint(key, _head(path))}.json"
        if done.exists():
            result = Result(**json.loads(done.read_text("utf-8")))
        else:
            result = course.grade(student, path, partial(execute, limits=limits or Limits(), sandbox=sandbox))
            write_atomically(done, partial(_write, text=json.dumps(asdict(result))))
        results.append(result)
        write_atomically(Path(out) / "scores.csv", partial(_write, text=_table(results)))
        yield result


def _write(file, text: str) -> None:
    file.write(text.encode())


def _head(path: Path | None) -> bytes:
    """What decides whether a submission changed: its content, or for an oversized one its size."""
    if path is None:
        return b""
    size = path.stat().st_size
    return path.read_bytes() if size <= LARGEST_NOTEBOOK else str(size).encode()


def _submissions(folder: Path) -> dict[str, Path | None]:
    """Student to notebook; None for a student's folder without one, who must not vanish from the table."""
    if not folder.is_dir():
        raise ValueError(f"submissions must be a folder, got {folder}")
    found: dict[str, Path | None] = {}
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not path.name.startswith("."):
            notebooks = [p for p in sorted(path.rglob("*.ipynb")) if ".ipynb_checkpoints" not in p.parts]
            found[path.name] = notebooks[0] if notebooks else None
        elif path.suffix == ".ipynb":
            found[path.stem] = path
    if not found:
        raise ValueError(f"no submissions in {folder}: expected STUDENT.ipynb or STUDENT/NAME.ipynb")
    return found


def _table(results: list[Result]) -> str:
    names = list(dict.fromkeys(name for result in results for name in result.questions))
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["student", "score", "of", *names, "remark"])
    for r in results:
        points = [f"{r.questions.get(name, 0):g}" for name in names]
        table.writerow([r.student, f"{r.score:g}", f"{r.most:g}", *points, r.remark])
    return text.getvalue()


class _Course:
    """One assignment as an nbgrader course folder: source, release, submitted, autograded, feedback, gradebook."""

    def __init__(self, master: Path, root: Path):
        self.master, self.name, self.root = Path(master), Path(master).stem, Path(root)
        cells = [cell["metadata"].get("nbgrader", {}) for cell in json.loads(self.master.read_text("utf-8"))["cells"]]
        self.questions = [cell["grade_id"] for cell in cells if cell.get("grade")]

    def open(self) -> None:
        """Put the master in place, let nbgrader make the release version and enter the assignment in the gradebook."""
        source = self.root / "source" / self.name
        source.mkdir(parents=True, exist_ok=True)
        shutil.copy(self.master, source / f"{self.name}.ipynb")
        self._must(self._api().generate_assignment(self.name, force=True, create=True))

    def grade(self, student: str, path: Path | None, run) -> Result:
        """Sanitise, execute by ``run``, score and write feedback; any failure becomes a remark."""
        remark = _unreadable(path)
        if remark:
            return self._failed(student, remark)
        place = self.root / "submitted" / student / self.name
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place / f"{self.name}.ipynb")
        stopped: list[str] = []

        def preprocessor(notebook, resources):  # a closure: traitlets copies anything else it finds in a configuration
            done = run(notebook)
            stopped.append(done.stopped)
            return _with_outputs(notebook, done), resources

        api = self._api(preprocessor)
        try:
            self._must(api.autograde(self.name, student, force=True))
            self._must(api.generate_feedback(self.name, student, force=True))
        except RuntimeError as error:
            return self._failed(student, str(error))
        feedback = self.root / "feedback" / student / self.name / f"{self.name}.html"
        shutil.copy(feedback, self._feedback(student))
        return self._scored(student, "; ".join(filter(None, stopped)))

    def _feedback(self, student: str) -> Path:
        folder = self.root.parent / "feedback"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{student}.html"

    def _failed(self, student: str, remark: str) -> Result:
        page = f"<!doctype html><meta charset=utf-8><h1>{html.escape(student)}</h1><p>{html.escape(remark)}</p>"
        write_atomically(self._feedback(student), partial(_write, text=page))
        return Result(student, 0.0, self._most(), remark)

    def _gradebook(self):
        _prepare_nbgrader()
        from nbgrader.api import Gradebook

        return Gradebook(f"sqlite:///{self.root / 'gradebook.db'}")

    def _most(self) -> float:
        with self._gradebook() as book:
            return float(book.find_assignment(self.name).max_score)

    def _scored(self, student: str, remark: str) -> Result:
        with self._gradebook() as book:
            grades = book.find_submission(self.name, student).notebooks[0].grades
            points = {grade.name: float(grade.auto_score or 0) for grade in grades}
        points = {name: points[name] for name in self.questions if name in points}
        return Result(student, sum(points.values()), self._most(), remark, points)

    def _api(self, preprocessor=None):
        """nbgrader on this course folder; ``preprocessor`` stands in for its own, unguarded execution."""
        _prepare_nbgrader()
        from nbgrader.apps.api import NbGraderAPI
        from nbgrader.coursedir import CourseDirectory
        from nbgrader.preprocessors import LimitOutput, SaveAutoGrades
        from traitlets.config import Config

        config = Config()
        config.CourseDirectory.root = str(self.root.resolve())
        config.CourseDirectory.db_url = f"sqlite:///{self.root.resolve() / 'gradebook.db'}"
        if preprocessor is not None:
            config.Autograde.autograde_preprocessors = [preprocessor, LimitOutput, SaveAutoGrades]
        return NbGraderAPI(CourseDirectory(config=config), config=config)

    @staticmethod
    def _must(answer: dict) -> None:
        if not answer["success"]:
            reason = (answer.get("error") or answer.get("log") or "").strip().splitlines()
            raise RuntimeError(f"nbgrader: {reason[-1] if reason else 'failed without a message'}")


@cache
def _prepare_nbgrader() -> None:
    """Let it find alembic beside this interpreter, ask for alembic's version once and not per access, and be quiet."""
    import nbgrader.api
    from sqlalchemy.exc import SAWarning

    logging.getLogger("traitlets").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=SAWarning)
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    nbgrader.api.get_alembic_version = cache(nbgrader.api.get_alembic_version)


def _unreadable(path: Path | None) -> str:
    """Why a submission cannot be graded at all; empty if it can."""
    if path is None:
        return "no notebook in the submission"
    size = path.stat().st_size
    if size > LARGEST_NOTEBOOK:
        return f"the notebook has {size / 2**20:.0f} MB, at most {LARGEST_NOTEBOOK / 2**20:.0f} are read"
    try:
        cells = json.loads(path.read_text("utf-8"))["cells"]
    except (ValueError, KeyError, TypeError, OSError) as error:
        return f"not a readable notebook ({type(error).__name__}): hand it in again, saved by Jupyter or Colab"
    return "" if cells else "the notebook is empty"


def _with_outputs(notebook, done: Executed):
    """The notebook with the outputs from the sandbox; a code cell that did not run has failed, never passed."""
    import nbformat

    for index, cell in enumerate(notebook.cells):
        if cell.cell_type != "code":
            continue
        cell.outputs = [nbformat.from_dict(output) for output in done.cells.get(index, [])]
        if index not in done.cells and cell.source.strip():
            fault = f"this cell did not run: {done.stopped or 'the notebook ended early'}"
            cell.outputs = [nbformat.v4.new_output("error", ename="NotRun", evalue=fault, traceback=[fault])]
    return notebook
