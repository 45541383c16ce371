"""Verified downloads: a file is in the cache complete and with the right checksum, or it is not there.

Standard library only. Well-kept downloaders were weighed: pooch verifies but starts a broken download again from the
first byte, torchvision's helper writes straight to the final name; neither resumes. What is needed here is short.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import BinaryIO

from .files import Folder, cache_folder, course_file

BLOCK = 1 << 20
ATTEMPTS = 5
TIMEOUT = 30.0  # seconds without a byte before the connection counts as broken


class DataError(RuntimeError):
    """Data that cannot be had or cannot be trusted; the message says which, where, and what to do.

    Example:
        >>> fetch(Source("a/form.zip", instruction="Ask its owner."), cache="nowhere")
        Traceback (most recent call last):
        xai_course.data.fetch.DataError: a/form.zip is not here and cannot be downloaded by a program. Ask its owner.
    """


class _Broken(Exception):
    """The transfer stopped early; another attempt may continue it."""


@dataclass(frozen=True)
class Source:
    """One remote file of ``data/registry.json``.

    Attributes:
        name: key in the registry and path below the cache folder, such as ``MNIST/raw/train-labels-idx1-ubyte.gz``.
        urls: tried in this order; empty where the owner wants a form filled in first.
        md5, sha256: of the file, hex; at least one wherever there is a url.
        unpacked_md5: of the uncompressed content of a ``.gz``, where users often keep that instead.
        size: in bytes; no server is let send more. 0 unknown.
        licence: one sentence. instruction: where to get the file by hand and where to put it.

    Example:
        >>> Source("set/file.bin", ("https://example.org/file.bin",), sha256="ab12", size=70_000).licence
        ''
    """

    name: str
    urls: tuple[str, ...] = ()
    md5: str = ""
    sha256: str = ""
    unpacked_md5: str = ""
    size: int = 0
    licence: str = ""
    instruction: str = ""


@lru_cache(maxsize=1)
def registry() -> dict[str, Source]:
    """Every remote file the course knows, by name.

    Example:
        >>> registry()["MNIST/raw/t10k-labels-idx1-ubyte.gz"].size
        4542
    """
    rows = json.loads(course_file("registry.json").read_text(encoding="utf-8"))
    return {row["name"]: Source(**{**row, "urls": tuple(row.get("urls", ()))}) for row in rows}


def source(name: str) -> Source:
    """One entry of the registry.

    Raises:
        ValueError: an unknown name; the message lists the nearest ones.

    Example:
        >>> source("tiny-imagenet-200.zip").urls
        ('http://cs231n.stanford.edu/tiny-imagenet-200.zip',)
    """
    if name not in registry():
        from difflib import get_close_matches

        near = get_close_matches(name, registry(), n=3, cutoff=0.3)
        raise ValueError(f"name must be an entry of data/registry.json, nearest: {', '.join(near)}; got {name!r}")
    return registry()[name]


def fetch(
    name: str | Source,
    *,
    folders: Sequence[Folder] = (),
    cache: Folder | None = None,
    attempts: int = ATTEMPTS,
    wait: float = 1.0,
    timeout: float = TIMEOUT,
) -> Path:
    """Path of a complete, verified copy of a registered file; downloads it into the cache where there is none.

    A download grows under ``<name>.part``, survives a kill, is continued by HTTP Range, verified, and moved in place in
    one step. ``folders`` are only read, in place.

    Args:
        name: entry of the registry, or a :class:`Source`.
        folders: looked into first, for ``folder/name`` and ``folder/<file name>``.
        cache: folder of downloads; None: ``XAI_COURSE_CACHE`` or the user's cache folder.
        attempts: tries per address; the n-th waits ``wait * 2**(n - 1)`` seconds first.
        wait, timeout: in seconds.

    Raises:
        DataError: no network, a wrong checksum, a folder that cannot be written, a full disk.
        ValueError: an unknown name.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     mine = Path(folder, "note.txt")
        ...     _ = mine.write_text("whole")
        ...     fetch(Source("notes/note.txt", sha256=checksum(mine)), folders=[folder]) == mine
        True
    """
    item = name if isinstance(name, Source) else source(name)
    found = find(item, folders)
    if found is not None:
        return found
    target = Path(cache if cache is not None else cache_folder()).joinpath(*item.name.split("/"))
    if target.exists():
        return verify(target, item)
    if not item.urls:
        raise DataError(f"{item.name} is not here and cannot be downloaded by a program. {item.instruction}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(target.with_name(target.name + ".part")) as part:
            if not target.exists():  # another process may have finished it while we waited for the lock
                _download(item, part, target, attempts, wait, timeout)
    except OSError as error:
        raise DataError(_explain(error, item, target)) from error
    return target


def find(item: Source, folders: Sequence[Folder]) -> Path | None:
    """The first verified copy in the user's folders, or None where none holds the file.

    Raises:
        DataError: a folder holds the file with another checksum.

    Example:
        >>> find(source("tiny-imagenet-200.zip"), folders=["an empty folder"]) is None
        True
    """
    for folder in folders:
        for relative in (item.name, Path(item.name).name):
            if (path := Path(folder, relative)).is_file():
                return verify(path, item)
    return None


def verify(path: Path, item: Source) -> Path:
    """``path`` again, once its checksum is the registered one.

    Raises:
        DataError: it is not; the file stays where it is.

    Example:
        >>> verify(Path(__file__), Source("fetch.py", sha256=checksum(__file__))).name
        'fetch.py'
    """
    kind, expected = _expected(item)
    got = checksum(path, kind)
    if got != expected:
        raise DataError(
            f"{path} is damaged or another version: expected {kind} {expected}, got {got} ({path.stat().st_size:,} "
            f"bytes). Nothing was read from it. Delete the file and run again to get a fresh copy. {item.instruction}"
        )
    return path


def checksum(path: Folder, kind: str = "sha256") -> str:
    """Hex digest of a file, read in blocks.

    Example:
        >>> checksum(os.devnull, "md5")
        'd41d8cd98f00b204e9800998ecf8427e'
    """
    digest = hashlib.new(kind, usedforsecurity=False)
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _expected(item: Source) -> tuple[str, str]:
    if not (item.sha256 or item.md5):
        raise ValueError(f"{item.name} needs a sha256 or md5 in data/registry.json, got neither")
    return ("sha256", item.sha256) if item.sha256 else ("md5", item.md5)


def _download(item: Source, part: Path, target: Path, attempts: int, wait: float, timeout: float) -> None:
    """Fill ``part`` from the first address that gives the right bytes, then put it in place."""
    kind, expected = _expected(item)
    problems = []
    for url in item.urls:
        for attempt in range(attempts):
            time.sleep(wait * 2 ** (attempt - 1) if attempt else 0)
            resumed = part.stat().st_size > 0
            try:
                _transfer(url, part, item, timeout)
            except (_Broken, urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as error:
                problems.append(f"{url}: {error}")
                if isinstance(error, urllib.error.HTTPError) and error.code not in (408, 416, 429, 500, 502, 503, 504):
                    break  # asking again will not help
                continue
            got = checksum(part, kind)
            if got == expected:
                os.replace(part, target)
                return
            most = f" of {item.size:,} at most" if item.size else ""
            problems.append(f"{url}: expected {kind} {expected}, got {got} ({part.stat().st_size:,} bytes{most})")
            os.truncate(part, 0)  # never continue wrong bytes
            if not resumed:
                break  # a whole fresh answer was wrong: ask elsewhere
    raise DataError(
        f"{item.name} could not be downloaded:\n  " + "\n  ".join(dict.fromkeys(problems)) + "\nNothing was used. "
        f"Check the network and run again (a broken download continues where it stopped), or: {item.instruction}"
    )


def _transfer(url: str, part: Path, item: Source, timeout: float) -> None:
    """One connection: append what is missing to ``part``."""
    have = part.stat().st_size
    request = urllib.request.Request(url, headers={"User-Agent": "xai-course", "Accept-Encoding": "identity"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        answer = urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # the part is as long as the file or longer: start afresh
            os.truncate(part, 0)
        raise
    with answer, part.open("r+b") as file:
        continued = answer.status == 206 and answer.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        have = have if continued else 0
        file.truncate(have)
        file.seek(have)
        length = answer.headers.get("Content-Length", "")
        total = have + int(length) if length.isdecimal() else None
        _copy(answer, file, item, have, total)
        if total is not None and file.tell() < total and not _too_long(file, item):
            raise _Broken(f"the connection closed after {file.tell():,} of {total:,} bytes")


def _too_long(file: BinaryIO, item: Source) -> bool:
    """More than the registered size: no use in reading on, the checksum cannot be right."""
    return 0 < item.size < file.tell()


def _copy(answer: HTTPResponse, file: BinaryIO, item: Source, have: int, total: int | None) -> None:
    from tqdm.auto import tqdm

    # disable=None: no bar where stderr is no terminal (pages, logs)
    with tqdm(desc=item.name, initial=have, total=total, unit="B", unit_scale=True, disable=None) as bar:
        while not _too_long(file, item) and (block := answer.read1(BLOCK)):  # what has come, so that little is lost
            file.write(block)
            bar.update(len(block))
    file.flush()
    os.fsync(file.fileno())


@contextlib.contextmanager
def _locked(part: Path) -> Iterator[Path]:
    """The empty or unfinished ``part``, held by this process alone (where the system has file locks)."""
    with part.open("ab") as file:
        with contextlib.suppress(ImportError):
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        part.touch()  # the one we waited for may have moved it away
        try:
            yield part
        finally:
            with contextlib.suppress(OSError):
                if part.stat().st_size == 0:
                    part.unlink()


def _explain(error: OSError, item: Source, target: Path) -> str:
    folder = target.parent
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        need = f"{item.size / 1e6:,.0f} MB" if item.size else "more space"
        return (
            f"the disk of {folder} is full: {item.name} needs {need}. Free some space, or set XAI_COURSE_CACHE to a "
            "folder on another disk, and run again; nothing incomplete is used."
        )
    return (
        f"cannot write {item.name} to the cache folder {folder} ({error.strerror or error}). Set XAI_COURSE_CACHE to a "
        "folder you may write to, and run again."
    )
