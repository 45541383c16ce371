"""Run a stranger's notebook: no network, no view of the home folder or the solutions, bounded time, memory, processes.

The host starts ``runner.py`` inside bubblewrap, hands it the notebook on standard input
and reads one JSON line per executed cell from standard output, so that what ran before a crash or a limit still counts.
The sandbox protects the host. It cannot protect a score from code that tampers with its own kernel: read odd
submissions.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import xai_course
from xai_course.data.files import course_file

_MB = 2**20
RUNNER = Path(__file__).with_name("runner.py").resolve()


@dataclass(frozen=True)
class Limits:
    """Per submission: wall time in seconds for all cells and for one, memory and output in MB, number of processes."""

    seconds: float = 600
    cell_seconds: float = 120
    memory_mb: float = 4000
    output_mb: float = 20
    processes: int = 64


@dataclass(frozen=True)
class Executed:
    """``cells``: index of each code cell that ran to its outputs. ``stopped``: why not all did; empty if they did."""

    cells: dict[int, list[dict]]
    stopped: str


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


def execute(notebook: dict, limits: Limits, *, sandbox: bool = True) -> Executed:
    """Execute all code cells in order, in a fresh interpreter behind the limits.

    Raises:
        RuntimeError: ``sandbox`` is asked for and bubblewrap is missing or does not start.
    """
    command = [sys.executable, "-P", str(RUNNER), str(limits.cell_seconds)]
    with tempfile.TemporaryDirectory(prefix="xai-course-") as folder:
        if sandbox:
            command, environment = [*_walls(bubblewrap()), *command], {}
        else:
            environment = {**os.environ, **_quiet(folder)}
        process = subprocess.Popen(
            command,
            cwd="/" if sandbox else folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        return _watch(process, json.dumps(notebook).encode(), limits)


def _quiet(home: str) -> dict[str, str]:
    return {"HOME": home, "TMPDIR": home, "IPYTHONDIR": home, "JUPYTER_RUNTIME_DIR": home, "OMP_NUM_THREADS": "1"}


def _walls(bwrap: str) -> list[str]:
    """Read-only system, interpreter, package and runner; nothing else, so no solutions either, can be read."""
    package = Path(xai_course.__file__).resolve().parent
    system = ["/usr", "/lib", "/lib64", "/bin", "/etc/ld.so.cache", "/etc/passwd", "/etc/group", "/etc/fonts"]
    ours = [sys.prefix, sys.base_prefix, str(package), str(course_file().resolve()), str(RUNNER)]
    binds = [part for path in (*system, *ours) for part in ("--ro-bind-try", path, path)]
    home = "/tmp/home"
    variables = {**_quiet(home), "PATH": f"{sys.prefix}/bin:/usr/bin:/bin", "PYTHONPATH": str(package.parent)}
    settings = [part for name, value in variables.items() for part in ("--setenv", name, value)]
    return [
        bwrap,
        *("--size", str(256 * _MB), "--tmpfs", "/tmp"),
        *("--dir", home),
        *binds,
        *("--proc", "/proc", "--dev", "/dev"),
        *("--unshare-all", "--die-with-parent", "--new-session", "--clearenv"),
        *settings,
        *("--chdir", home),
    ]


def _watch(process: subprocess.Popen, notebook: bytes, limits: Limits) -> Executed:
    """Feed, read and time the child; kill everything below it when a limit is passed."""
    received, errors = bytearray(), bytearray()
    limit = int(limits.output_mb * _MB)

    def feed():
        try:
            process.stdin.write(notebook)
            process.stdin.close()
        except BrokenPipeError:  # it ended before it had read everything
            pass

    def read(stream, store, most):
        while chunk := stream.read1(65536):
            if len(store) <= most:
                store.extend(chunk)

    threads = [
        threading.Thread(target=feed, daemon=True),
        threading.Thread(target=read, args=(process.stdout, received, limit), daemon=True),
        threading.Thread(target=read, args=(process.stderr, errors, 4096), daemon=True),
    ]
    for thread in threads:
        thread.start()
    stopped, start = "", time.monotonic()
    while process.poll() is None and not stopped:
        time.sleep(0.05)
        stopped = _over(process.pid, limits, time.monotonic() - start, len(received) > limit)
    _kill(process)
    for thread in threads:
        thread.join(timeout=5)
    cells = _parse(bytes(received))
    if not stopped and process.returncode != 0:
        if not received:
            raise RuntimeError(f"the notebook runner did not start: {errors.decode(errors='replace').strip()[-500:]}")
        stopped = "the kernel died"
    return Executed(cells, stopped)


def _over(pid: int, limits: Limits, seconds: float, too_much_output: bool) -> str:
    import psutil

    if seconds > limits.seconds:
        return f"took longer than {limits.seconds:g} s"
    if too_much_output:
        return f"printed more than {limits.output_mb:g} MB"
    try:
        family = psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return ""
    if len(family) > limits.processes:
        return f"started more than {limits.processes} processes"
    memory = 0
    for member in family:
        try:
            memory += member.memory_info().rss
        except psutil.Error:  # it has just ended
            continue
    return f"used more than {limits.memory_mb:g} MB of memory" if memory > limits.memory_mb * _MB else ""


def _kill(process: subprocess.Popen) -> None:
    """The child and all its descendants, in a process namespace of their own or not."""
    import psutil

    try:
        family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    except psutil.NoSuchProcess:
        family = []
    for member in family:
        try:
            member.kill()
        except psutil.Error:
            continue
    process.wait()


def _parse(lines: bytes) -> dict[int, list[dict]]:
    cells = {}
    for line in lines.splitlines():
        try:
            content = json.loads(line)
            cells[int(content["cell"])] = list(content["outputs"])
        except (ValueError, KeyError, TypeError):  # cut off in the middle
            continue
    return cells
