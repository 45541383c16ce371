"""The house stands: imports only go down, nothing heavy at the top of a module, files and functions stay short."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "xai_course"
# A room imports only from rooms on lower floors, and from itself.
FLOORS = {
    **{"data": 0, "preset": 0, "identity": 1, "nets": 1, "maps": 2, "measure": 3, "methods": 4},
    **{"train": 5, "checks": 6, "show": 6, "colab": 6, "runs": 7, "classroom": 7, "cli": 8},
}
HEAVY = {"matplotlib", "torchvision", "sklearn", "skimage", "scipy", "ipywidgets", "IPython", "accelerate", "nbgrader"}
FILES = sorted(p for p in ROOT.rglob("*.py") if p.name != "__init__.py")


def room(path: Path) -> str:
    return path.relative_to(ROOT).with_suffix("").parts[0]


def imported(path: Path, nodes) -> list[str]:
    """Absolute names of everything imported by these nodes."""
    package = ("xai_course", *path.relative_to(ROOT).parent.parts)
    names = []
    for node in nodes:
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) + "." if node.level else ""
            stem = base + (node.module or "")
            names += [stem] if node.module else [base + alias.name for alias in node.names]
            if stem == "xai_course":
                names += [f"xai_course.{alias.name}" for alias in node.names]
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_imports_only_go_down_and_stay_light(path):
    tree = ast.parse(path.read_text("utf-8"))
    own = FLOORS[room(path)]
    for name in imported(path, ast.walk(tree)):
        parts = name.split(".")
        if parts[0] == "xai_course" and len(parts) > 1 and parts[1] in FLOORS and parts[1] != room(path):
            assert FLOORS[parts[1]] < own, f"{room(path)} (floor {own}) imports {name} (floor {FLOORS[parts[1]]})"
    for name in imported(path, tree.body):
        assert name.split(".")[0] not in HEAVY, f"{name} is imported at the top of the module"


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_files_and_functions_stay_short_and_public_things_are_documented(path):
    text = path.read_text("utf-8")
    tree = ast.parse(text)
    assert len(text.splitlines()) <= 380, "split the file"
    assert ast.get_docstring(tree), "say in one sentence what the module is for"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            statements = node.body[1:] if ast.get_docstring(node) else node.body
            length = statements[-1].end_lineno - statements[0].lineno + 1 if statements else 0
            assert length <= 50, f"{node.name} has {length} lines"
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            trivial = room(path) == "runs" or (isinstance(node, ast.FunctionDef) and len(node.body) <= 2)  # runs: data
            assert ast.get_docstring(node) or trivial, f"{node.name} needs a docstring"
