"""What was handed in: which notebook counts, its cells, and which cell answers which question, whatever happened.

Answers are found by the name of the function, then by the grade id of the cell; checks, metadata and order do not
matter. Nothing here runs a student's code.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
import stat
import subprocess
import sys
import unicodedata
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

LARGE, LARGEST = 10 * 2**20, 300 * 2**20  # bytes; an honest submission has far less than one megabyte
STRIP = """import json, resource, sys
resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
def hook(found):
    for name in ("outputs", "attachments", "widgets"):
        found.pop(name, None)
    return found
with open(sys.argv[1], encoding="utf-8-sig") as file:
    json.dump(json.load(file, object_hook=hook), sys.stdout)"""
PLATFORMS = {
    "canvas": re.compile(r"(?P<name>\w+?_)(?:LATE_)?(?P<id>\d+)_\d+_.+"),
    "moodle": re.compile(r"(?P<name>.+)_(?P<id>\d+)_assignsubmission_file(?:_.*)?"),
}
"""How downloads are named. The number is the student's own on Canvas, and another for each assignment on Moodle."""
MOST_CODE = 500_000  # characters
LONGEST = 200  # bytes of a student's name, which becomes part of the names of files
BOUND = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


@dataclass
class Cell:
    """A code cell: its source in plain Python, the grade id it still carries, and its number in the notebook."""

    source: str
    grade_id: str = ""
    number: int = 0

    def __post_init__(self) -> None:
        self.source = plain(self.source)
        try:
            self.body = ast.parse(self.source).body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            self.body = []

    def names(self) -> dict[str, ast.stmt]:
        """What the cell binds at its top level, except to a placeholder."""
        found: dict[str, ast.stmt] = {}
        for node in self.body:
            if isinstance(node, BOUND):
                found |= {} if _placeholder(node) else {node.name: node}
            elif isinstance(node, (ast.Import, ast.ImportFrom)):
                found |= {(alias.asname or alias.name).split(".")[0]: node for alias in node.names}
            elif isinstance(node, (ast.Assign, ast.AnnAssign)):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                found |= {each.id: node for t in targets for each in ast.walk(t) if isinstance(each, ast.Name)}
        return found


@dataclass
class Paper:
    """A student's hand-in: the notebook that counts, its code cells, and remarks in plain words."""

    student: str
    path: Path | None = None
    cells: list[Cell] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def collect(folder: Path, platform: str = "") -> dict[str, list[Path]]:
    """Student to notebooks: ``folder/STUDENT.ipynb``, ``folder/STUDENT/ANYTHING.ipynb``, or both; no links.

    Args:
        folder: all hand-ins of an assignment.
        platform: a key of `PLATFORMS` takes the student's lasting name from the names of its download.

    Raises:
        ValueError: the folder is missing or holds no submission.
    """
    if not folder.is_dir():
        raise ValueError(f"submissions must be a folder, got {folder}")
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not path.is_symlink() and not path.name.startswith("."):
            denied: list[Path] = []  # to be told so
            told = lambda error, denied=denied: denied.append(Path(error.filename))  # noqa: E731
            inside = [Path(at, name) for at, _, names in os.walk(path, onerror=told) for name in sorted(names)]
            notebooks = [p for p in inside if _is_notebook(p) and not {".ipynb_checkpoints", "__MACOSX"} & {*p.parts}]
            denied += [p for p in notebooks if not p.name.startswith(".")]
            found.setdefault(_student(path.name), []).extend(denied)
        elif _is_notebook(path) or (path.is_symlink() and not path.name.startswith(".")):
            found.setdefault(_student(path.stem), []).append(path)
    if not found:
        raise ValueError(f"no submissions in {folder}: expected STUDENT.ipynb or STUDENT/NAME.ipynb")
    return _by_student(found, platform) if platform else found


def _student(name: str) -> str:
    """The student's name from a file's: letters of an older archive are read as Latin-1, and no name is too long."""
    try:
        name.encode()
    except UnicodeEncodeError:
        name = os.fsencode(name).decode("latin-1")
    if len(name.encode()) > LONGEST:
        name = f"{name[:40]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return unicodedata.normalize("NFC", name)


def strays(folder: Path) -> list[str]:
    """Names of files beside the hand-ins that are no notebooks and count for nobody."""
    beside = [path for path in sorted(folder.iterdir()) if path.is_file() and not _is_notebook(path)]
    return [_student(path.name) for path in beside if not path.name.startswith(".")]


def _is_notebook(path: Path) -> bool:
    return path.suffix.lower() == ".ipynb"


def _by_student(found: dict[str, list[Path]], platform: str) -> dict[str, list[Path]]:
    """The same under names that stay from assignment to assignment; two students of one name keep their numbers."""
    matches = {name: PLATFORMS[platform].fullmatch(name) for name in found}
    if strangers := [name for name, match in matches.items() if not match]:
        raise ValueError(f"{strangers[0]} is not named as {platform} names downloads; leave --platform out")
    owners = {name: (match["name"], match["id"]) for name, match in matches.items()}
    of_name = Counter(name for name, _ in set(owners.values()))
    grouped: dict[str, list[Path]] = {}
    for name, (who, number) in owners.items():
        student = who + number if platform == "canvas" else who if of_name[who] == 1 else f"{who}_{number}"
        grouped.setdefault(student, []).extend(found[name])
    return grouped


