"""The house stands: imports only go down, nothing heavy at the top of a module, files and functions stay short."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

from tools import ROOT as CHECKOUT
from tools import rooms
from tools.rooms import FLOORS

ROOT = rooms.PACKAGE
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


def test_the_list_of_rooms_is_whole_and_the_settings_agree_with_it(tmp_path):
    assert rooms.strangers() == [] and all(path.is_file() for r in rooms.ROOMS for path in r.files())
    assert list(FLOORS.values()) == sorted(FLOORS.values())
    (tmp_path / "attic").mkdir()
    (tmp_path / "attic" / "heap.py").touch()
    assert rooms.strangers(tmp_path) == ["attic"]
    assert f"`{rooms.order()}`" in " ".join((CHECKOUT / "CONTRIBUTING.md").read_text("utf-8").split())
    settings = tomllib.loads((CHECKOUT / "pyproject.toml").read_text("utf-8"))["tool"]["mypy"]
    course = {name for each in settings["overrides"] for name in each["module"] if "disallow_untyped_defs" in each}
    named = [f"xai_course.{r.name}{'.*' * (ROOT / r.name).is_dir()}" for r in rooms.ROOMS if not r.library]
    assert settings["strict"] and course == set(named)  # every other room is typed strictly


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_imports_only_go_down_and_stay_light(path):
    tree = ast.parse(path.read_text("utf-8"))
    own = FLOORS.get(room(path), 0)  # private files stand at the bottom
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


# What a function returns, or a class extends, says which room it belongs to; `runs` may put data together for its rows.
HOMES = {
    **{"Splits": {"data", "runs"}, "ArrayData": {"data", "runs"}, "FolderData": {"data", "runs"}},
    **{"Figure": {"show"}, "Method": {"methods"}, "Experiment": {"runs", "cli"}, "Record": {"runs"}},
}
ELSEWHERE = {
    "shuffled_labels": "a control of what is measured",
    "with_pseudo_annotations": "trains the network that draws the data's masks",
    "Untrained": "a row of a table, no method of a paper",
    "Separate": "a row of a table, no method of a paper",
}


def strayed(room: str, tree: ast.Module, methods: set[str]) -> list[str]:
    """Public definitions whose return type or base class belongs to another room."""
    found = []
    for node in tree.body:
        says = set()
        if isinstance(node, ast.FunctionDef) and node.returns is not None:
            says = set(re.findall(r"\w+", ast.unparse(node.returns)))
        elif isinstance(node, ast.ClassDef):
            says = {"Method" for base in node.bases if ast.unparse(base).split(".")[-1] in methods}
        if says and not node.name.startswith("_") and any(room not in HOMES[s] for s in says & set(HOMES)):
            found.append(node.name)
    return found


def test_a_definition_stands_in_the_room_that_its_type_says():
    trees = {path: ast.parse(path.read_text("utf-8")) for path in FILES}
    classes = [node for tree in trees.values() for node in tree.body if isinstance(node, ast.ClassDef)]
    methods: set[str] = {"Method"}
    for _ in range(5):  # children of children
        methods |= {c.name for c in classes if {ast.unparse(base).split(".")[-1] for base in c.bases} & methods}
    found = {name for path, tree in trees.items() for name in strayed(room(path), tree, methods)}
    assert found <= set(ELSEWHERE)
    planted = ast.parse("class Mine(HNC): ...\ndef draw() -> Figure: ...\ndef fine() -> Tensor: ...")
    assert {"HNC", "CrossEntropy"} <= methods and strayed("measure", planted, methods) == ["Mine", "draw"]
