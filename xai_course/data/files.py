"""Files that are whole or absent: nothing half-written stays behind a crash or a full disk."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO


def write_atomically(path: str | os.PathLike, write: Callable[[BinaryIO], object]) -> Path:
    """Let ``write`` fill a temporary file beside ``path``, flush it to the disk, then put it in place in one step.

    Raises:
        OSError: the folder cannot be written or the disk is full; an earlier file at ``path`` is untouched.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    return path


def course_file(*parts: str) -> Path:
    """A file of the repository's ``data`` folder, from a checkout or from an installed package."""
    packaged = Path(__file__).parents[1] / "_data"
    return (packaged if packaged.is_dir() else Path(__file__).parents[2] / "data").joinpath(*parts)


def cache_folder() -> Path:
    """Where downloads and unfinished runs live, outside git: ``XAI_COURSE_CACHE``, else the user's cache folder."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "xai-course"
    return Path(os.environ.get("XAI_COURSE_CACHE") or default)
