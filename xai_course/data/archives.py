"""A folder or a zip archive of the user's, read by relative paths; whatever is wrong with it becomes one message."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from .fetch import DataError, source
from .files import Folder, Root
from .vision import folders

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".tif", ".tiff", ".webp")
LARGEST = 1 << 30  # bytes of one unpacked file; the largest of the papers' sets has a third of it


class Archive:
    """A folder or a zip archive, read by relative paths.

    Args:
        path: of the folder or of the ``.zip`` file.
        key: entry of ``data/registry.json`` that says where the data come from and under which licence.
        layout: the files expected below ``path``, for the error message.

    Example:
        >>> here = Archive(Path(__file__).parent, "GlaS", "Python files")
        >>> here.has("archives.py"), here.lines("archives.py")[1]
        (True, 'from __future__ import annotations')
    """

    def __init__(self, path: Folder, key: str, layout: str):
        self.path, self.key, self.layout = Path(path), key, layout
        self._zip: zipfile.ZipFile | None = None
        self._process = 0

    def open(self, name: str) -> BinaryIO:
        """The file as a binary stream.

        Raises:
            DataError: it is missing, damaged, encrypted, or would unpack to more than ``LARGEST`` bytes.
        """
        try:
            if not self.path.is_file():
                return (self.path / name).open("rb")
            if (large := self._archive().getinfo(name).file_size) > LARGEST:
                raise ValueError(f"it would unpack to {large:,} bytes")
            return io.BytesIO(self._archive().read(name))
        except Exception as error:  # zipfile passes on what its decoders say: a dozen kinds
            raise self.missing(name, f"is missing or damaged ({error})") from error

    def lines(self, name: str) -> list[str]:
        """Non-empty lines of a text file."""
        with self.open(name) as file:
            content = file.read()
        try:
            return [line for line in content.decode("utf-8-sig").splitlines() if line.strip()]
        except UnicodeDecodeError as error:
            raise self.missing(name, f"is no text in UTF-8 ({error})") from error

    def files(self, folder: str) -> list[str]:
        """Sorted relative paths of all files below ``folder``.

        Raises:
            DataError: the folder is missing or empty.
        """
        if self.path.is_file():
            names = [n for n in self._archive().namelist() if n.startswith(f"{folder}/") and not n.endswith("/")]
        else:
            names = [p.relative_to(self.path).as_posix() for p in (self.path / folder).rglob("*") if p.is_file()]
        if not names:
            raise self.missing(f"{folder}/", "is missing or empty")
        return sorted(names)

    def images(self, folder: str) -> list[str]:
        """Those of :meth:`files` that are images."""
        return [name for name in self.files(folder) if PurePosixPath(name).suffix.lower() in IMAGE_ENDINGS]

    def has(self, name: str) -> bool:
        """Whether a file, or a folder with a file in it, is there."""
        if self.path.is_file():
            return any(n == name or n.startswith(f"{name}/") for n in self._archive().namelist())
        return (self.path / name).exists()

    def missing(self, name: str, problem: str) -> DataError:
        """One message: which file, which layout, where from, under which licence."""
        origin = source(self.key)
        return DataError(
            f"{self.path / name} {problem}. Expected below {self.path}: {self.layout}. {origin.instruction} "
            f"Licence: {origin.licence}"
        )

    def _archive(self) -> zipfile.ZipFile:
        if self._zip is None or self._process != os.getpid():  # a forked worker must not share the file position
            try:
                self._zip, self._process = zipfile.ZipFile(self.path), os.getpid()
            except Exception as error:
                raise self.missing("", f"is no whole zip archive ({error})") from error
        return self._zip

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_zip": None}


def archive(root: Root, candidates: Sequence[str], key: str, layout: str, marks: Sequence[str]) -> Archive:
    """The first of the user's folders, or of ``candidates`` inside them, that holds one of ``marks``.

    Raises:
        DataError: none does; the message lists where it looked, the layout, the origin and the licence.

    Example:
        >>> found = archive(Path(__file__).parents[1], ("data",), "GlaS", "Python files", ["archives.py"])
        >>> found.path.name
        'data'
    """
    places = [folder / below if below else folder for folder in folders(root) for below in ("", *candidates)]
    if root is None and not places:
        places = [Path(candidates[0] if candidates else key)]
    for place in places:
        found = Archive(place, key, layout)
        if (place.is_dir() or (place.suffix == ".zip" and place.exists())) and any(map(found.has, marks)):
            return found
    where = ", ".join(map(str, places))
    raise Archive(places[0], key, layout).missing(marks[0], f"was not found (root or XAI_COURSE_DATA: {where})")
