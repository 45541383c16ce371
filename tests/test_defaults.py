"""Every default of the library is written down in `tests/defaults.txt`: a changed one shows in a diff.

``python -m tests.test_defaults`` writes the list anew.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import pytest

LISTED = Path(__file__).with_name("defaults.txt")
MODULES = ("data", "identity", "maps", "measure", "methods", "nets", "preset", "train")
PLAIN = (bool, int, float, str, tuple, type(None))


def modules(name: str) -> Iterator[str]:
    yield name
    for found in pkgutil.walk_packages(getattr(importlib.import_module(name), "__path__", ()), f"{name}."):
        yield found.name


def defaults(name: str) -> Iterator[str]:
    """Lines such as ``xai_course.methods.hnc.HNC(balance=0.1)`` of the public functions, classes and methods."""
    module = importlib.import_module(name)
    for key, value in sorted(vars(module).items()):
        if key.startswith("_") or getattr(value, "__module__", "") != name:
            continue
        owned = [(key, value)]
        if inspect.isclass(value):
            own = vars(value).items()
            owned += [(f"{key}.{k}", v) for k, v in own if inspect.isfunction(v) and not k.startswith("_")]
            held = [(k, v) for k, v in own if isinstance(v, (bool, int, float)) and not k.startswith("_")]
            yield from (f"{name}.{key}.{k} = {v!r}" for k, v in held)
        for at, function in owned:
            try:
                parameters = inspect.signature(function).parameters.values() if callable(function) else ()
            except ValueError:  # a class of C without a signature
                continue
            given = [(p.name, p.default) for p in parameters if p.default is not p.empty]
            yield from (f"{name}.{at}({k}={v!r})" for k, v in given if isinstance(v, PLAIN))


def found(room: str) -> list[str]:
    lines = {line for module in modules(f"xai_course.{room}") for line in defaults(module)}
    return sorted(lines)


@pytest.mark.parametrize("room", MODULES)
def test_no_default_changes_unseen(room):
    listed = [line for line in LISTED.read_text("utf-8").splitlines() if line.split(".")[1].split("(")[0] == room]
    assert found(room) == listed, "a wanted change: python -m tests.test_defaults"


if __name__ == "__main__":
    LISTED.write_text("".join(f"{line}\n" for room in MODULES for line in found(room)), "utf-8")
