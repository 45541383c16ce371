"""From a master notebook: the student version without solutions, the teacher's key, and an archive to upload."""

from __future__ import annotations

import io
import json
import re
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path

from xai_course.data.files import write_atomically

SOLUTION = re.compile(r"^([ \t]*)### BEGIN SOLUTION.*?### END SOLUTION[ \t]*$", re.M | re.S)
STUB = "# YOUR CODE HERE\nraise NotImplementedError()"


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
        raise ValueError(f"no master notebooks (*.ipynb) in {folder}")
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


def released(master: Path) -> str:
    """The text of the student version."""
    notebook = json.loads(master.read_text("utf-8"))
    for cell in notebook["cells"]:
        graded, source = cell["metadata"].get("nbgrader", {}), "".join(cell["source"])
        if graded.get("solution"):
            if not SOLUTION.search(source):
                raise ValueError(f"{master.name}: cell {graded['grade_id']} marks no solution (### BEGIN SOLUTION)")
            source = SOLUTION.sub(lambda m: "\n".join(m[1] + line for line in STUB.splitlines()), source)
        if graded.get("locked"):
            cell["metadata"] |= {"deletable": False, "editable": False}
        cell["source"] = source.splitlines(keepends=True)
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
