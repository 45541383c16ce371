"""Names of a room that load when they are first used: those that the stub beside its ``__init__.py`` lists."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType

import lazy_loader


class _Room(ModuleType):
    """A package whose modules never hide the function of the same name; lazy_loader sees to that from 0.6 on."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (isinstance(value, ModuleType) and name in self.__all__):
            super().__setattr__(name, value)


def attach(room: str, file: str) -> tuple[Callable[[str], object], Callable[[], list[str]], list[str]]:
    """``__getattr__, __dir__, __all__`` of the package ``room`` (its ``__name__``, its ``__file__``)."""
    found = lazy_loader.attach_stub(room, file)
    sys.modules[room].__class__ = _Room
    return found
