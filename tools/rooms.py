"""The rooms of the package, listed once: tests of the floors, API pages and CONTRIBUTING.md all use this list."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from tools import ROOT

PACKAGE = ROOT / "xai_course"


class Room(NamedTuple):
    """A module or folder directly below the package; it imports only from rooms on lower floors, and from itself."""

    name: str
    floor: int
    what: str

    @property
    def library(self) -> bool:
        """Whether others may import it without the course: typed strictly, every public name with an example."""
        return self.floor <= 5

    @property
    def module(self) -> ModuleType:
        return importlib.import_module(f"{PACKAGE.name}.{self.name}")

    def files(self) -> list[Path]:
        """Its source files; of a folder all of them, its ``__init__.py`` too."""
        folder = PACKAGE / self.name
        return sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]


ROOMS = (
    Room("data", 0, "What an image shows and where: data sets that all yield the same batch."),
    Room("preset", 0, "How long and how fast a run trains, where it stands, and the ramps that depend on it."),
    Room("identity", 1, "What decides a run, as plain data and as a hash of the source it runs through."),
    Room("nets", 1, "The networks of the papers, layer by layer as printed."),
    Room("maps", 2, "Class activation maps and Grad-CAM of any network, differentiable."),
    Room("measure", 3, "Numbers that judge maps and trained methods, and the statistics to compare them."),
    Room("methods", 4, "The losses of the papers and of their rivals."),
    Room("train", 5, "One loop that trains a method on one device or several and goes on where it was stopped."),
    Room("checks", 6, "The checks of the assignments' questions, on the student's side."),
    Room("show", 6, "Figures, pure functions of what they show, and the slider that moves them."),
    Room("colab", 6, "What the first cell of a notebook calls: device, profile and budget."),
    Room("runs", 7, "Experiments as data, their run records, and the tables made from these."),
    Room("cli", 8, "The command xai-course."),
)
FLOORS = {"_lazy": 0, **{room.name: room.floor for room in ROOMS}}  # every room stands on the first


def strangers(package: Path = PACKAGE) -> list[str]:
    """What lies directly below the package and is no room; private files and data are nobody's room."""
    found = {path.stem for path in package.iterdir() if path.suffix == ".py" or list(path.glob("*.py"))}
    return sorted(name for name in found - set(FLOORS) if not name.startswith("_"))


def order() -> str:
    """The floors from the top down in one line, as CONTRIBUTING.md says it."""
    floors = sorted({room.floor for room in ROOMS}, reverse=True)
    return " > ".join(", ".join(room.name for room in ROOMS if room.floor == floor) for floor in floors)
