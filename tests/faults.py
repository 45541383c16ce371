"""A layer of faults under everything that writes: it counts system calls, and makes a chosen one fail or kills there.

Files opened for writing through ``os.fdopen`` get a raw stream of ours below Python's own buffer, so that a short or
interrupted write is finished, or not, by what finishes it in real life.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

CALLS = ("mkdir", "open", "fsync", "chmod", "replace", "rename", "unlink")  # and "write"
FAULTS = {"full": errno.ENOSPC, "broken": errno.EIO, "interrupted": errno.EINTR, "read-only": errno.EROFS}
KINDS = (*FAULTS, "short", "kill", "vanish")


class Layer:
    """Counts the calls made so far; the one with number ``at`` meets the fault ``kind``."""

    def __init__(self, folder: Path, at: int = -1, kind: str = ""):
        self.folder, self.at, self.kind = str(folder), at, kind
        self.calls: list[str] = []

    def watched(self, arguments: tuple) -> bool:
        return not arguments or isinstance(arguments[0], int) or str(arguments[0]).startswith(self.folder)

    def meet(self, name: str) -> bool:
        """True where a write must be cut short."""
        self.calls.append(name)
        if len(self.calls) - 1 != self.at:
            return False
        if self.kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.kind == "vanish":
            import shutil

            shutil.rmtree(self.folder)
        if self.kind in FAULTS:
            raise OSError(FAULTS[self.kind], os.strerror(FAULTS[self.kind]))
        return self.kind == "short"


class Raw(io.FileIO):
    """A raw file whose writes are counted; a short one takes half."""

    layer: Layer

    def write(self, data) -> int | None:
        half = self.layer.meet("write")
        return super().write(memoryview(data)[: max(1, len(data) // 2)] if half else data)


@contextlib.contextmanager
def faults(folder: Path, at: int = -1, kind: str = "") -> Iterator[Layer]:
    """Within, every write call below ``folder`` goes through a layer."""
    layer, real = Layer(folder, at, kind), {name: getattr(os, name) for name in CALLS}
    fdopen = os.fdopen

    def through(name: str) -> Callable:
        def call(*arguments, **options):
            reads = name == "open" and not arguments[1] & (os.O_WRONLY | os.O_RDWR)
            if layer.watched(arguments) and not reads:
                layer.meet(name)
            return real[name](*arguments, **options)

        return call

    def opened(handle, mode="r", *arguments, **options):
        if "w" not in mode or "b" not in mode:
            return fdopen(handle, mode, *arguments, **options)
        raw = Raw(handle, mode)
        raw.layer = layer
        return io.BufferedWriter(raw)

    for name in CALLS:
        setattr(os, name, through(name))
    os.fdopen = opened
    try:
        yield layer
    finally:
        os.fdopen = fdopen
        for name in CALLS:
            setattr(os, name, real[name])


def in_child(act: Callable[[], object], seconds: float = 60.0) -> int:
    """Run ``act`` in a forked child; its exit status, negative for a signal. 1 where it raised."""
    import threading

    child = os.fork()
    if child == 0:
        status = 1
        try:
            act()
            status = 0
        finally:
            os._exit(status)
    watch = threading.Timer(seconds, os.kill, (child, signal.SIGKILL))
    watch.start()
    try:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    finally:
        watch.cancel()
