"""Files that are whole or absent: nothing half-written stays behind a crash or a full disk."""

from __future__ import annotations

import contextlib
import glob
import io
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

Folder = str | os.PathLike[str]
Root = Folder | None  # of data sets; None: the folders that ``XAI_COURSE_DATA`` names


def write_atomically(
    path: Folder, write: Callable[[BinaryIO], object], cure: str = "make room or go elsewhere"
) -> Path:
    """Let ``write`` fill a temporary file beside ``path``, flush it to the disk, then put it in place in one step.

    What an earlier writer of the same path left when it was killed is removed.

    Raises:
        OSError: the folder cannot be written or the disk is full; the message names it and ends with ``cure``. An
            earlier file at ``path`` is untouched.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = write_atomically(Path(folder, "deep", "note.txt"), lambda file: file.write(b"whole"))
        ...     path.read_text(), os.listdir(path.parent)
        ('whole', ['note.txt'])
    """
    path = Path(path)
    try:
        return _replace(path, write)
    except OSError as error:
        what = f"{path.name} cannot be written to {path.parent} ({error.strerror or error}): {cure}"
        raise OSError(error.errno, what) from error


def _replace(path: Path, write: Callable[[BinaryIO], object]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{glob.escape(path.name)}.*"):
        with contextlib.suppress(OSError), left.open("rb") as file:
            if left.stat().st_size and _held(file):  # empty: its writer may be about to hold it
                left.unlink()
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            _held(file)
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):  # what went wrong first is what is told
            os.unlink(temporary)
        raise
    return path


def _held(file: BinaryIO) -> bool:
    """Whether this process now holds the file; False while another does, and where the system has no file locks."""
    with contextlib.suppress(ImportError, OSError):
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


@contextlib.contextmanager
def locked(folder: Folder, waiting: str = "") -> Iterator[None]:
    """Hold a folder against other processes that ask for it in this way; no file marks it, a killed holder lets go.

    Where the system or the disk has no locks, nothing is held.

    Args:
        folder: made where it is not there.
        waiting: what to say on stderr while another process holds it.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder, locked(folder):
        ...     os.listdir(folder)
        []
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    handle = -1
    with contextlib.suppress(ImportError, OSError):
        import fcntl

        handle = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if waiting:
                print(waiting, file=sys.stderr, flush=True)
            fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        yield
    finally:
        if handle >= 0:
            os.close(handle)


def save_whole(path: Path, state: object, cure: str) -> Path:
    """`torch.save`, whole or not at all. Serialised first: torch's own writer hides a full disk in a RuntimeError.

    Raises:
        OSError: it cannot be written; the message names the folder and ends with ``cure``. The earlier file stays.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_whole(Path(folder, "state.pt"), {"step": 3}, "make room").name
        'state.pt'
    """
    import torch

    memory = io.BytesIO()
    torch.save(state, memory)
    return write_atomically(path, lambda file: file.write(memory.getbuffer()), cure)


def course_file(*parts: str) -> Path:
    """A file of the repository's ``data`` folder, from a checkout or from an installed package.

    Example:
        >>> course_file("registry.json").exists()
        True
    """
    packaged = Path(__file__).parents[1] / "_data"
    return (packaged if packaged.is_dir() else Path(__file__).parents[2] / "data").joinpath(*parts)


def cache_folder() -> Path:
    """Where downloads and unfinished runs live, outside git: ``XAI_COURSE_CACHE``, else the user's cache folder.

    Example:
        >>> cache_folder() == Path(os.environ.get("XAI_COURSE_CACHE", cache_folder()))
        True
    """
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "xai-course"
    return Path(os.environ.get("XAI_COURSE_CACHE") or default)
