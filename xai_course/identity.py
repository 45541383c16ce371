"""What decides a run, as plain data: the identity of any value, and a hash of the code that a call goes through.

Checkpoints, cached seeds, labs and records name a run by these two, so that one rule says when a result is used again.
"""

import ast
import functools
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .data.batch import fingerprint

__all__ = ["code_of", "identity", "imported", "sources"]

HERE = Path(__file__).parent


def identity(value: object) -> object:
    """``value`` as plain data: functions and classes by name, tensors by content, objects by class and attributes.

    A partial function, a data class and a module each become a dictionary: what is called, and with what.

    Example:
        >>> identity(functools.partial(nn.Linear, 3, bias=False))
        {'call': 'torch.nn.modules.linear.Linear', '0': 3, 'bias': False}

    Raises:
        ValueError: something has no lasting name: code of a notebook, a lambda or local function, an object that is
            known by its address only.
    """
    if value is None or isinstance(value, (str, int, float)):
        return value
    if isinstance(value, functools.partial):
        given = {str(i): argument for i, argument in enumerate(value.args)} | value.keywords
        return {"call": identity(value.func), **{name: identity(argument) for name, argument in given.items()}}
    if isinstance(value, Tensor):
        content = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        return [list(value.shape), str(value.dtype), value.requires_grad, fingerprint(content)]
    if isinstance(value, Mapping):
        return {str(name): identity(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [identity(inner) for inner in value]
    if isinstance(value, (set, frozenset)):
        return sorted(repr(identity(inner)) for inner in value)
    named = callable(value) and hasattr(value, "__qualname__")
    home: Any = value if named else type(value)
    name = f"{home.__module__}.{home.__qualname__}"
    if home.__module__ == "__main__":
        raise ValueError(f"{home.__qualname__} is written in this notebook, so no name tells when it changes")
    if "<" in name:
        raise ValueError(f"experiments are data: name {name} at module level, or use functools.partial")
    if named:
        return name
    if isinstance(value, nn.Module) or is_dataclass(value):
        return {"call": name, **{key: identity(inner) for key, inner in vars(value).items()}}
    text = repr(value)
    if " at 0x" in text or "..." in text:  # an address, or an array's shortened text
        raise ValueError(f"a {home.__qualname__} has no lasting name")
    return text


def code_of(*values: object) -> str:
    """Hash of what runs in the `sources` of all ``values``: changes with any statement there, not with its wording.

    Docstrings, comments, layout and the annotations of functions leave it as it is.

    Example:
        >>> from xai_course.methods.amc import AmcLoss
        >>> from xai_course.methods.hnc import HNC
        >>> code_of(AmcLoss) == code_of(AmcLoss), code_of(AmcLoss) == code_of(HNC)
        (True, False)
    """
    return fingerprint(*(_what_runs(path.read_bytes()) for path in sources(*values)))


class _Bare(ast.NodeTransformer):
    """Without docstrings and what only type checkers read."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if text else self.generic_visit(node)

    def generic_visit(self, node: ast.AST) -> ast.AST:
        if isinstance(node, ast.arg):
            node.annotation = None
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            node.returns = None
        return super().generic_visit(node)


@functools.cache
def _what_runs(source: bytes) -> str:
    return fingerprint(ast.dump(_Bare().visit(ast.parse(source))))


def sources(*values: object) -> list[Path]:
    """The files of every function, class and module in ``values``, and what these import from this package.

    Example:
        >>> from xai_course.methods.amc import AmcLoss
        >>> {"amc.py", "pairs.py", "preset.py"} <= {path.name for path in sources(AmcLoss)}
        True
    """
    files = {Path(file) for each in _called(values) if (file := _file(each))}
    waiting = list(files)
    while waiting:
        found = imported(waiting.pop()) - files
        files |= found
        waiting += found
    return sorted(files)


def _called(value: object) -> Iterator[object]:
    if isinstance(value, functools.partial):
        yield from _called([value.func, *value.args, *value.keywords.values()])
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _called(inner)
    elif isinstance(value, nn.Module):
        yield from {type(part) for part in value.modules()}
    elif callable(value):
        yield inspect.unwrap(value)  # a decorator's file decides nothing


def _file(call: object) -> str | None:
    try:
        return inspect.getsourcefile(call)  # type: ignore[arg-type]
    except TypeError:  # written in C
        return None


@functools.cache
def imported(path: Path) -> frozenset[Path]:
    """The files of this package that a source file of it imports, anywhere but for type checkers alone."""
    if not path.is_relative_to(HERE):
        return frozenset()
    found: set[Path] = set()
    for node in _running(ast.parse(path.read_text("utf-8"))):
        names = [a.name for a in node.names] if isinstance(node, (ast.Import, ast.ImportFrom)) else []
        if isinstance(node, ast.ImportFrom):
            start = path.parents[node.level - 1] if node.level else HERE.parent
            stem = start.joinpath(*(node.module or "").split("."))
            places = [stem, *(stem / name for name in names)]
        else:
            places = [HERE.parent.joinpath(*name.split(".")) for name in names]
        room = ("__init__.py", "__init__.pyi")  # the stub says where a room's names come from
        found |= {file for place in places for file in (place.with_suffix(".py"), *(place / name for name in room))}
    return frozenset(f for f in found if f.is_relative_to(HERE) and f.is_file())


def _running(node: ast.AST) -> Iterator[ast.AST]:
    yield node
    if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)):
        for child in ast.iter_child_nodes(node):
            yield from _running(child)