def read(student: str, paths: list[Path], assignment: str, known: dict[str, set[str]]) -> Paper:
    """The paper to mark: of several notebooks the one named like the assignment, else the newest.

    Args:
        student: whose it is.
        paths: the notebooks handed in.
        assignment: which is marked.
        known: the names of the questions of every assignment.
    """
    paper, readable = Paper(student), []
    for path in paths:
        try:
            cells, remarks = cells_of(path)
        except ValueError as error:
            paper.remarks.append(f"{path.name}: {error}" if len(paths) > 1 else str(error))
            continue
        answers = {name for cell in cells for name in (*cell.names(), cell.grade_id)}
        wanted = (bool(answers & known[assignment]), bool(answers & {name for each in known.values() for name in each}))
        rank = (*wanted, path.stem.lower() == assignment, path.lstat().st_mtime)
        readable.append((rank, path, cells, remarks, answers))
    if not readable:
        paper.remarks = paper.remarks or ["no notebook in the submission"]
        return paper
    _, paper.path, paper.cells, remarks, answers = max(readable, key=lambda each: (each[0], str(each[1])))
    paper.remarks += remarks
    names = _shortest(paths)
    if others := [names[each[1]] for each in readable if each[1] != paper.path]:
        paper.remarks.append(f"{len(readable)} notebooks: {names[paper.path]} was marked, not {', '.join(others[:3])}")
    if not answers & known[assignment]:
        matches = [name for name, wanted in known.items() if answers & wanted]
        is_other = f"this is the assignment {matches[0]}, not {assignment}" if matches else ""
        paper.remarks.append(is_other or f"none of the questions of {assignment} is in this notebook")
    return paper


def _shortest(paths: list[Path]) -> dict[Path, str]:
    """Names that tell the paths apart."""
    common = os.path.commonpath([path.parent for path in paths])
    times = Counter(path.name for path in paths)
    return {p: p.name if times[p.name] == 1 else p.relative_to(common).as_posix() for p in paths}


def cells_of(path: Path) -> tuple[list[Cell], list[str]]:
    """The code cells of a notebook, and remarks.

    Raises:
        ValueError: it cannot be read; the message tells the student what to do.
    """
    again = "hand it in again, saved by Jupyter or Colab"
    try:
        info = path.lstat()
    except OSError as error:
        raise ValueError(f"the file cannot be opened ({error.strerror}): {again}") from None
    if stat.S_ISDIR(info.st_mode):
        raise ValueError("the folder cannot be opened: give the right to read it")
    if not stat.S_ISREG(info.st_mode):
        raise ValueError("a link or a special file, which is not followed: hand in the notebook itself")
    if info.st_size > LARGEST:
        raise ValueError(f"the notebook has {info.st_size / 2**20:.0f} MB, at most {LARGEST / 2**20:.0f} are read")
    large = info.st_size > LARGE
    try:
        content = json.loads(_without_outputs(path) if large else path.read_bytes().decode("utf-8-sig"))
        language = content.get("metadata", {}).get("kernelspec", {}).get("language", "python")
        listed = content["cells"] if "cells" in content else content["worksheets"][0]["cells"]
        cells = [_cell(cell, at) for at, cell in enumerate(listed) if cell["cell_type"] == "code"]
    except OSError as error:
        raise ValueError(f"the file cannot be opened ({error.strerror}): {again}") from None
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        raise ValueError(f"not a readable notebook: {again}") from None
    if not any(cell.source.strip() for cell in cells):
        raise ValueError("the notebook is empty" if not listed else "the notebook holds no code")
    if sum(len(cell.source) for cell in cells) > MOST_CODE:
        raise ValueError(f"the notebook holds more than {MOST_CODE} characters of code")
    said = [f"{info.st_size / 2**20:.0f} MB, nearly all of it output: clear it before you hand in"] if large else []
    said += [] if language == "python" else [f"written for a kernel of {str(language)[:20]!r}, run as Python"]
    return cells, said


def _without_outputs(path: Path) -> str:
    """The text of a large notebook without its outputs, made by a process of bounded memory and time."""
    command = [sys.executable, "-I", "-c", STRIP, str(path.absolute())]
    try:
        done = subprocess.run(command, capture_output=True, timeout=120, check=True)
    except subprocess.SubprocessError:
        raise ValueError("it cannot be read in bounded memory") from None
    if len(done.stdout) > LARGE:
        raise ValueError("it is as large without outputs")
    return done.stdout.decode()


def _cell(cell: dict, number: int) -> Cell:
    source = cell.get("source", cell.get("input", ""))
    metadata = cell.get("metadata") or {}
    graded = metadata.get("nbgrader") if isinstance(metadata, dict) else None
    grade_id = graded.get("grade_id", "") if isinstance(graded, dict) else ""
    return Cell("".join(source), grade_id if isinstance(grade_id, str) else "", number)


def plain(source: str) -> str:
    """Python without the notebook's additions: magics, shell lines and questions become ``pass``."""
    try:
        ast.parse(source)
    except (SyntaxError, ValueError):
        lines = source.splitlines()
        first = next((line for line in lines if line.strip()), "")
        if re.match(r"%%(time|timeit|capture)\b", first):
            lines = lines[lines.index(first) + 1 :]
        elif first.startswith("%%"):
            return ""
        source = "\n".join(re.sub(r"^(\s*)([%!?].*|[\w.]+\?{1,2}\s*)$", r"\1pass", line) for line in lines)
    except (RecursionError, MemoryError):
        return ""
    return source


def _placeholder(node: ast.stmt) -> bool:
    """A function as the student version has it: nothing but a docstring, ``pass``, ``...`` or NotImplementedError."""
    return isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and all(
        isinstance(each, ast.Pass)
        or (isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant))
        or (isinstance(each, ast.Raise) and "NotImplementedError" in ast.dump(each))
        for each in node.body
    )
