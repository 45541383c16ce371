"""The library's pages, written from the package itself: an index with the rooms as they stand, and a page per room.

A room's page lists its public names with their first sentences, then documents every public module.
"""

from __future__ import annotations

import importlib
import inspect
import re
from functools import cache
from html import escape
from itertools import groupby
from types import ModuleType

from tools.rooms import PACKAGE, ROOMS, Room

LINES = {
    True: "The library: import any of it without what stands above.",
    False: "The course: what the notebooks, the tables and the command line need.",
}


def markdown(name: str = "") -> str:
    """The page of one room, or the index without a name.

    Raises:
        ValueError: an unknown room.
    """
    if not name:
        return index()
    found = [room for room in ROOMS if room.name == name]
    if not found:
        raise ValueError(f"rooms are {', '.join(room.name for room in ROOMS)}, got {name!r}")
    parts = modules(found[0])
    return "\n\n".join([found[0].what, names(found[0]), *(section(part, heading=len(parts) > 1) for part in parts)])


def index() -> str:
    """The house, top floor first, with the line between course and library; then the names at the front door."""
    lines, part = ['<div class="house">'], None
    for floor, rooms in groupby(reversed(ROOMS), key=lambda room: room.floor):
        rooms = sorted(rooms, key=ROOMS.index)
        if rooms[0].library != part:
            part = rooms[0].library
            lines.append(f'<p class="house-{"library" if part else "course"}">{LINES[part]}</p>')
        doors = [f'<a href="api/{r.name}.html"><b>{r.name}</b> {escape(r.what)}</a>' for r in rooms]
        lines.append(f'<div class="house-floor" aria-label="floor {floor}">{"".join(doors)}</div>')
    front = importlib.import_module(PACKAGE.name)
    rooms = {room.name for room in ROOMS}
    offered = sorted(name for name in getattr(front, "__all__", ()) if name not in rooms)
    door = [
        "## The front door",
        f"`from {PACKAGE.name} import ...` offers without a room's name:",
        rows(front, offered),
    ]
    return "\n\n".join(["\n".join([*lines, "</div>"]), *(door if offered else ())])


def modules(room: Room) -> list[str]:
    """Dotted names of the room's public modules."""
    found = [path.relative_to(PACKAGE).with_suffix("").parts for path in room.files()]
    names = [".".join(parts) for parts in found if not any(part.startswith("_") for part in parts)]
    return [f"{PACKAGE.name}.{name}" for name in names]


def names(room: Room) -> str:
    """The room's public names: its ``__all__``; where it has none, what its modules define."""
    listed = getattr(room.module, "__all__", None)
    if listed is not None:
        return rows(room.module, sorted(listed, key=str.lower))
    parts = [importlib.import_module(name) for name in modules(room)]
    return "\n".join(rows(part, defined(part)) for part in parts if defined(part))


def defined(module: ModuleType) -> list[str]:
    """Public functions and classes that a module itself defines, in its order."""
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isfunction(value) or inspect.isclass(value))
        and value.__module__ == module.__name__
    ]


def rows(module: ModuleType, listed: list[str]) -> str:
    """A definition list of names, each linked to its description where that stands on a page."""
    return "\n".join(
        f"- {link(name, getattr(module, name))} {first_sentence(getattr(module, name))}" for name in listed
    )


def link(name: str, value: object) -> str:
    """A reference to where the value is documented; plain code for constants, and where it is documented nowhere."""
    home = value.__name__ if inspect.ismodule(value) else getattr(value, "__module__", None) or ""
    here = home.startswith(f"{PACKAGE.name}.")
    if not here or not first_sentence(value):
        return f"`{name}`"
    if inspect.isclass(value) or inspect.isroutine(value):
        return f"{{py:obj}}`{name} <{home}.{value.__qualname__}>`"
    return f"{{py:mod}}`{name} <{home}>`" if inspect.ismodule(value) and home in documented() else f"`{name}`"


@cache
def documented() -> list[str]:
    """All modules with a place on some page."""
    return [name for room in ROOMS for name in modules(room)]


def first_sentence(value: object) -> str:
    """Of its docstring, in Markdown; '' where it has none of its own."""
    text = (inspect.getdoc(value) or "").split("\n\n")[0]
    own = type(value).__doc__ != value.__doc__ if hasattr(value, "__doc__") else False
    if not own or (inspect.isclass(value) and text.startswith(f"{value.__name__}(")):  # what dataclass makes
        return ""
    text = re.sub(r":math:`([^`]+)`", r"$\1$", " ".join(text.split()))
    text = re.sub(r":\w+(?::\w+)?:`~?([^`]+)`", r"`\1`", text).replace("``", "`")
    return re.split(r"(?<=\.) (?=[A-Z`\"'(])", text)[0]


def section(module: str, *, heading: bool) -> str:
    described = f"```{{eval-rst}}\n.. automodule:: {module}\n   :members:\n```\n"
    return f"## `{module}`\n\n{described}" if heading else described
