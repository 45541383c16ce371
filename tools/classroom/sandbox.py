"""Run a stranger's code: no network, no view of the home folder or the solutions, bounded time, memory and processes.

The host starts ``runner.py`` inside bubblewrap and talks with it in lines of JSON. All that comes back are numbers and
short texts, which decide nothing by themselves: they are compared outside.
"""

from __future__ import annotations

import ast
import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import xai_course
from xai_course.data.files import course_file

_MB = 2**20
RUNNER = Path(__file__).with_name("runner.py").resolve()
STARTS = 6  # of one submission: each cell or answer that ends the program costs one


@dataclass(frozen=True)
class Limits:
    """Per submission: wall time in seconds for all, for one cell and for one question; memory, files and replies in
    MB; number of processes."""

    seconds: float = 600
    cell_seconds: float = 60
    question_seconds: float = 60
    memory_mb: float = 4000
    files_mb: float = 128
    output_mb: float = 20
    processes: int = 64


def bubblewrap() -> str:
    """Path of bwrap.

    Raises:
        RuntimeError: it is not installed.
    """
    found = shutil.which("bwrap")
    if found is None:
        raise RuntimeError(
            "bubblewrap (bwrap) is not installed, and without it a submission could read and change this machine: "
            "install it (Debian and Ubuntu: apt-get install bubblewrap), or pass --no-sandbox to accept the risk"
        )
    return found


