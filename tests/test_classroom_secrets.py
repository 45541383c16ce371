"""Where answers may stand, and where not; what is left of a repository that was sealed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from planted import needs_masters

from tools import NOTEBOOKS, ROOT
from tools.classroom import seal
from tools.classroom.build import SOLUTION, released
from tools.classroom.questions import Choice, assignments, questions

MASTERS = sorted((NOTEBOOKS / "assignments").glob("*.ipynb"))
needs_gpg = pytest.mark.skipif(shutil.which("gpg") is None, reason="GnuPG is not installed (apt-get install gnupg)")


def squeezed(text: str) -> str:
    return re.sub(r"[\s*_`$]+", "", text).lower()


def text_of(path: Path) -> str:
    text = path.read_text("utf-8")
    if path.suffix == ".ipynb":
        text = "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"])
    return squeezed(text)


def open_pages(root: Path = ROOT) -> dict[Path, str]:
    """What a student reads: the book, the labs, the student versions, the numbers of the checks."""
    labs = [*(root / "notebooks").glob("*.ipynb"), *(root / "notebooks" / "students").glob("*.ipynb")]
    return {path: text_of(path) for path in [*(root / "book").rglob("*.md"), root / "README.md", *labs]}


def solution_lines(masters: list[Path]) -> set[str]:
    """Lines of the solutions and of the model answers that are long enough to be nobody else's."""
    cells = [cell for path in masters for cell in json.loads(path.read_text("utf-8"))["cells"]]
    solved = [found[0] for cell in cells if (found := SOLUTION.search("".join(cell["source"])))]
    asked = "".join(squeezed("".join(cell["source"])) for cell in cells if cell["cell_type"] == "markdown")
    lines = {squeezed(line) for source in solved for line in source.splitlines() if squeezed(line) not in asked}
    return {line for line in lines if len(line) > 30 and "solution" not in line}


def says(text: str, answer: str) -> bool:
    """Whether a page prints an option; a number only counts as a whole."""
    return re.search(rf"(?<![\d.]){re.escape(squeezed(answer))}(?!\d)", text) is not None


@needs_masters
def test_no_page_prints_the_right_option_or_a_solution():
    pages, lines = open_pages(), solution_lines(MASTERS)
    assert len(lines) > 40
    found = [(str(path), line) for path, text in pages.items() for line in lines if line in text]
    for name in assignments():
        for question in [q for q in questions(name).values() if isinstance(q, Choice)]:
            about = [p for p in pages if name in p.name or len(question.options[question.right]) > 12]
            found += [
                (str(path), question.name) for path in about if says(pages[path], question.options[question.right])
            ]
    assert not found


@needs_masters
@pytest.mark.parametrize("master", MASTERS, ids=lambda path: path.stem)
def test_the_notebook_that_colab_opens_is_the_student_version_of_the_master(master):
    student = NOTEBOOKS / "students" / master.name
    assert student.read_text("utf-8") == released(master), "run make assignments"


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a checkout")
def test_what_colab_opens_is_committed():
    done = subprocess.run(["git", "ls-files", "notebooks/students"], cwd=ROOT, capture_output=True, text=True)
    assert {Path(line).stem for line in done.stdout.splitlines()} >= set(assignments())


@needs_masters
def test_the_longest_option_is_not_a_way_to_guess():
    choices = [q for name in assignments() for q in questions(name).values() if isinstance(q, Choice)]
    longest = [
        q.name for q in choices if len(q.options[q.right]) > max(len(o) for o in q.options if o != q.options[q.right])
    ]
    assert len(choices) >= 6 and longest == []


@pytest.fixture
def copied(tmp_path):
    root = tmp_path / "course"
    for name in ("notebooks", "tools", "tests", "data/checks", "book"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__", "_static"))
    for name in ("README.md", "pyproject.toml", "conftest.py", "requirements.txt"):
        shutil.copy(ROOT / name, root)
    (root / "xai_course").symlink_to(ROOT / "xai_course")
    return root


def command(root: Path, *arguments: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, *arguments], cwd=root, env=environment, capture_output=True, text=True)


@needs_masters
@needs_gpg
def test_a_sealed_course_holds_no_answer_passes_its_tests_without_the_key_and_opens_with_it(copied, tmp_path):
    key, secret = tmp_path / "course.key", seal.secret(copied)
    before, lines = {path: path.read_bytes() for path in secret}, solution_lines(MASTERS)
    with pytest.raises(ValueError, match="must lie outside the repository"):
        seal.seal(copied / "k", copied)
    assert seal.seal(key, copied) == secret
    assert oct(key.stat().st_mode)[-3:] == "600" and not any(path.exists() for path in secret)
    for path in copied.rglob("*"):
        if path.is_file() and path.suffix in (".py", ".md", ".ipynb", ".json", ".sealed"):
            text = squeezed(path.read_bytes().decode("utf-8", "replace"))
            assert not [line for line in lines if squeezed(json.dumps(line)[1:-1]) in text], path
    names = ("classroom_mock", "classroom_tables", "checks_frozen", "teacher")
    done = command(
        copied, "-m", "pytest", "-rs", "-p", "no:cacheprovider", *(f"tests/test_{name}.py" for name in names)
    )
    assert done.returncode == 0 and "skipped" in done.stdout, done.stdout[-3000:]
    wrong = tmp_path / "wrong.key"
    wrong.write_text("guess\n")
    with pytest.raises(ValueError, match="does not open with the key"):
        seal.unseal(wrong, copied)
    seal.unseal(key, copied)
    assert {path: path.read_bytes() for path in seal.secret(copied)} == before
    assert not (copied / seal.SEALED).exists()
