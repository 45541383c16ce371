"""Every room says what it offers, and every public function and criterion of the library shows it by an example."""

from __future__ import annotations

import importlib
import inspect
import re

import pytest
from torch import nn

from tools import api, rooms

DOWNLOADS = "its files must be downloaded"
# Public names without an example, and why. Not to grow.
WITHOUT: dict[str, str] = {"mnist": DOWNLOADS, "fashion_mnist": DOWNLOADS}


def public(room: rooms.Room) -> dict[str, object]:
    """Functions and criteria that the room offers, by name: of its ``__all__``, or of its modules where it has none."""
    names = getattr(room.module, "__all__", None)
    if names is None:
        modules = [importlib.import_module(name) for name in api.modules(room)]
        found = {name: getattr(module, name) for module in modules for name in api.defined(module)}
    else:
        found = {name: getattr(room.module, name) for name in names}
    return {
        n: v for n, v in found.items() if inspect.isfunction(v) or (inspect.isclass(v) and issubclass(v, nn.Module))
    }


@pytest.mark.parametrize("room", rooms.ROOMS, ids=lambda room: room.name)
def test_every_room_lists_its_public_names(room):
    names = getattr(room.module, "__all__", None)
    assert names and len(names) == len(set(names)) and set(names) <= set(dir(room.module))
    assert all(hasattr(room.module, name) for name in names)


@pytest.mark.parametrize("room", [r for r in rooms.ROOMS if r.library], ids=lambda room: room.name)
def test_every_public_function_and_criterion_has_an_example(room):
    without = {name for name, value in public(room).items() if ">>>" not in (inspect.getdoc(value) or "")}
    assert without == set(WITHOUT) & set(public(room))


def test_no_example_is_skipped():
    skipped = [
        path for path in rooms.PACKAGE.rglob("*.py") if re.search(r"#\s*doctest:.*SKIP", path.read_text("utf-8"))
    ]
    assert skipped == []
