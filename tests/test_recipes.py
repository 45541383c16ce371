"""The recipes for foreign loops stay short, and a machine without a framework passes over its recipe."""

from __future__ import annotations

import ast
import json

from tools import ROOT
from tools.run_notebooks import code_cells, text

CELLS = [text(cell) for cell in code_cells(json.loads((ROOT / "notebooks/8_your_own_loop.ipynb").read_text("utf-8")))]
FOREIGN = {"timm", "transformers", "lightning"}


def imports(node: ast.AST) -> set[str]:
    names = [a.name for n in ast.walk(node) if isinstance(n, ast.Import) for a in n.names]
    names += [n.module for n in ast.walk(node) if isinstance(n, ast.ImportFrom)]
    return {name.split(".")[0] for name in names}


def test_a_recipe_has_at_most_fifteen_lines():
    recipes = [cell for cell in CELLS if "create_graph=True" in cell and "focusing_loss(" in cell]
    assert len(recipes) == 5  # torchvision, timm twice, transformers, Lightning
    for cell in recipes:
        assert sum(bool(line.strip()) for line in cell.splitlines()) <= 15, cell


def test_foreign_frameworks_are_touched_only_where_they_are_there():
    seen = set()
    for cell in CELLS[1:]:
        for statement in ast.parse(cell).body:
            used = FOREIGN & (imports(statement) | {n.id for n in ast.walk(statement) if isinstance(n, ast.Name)})
            if used:
                (name,) = used
                assert isinstance(statement, ast.If) and ast.unparse(statement.test) == f"available('{name}')"
            seen |= used
    assert seen == FOREIGN


def test_what_is_absent_is_said_in_one_line(capsys):
    scope: dict = {}
    functions = [n for cell in CELLS[1:] for n in ast.parse(cell).body if isinstance(n, ast.FunctionDef)]
    (available,) = [function for function in functions if function.name == "available"]
    exec("import importlib.util\n" + ast.unparse(available), scope)
    assert scope["available"]("torch") and capsys.readouterr().out == ""
    assert not scope["available"]("no_such_framework")
    assert capsys.readouterr().out.count("\n") == 1
