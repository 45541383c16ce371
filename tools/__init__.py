"""What builds, checks and publishes the book. Run as modules from the repository root: ``python -m tools.stage``."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "_build"
NOTEBOOKS = ROOT / "notebooks"
HOLDS = "XAI_COURSE_BUILDING"  # the build folder that a parent process holds


def default_repo(root: Path = ROOT) -> str:
    """``owner/name`` as written in _config.yml, the one place that says which repository this is."""
    text = (root / "_config.yml").read_text("utf-8")
    found = re.search(r"^\s+url:\s*https://github\.com/([\w.-]+/[\w.-]+)\s*$", text, re.M)
    if not found:
        raise ValueError("_config.yml: expected 'url: https://github.com/owner/name' under repository, got none")
    return found[1]


def notebook_paths(root: Path = ROOT) -> list[Path]:
    """The committed labs in reading order. Assignments lie in a folder of their own and never enter the book."""
    return sorted((root / "notebooks").glob("*.ipynb"))


def assignment_paths(root: Path = ROOT) -> list[Path]:
    """The masters of the assignments, solutions included (never published, and away while the course is sealed), and
    the student versions that Colab opens."""
    return [path for of in ("assignments", "students") for path in sorted((root / "notebooks" / of).glob("*.ipynb"))]


def write_if_changed(path: Path, content: bytes) -> bool:
    """Write only what differs, so that an unchanged file keeps its time stamp and Sphinx does not read it again."""
    if path.is_file() and path.read_bytes() == content:
        return False
    from xai_course.data.files import write_atomically

    write_atomically(path, lambda file: file.write(content))
    return True


@contextlib.contextmanager
def building(folder: Path = BUILD) -> Iterator[None]:
    """Hold the build folder against other builds, which wait; what this process starts meanwhile may go on in it."""
    from xai_course.data.files import locked

    held = str(folder.resolve())
    if os.environ.get(HOLDS) == held:
        yield
        return
    with locked(folder, f"another build is at work in {folder}: waiting until it has ended"):
        os.environ[HOLDS] = held
        try:
            yield
        finally:
            del os.environ[HOLDS]