class Sandbox:
    """The cells of one submission, run when the first order comes, and again without what ended the program,
    but for its definitions.

    Use as a context. ``faults`` holds what a cell raised, by its place; ``stopped`` which cells ended the program.

    Args:
        cells: the sources.
        limits: what they may use.
        walls: False runs them with the rights of the caller.
    """

    def __init__(self, cells: list[str], limits: Limits, *, walls: bool = True):
        self.cells, self.limits, self.walls = list(cells), limits, walls
        self.faults: dict[int, str] = {}
        self.stopped: dict[int, str] = {}
        self.left: dict[int, str] = {}
        self.process: subprocess.Popen | None = None
        self.starts, self.began = 0, time.monotonic()
        self.folder = tempfile.TemporaryDirectory(prefix="xai-course-", ignore_cleanup_errors=True)

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_) -> None:
        self._kill()
        self.folder.cleanup()

    def ask(self, **order) -> dict:
        """The runner's reply; ``{"raised": why}`` where there is none.

        Raises:
            RuntimeError: the runner does not start: the machine's fault, not the submission's.
        """
        while self.process is None:
            if self.starts == STARTS or self._left() <= 0:
                spent = f"took longer than {self.limits.seconds:g} s" if self._left() <= 0 else "ended again and again"
                return {"raised": f"the notebook {spent}"}
            self._start()
        order = {"seconds": self.limits.question_seconds, "bytes": int(self.limits.output_mb * _MB), **order}
        self._send(order)
        answer = self._hear(lambda line: line.get("order") == order["order"], self.limits.question_seconds + 10)
        if isinstance(answer, str):
            self._kill()
            return {"raised": answer}
        return answer

    def _interpreter(self) -> subprocess.Popen:
        """The runner, waiting for its first line."""
        command, environment = [sys.executable, "-P", str(RUNNER)], {**os.environ, **_quiet(self.folder.name)}
        if self.walls:
            command, environment = [*_scope(self.limits), *_walls(bubblewrap(), self.limits), *command], dict(_bus())
        return subprocess.Popen(
            command,
            cwd="/" if self.walls else self.folder.name,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def _start(self) -> None:
        self.starts += 1
        self.process = self._interpreter()
        self.lines: queue.Queue[bytes | None] = queue.Queue()
        self.errors = bytearray()
        threading.Thread(target=self._listen, args=(self.process, self.lines, self.errors), daemon=True).start()
        threading.Thread(target=_keep, args=(self.process.stderr, self.errors), daemon=True).start()
        cells = [self.left[at] if at in self.stopped else source for at, source in enumerate(self.cells)]
        memory = int(self.limits.memory_mb * _MB)
        self._send({"cells": cells, "seconds": self.limits.cell_seconds, "memory": memory})
        if isinstance(self._hear(lambda line: line.get("started"), 120), str):
            said = self.errors.decode(errors="replace").strip()[-500:]
            self._kill()
            raise RuntimeError(f"the runner of submissions did not start: {said}")
        self._cells()

    def _cells(self) -> None:
        """Wait for every cell; one that ends the program is left out the next time."""
        at = 0
        while at < len(self.cells):
            wanted = lambda line, at=at: line.get("cell") == at  # noqa: E731
            heard = self._hear(wanted, self.limits.cell_seconds + 10)
            fault = heard if isinstance(heard, str) else str(heard.get("fault", ""))[:300]
            fault = fault.replace(f"(cell {at}, line", "(line")  # its number here is not the notebook's
            if fault.startswith("MemoryError"):  # what it holds would starve the cells that follow
                heard = fault = f"used more than {self.limits.memory_mb:g} MB of memory"
            if isinstance(heard, str):
                self.left[at] = "pass" if at in self.stopped else _definitions(self.cells[at])
                self.stopped.setdefault(at, fault)
                return self._kill()
            self.faults[at] = fault
            at += 1
        return None

    def _send(self, content: dict) -> None:
        def feed(stream, data):
            with suppress(OSError, ValueError):  # it ended before it had read everything
                stream.write(data)
                stream.flush()

        data = json.dumps(content).encode() + b"\n"
        thread = threading.Thread(target=feed, args=(self.process.stdin, data), daemon=True)
        thread.start()
        thread.join(0.2 if len(data) < 60_000 else 5)

    def _listen(self, process, lines: queue.Queue, errors: bytearray) -> None:
        """Lines of the runner, none longer than the limit; None at the end."""
        most, total = int(self.limits.output_mb * _MB), 0
        while (line := process.stdout.readline(most)) and total < 4 * most:
            total += len(line)
            lines.put(line)
        lines.put(None)

    def _hear(self, wanted, seconds: float) -> dict | str:
        """The first wanted line, or why there is none; other lines are passed over."""
        until = time.monotonic() + min(seconds, max(self._left(), 0))
        while time.monotonic() < until:
            try:  # what was said before anything was exceeded comes first, so that no earlier cell is blamed
                line = self.lines.get(timeout=0.1)
            except queue.Empty:
                if over := _over(self.process.pid, self.limits):
                    return over
                continue
            if line is None:
                return "ended the program"
            with suppress(ValueError, RecursionError):
                content = json.loads(line)
                if isinstance(content, dict) and wanted(content):
                    return content
        return f"took longer than {min(seconds - 10, self.limits.seconds):g} s"

    def _left(self) -> float:
        return self.limits.seconds - (time.monotonic() - self.began)

    def _kill(self) -> None:
        if self.process is not None:
            _end(self.process)
            self.process = None


def _definitions(source: str) -> str:
    """What runs again of a cell that ended the program: its functions, classes and imports."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)
    try:
        return "\n".join(ast.unparse(node) for node in ast.parse(source).body if isinstance(node, kinds))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return "pass"


def _keep(stream, store: bytearray) -> None:
    while chunk := stream.read1(4096):
        store += chunk[: max(0, 4096 - len(store))]


def _quiet(home: str) -> dict[str, str]:
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return {"HOME": home, "TMPDIR": home, "IPYTHONDIR": home, "MPLBACKEND": "Agg", **threads}


def _bus() -> list[tuple[str, str]]:
    """What systemd-run needs to find the user's manager."""
    names = ("XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS", "PATH")
    return [(name, os.environ[name]) for name in names if name in os.environ]


@cache
def _has_scopes() -> bool:
    """Whether this user may start something in a control group of its own."""
    if shutil.which("systemd-run") is None:
        return False
    test = ["systemd-run", "--user", "--scope", "-q", "-p", "MemoryMax=100M", "true"]
    with suppress(OSError, subprocess.TimeoutExpired):
        return subprocess.run(test, capture_output=True, timeout=10).returncode == 0
    return False


def _scope(limits: Limits) -> list[str]:
    """A control group that bounds memory and processes for all together, where there is one to be had."""
    if not _has_scopes():
        return []
    bounds = (f"MemoryMax={limits.memory_mb:g}M", "MemorySwapMax=0", f"TasksMax={limits.processes * 4}")
    return ["systemd-run", "--user", "--scope", "-q", *(part for bound in bounds for part in ("-p", bound)), "--"]


def _walls(bwrap: str, limits: Limits) -> list[str]:
    """Read-only system, interpreter, package without its solutions, and runner; no other file can be read.

    What can be written is /tmp and /dev/shm, each of bounded size.
    """
    package = Path(xai_course.__file__).resolve().parent
    system = ["/usr", "/lib", "/lib64", "/bin", "/etc/ld.so.cache", "/etc/passwd", "/etc/group", "/etc/fonts"]
    ours = [sys.prefix, sys.base_prefix, str(package), str(course_file().resolve()), str(RUNNER)]
    binds = [part for path in (*system, *ours) for part in ("--ro-bind-try", path, path)]
    solved = [package / name for name in ("methods", "maps", "measure", "runs")]
    hidden = [part for path in solved if path.is_dir() for part in ("--size", "4096", "--tmpfs", str(path))]
    size, home = str(int(limits.files_mb * _MB)), "/tmp/home"
    variables = {**_quiet(home), "PATH": f"{sys.prefix}/bin:/usr/bin:/bin", "PYTHONPATH": str(package.parent)}
    settings = [part for name, value in variables.items() for part in ("--setenv", name, value)]
    return [
        bwrap,
        *("--size", str(_MB), "--tmpfs", "/", "--size", size, "--tmpfs", "/tmp"),
        *binds,
        *hidden,
        *("--proc", "/proc", "--dev", "/dev"),
        *("--size", size, "--tmpfs", "/dev/shm", "--dir", home),
        *("--remount-ro", "/dev", "--remount-ro", "/"),
        *("--unshare-all", "--cap-drop", "ALL", "--die-with-parent", "--new-session", "--clearenv"),
        *settings,
        *("--chdir", home),
    ]


def _over(pid: int, limits: Limits) -> str:
    import psutil

    try:
        family = psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return ""
    if len(family) > limits.processes:
        return f"started more than {limits.processes} processes"
    memory = 0
    for member in family:
        try:
            memory += _memory(member)
        except psutil.Error:  # it has just ended
            continue
    return f"used more than {limits.memory_mb:g} MB of memory" if memory > limits.memory_mb * _MB else ""


def _memory(member) -> int:
    """Bytes of a process that no file on a disk stands behind: its own, and those it shares with others."""
    try:
        lines = Path(f"/proc/{member.pid}/status").read_text().splitlines()
    except OSError:
        return member.memory_info().rss
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(("RssAnon:", "RssShmem:")))


def _end(process: subprocess.Popen) -> None:
    """The child and all its descendants, in a process namespace of their own or not."""
    import psutil

    try:
        family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    except psutil.NoSuchProcess:
        family = []
    for member in family:
        with suppress(psutil.Error):
            member.kill()
    process.wait()
    with suppress(OSError):
        process.stdin.close()
