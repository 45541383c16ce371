"""From a master notebook: the student version without solutions, the teacher's key, and an archive to upload."""

from __future__ import annotations

import io
import json
import re
import shutil
import zipfile
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from xai_course.data.files import write_atomically

SOLUTION = re.compile(r"^([ \t]*)### BEGIN SOLUTION.*?### END SOLUTION[ \t]*$", re.M | re.S)
MARKS = ("### BEGIN SOLUTION", "### END SOLUTION")
STUB = "# YOUR CODE HERE\nraise NotImplementedError()"
TEXTS = ("reason", "prediction", "verdict")  # answers in words, marked by hand


@dataclass(frozen=True)
class Built:
    """Paths of the student version, the teacher's key and the student archive."""

    student: Path
    key: Path
    archive: Path


def masters(folder: Path) -> dict[str, Path]:
    """Assignment name to master notebook.

    Raises:
        ValueError: the folder holds none.
    """
    found = {path.stem: path for path in sorted(Path(folder).glob("*.ipynb"))}
    if not found:
        raise ValueError(f"no master notebooks (*.ipynb) in {folder}; sealed ones come back with the command open")
    return found


def build(master: Path, out: Path) -> Built:
    """Student notebook, key and a zip archive for students, in ``out``.

    Raises:
        ValueError: a cell that should hold a solution marks none, and would be given away.
    """
    name, out = master.stem, Path(out)
    out.mkdir(parents=True, exist_ok=True)
    student, key = out / f"{name}.ipynb", out / f"{name}_key.ipynb"
    write_atomically(student, lambda file: file.write(released(master).encode()))
    shutil.copy(master, key)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.write(student, student.name)
    return Built(student, key, write_atomically(out / f"{name}.zip", lambda f: f.write(archive.getvalue())))


def solved(master: Path, deadline: datetime, now: datetime | None = None) -> str:
    """The text of the master without the marks of its solutions: what students may read after ``deadline``.

    Raises:
        ValueError: the deadline is not over.
    """
    now = now or datetime.now().astimezone()
    if now < (deadline := deadline.astimezone()):
        raise ValueError(f"{master.stem}: the deadline is {deadline:%Y-%m-%d %H:%M %Z}, and it is {now:%Y-%m-%d %H:%M}")
    notebook = json.loads(master.read_text("utf-8"))
    for cell in notebook["cells"]:
        cell["metadata"].pop("nbgrader", None)
        lines = [line for line in "".join(cell["source"]).splitlines() if line.strip() not in MARKS]
        cell["source"] = "\n".join(lines).splitlines(keepends=True)
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def released(master: Path) -> str:
    """The text of the student version."""
    notebook = json.loads(master.read_text("utf-8"))
    for cell in notebook["cells"]:
        graded, source = cell["metadata"].get("nbgrader", {}), "".join(cell["source"])
        if graded.get("solution"):
            if not SOLUTION.search(source):
                raise ValueError(f"{master.name}: cell {graded['grade_id']} marks no solution (### BEGIN SOLUTION)")
            stub = f'{graded["grade_id"]} = """\n\n"""' if graded["grade_id"] in TEXTS else STUB
            source = SOLUTION.sub(lambda m, stub=stub: "\n".join(m[1] + line for line in stub.splitlines()), source)
        if graded.get("locked"):
            cell["metadata"] |= {"deletable": False, "editable": False}
        cell["source"] = source.splitlines(keepends=True)
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
