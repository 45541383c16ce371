"""Which test executes which line, and does one of them fail on a changed library? The engine of ``tools.mutate``.

All tests are collected once. Every run of tests is a fork of that process: nothing is imported twice, and no run sees
what another left behind. A change is made in memory: a function gets its new code or defaults, a class its new
attributes. A default that no test notices that way, and whatever else is read when a module is imported, is changed on
disk as well, in a copy of the package that is imported anew.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import hashlib
import inspect
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import CodeType, FrameType, FunctionType
from typing import Any, NamedTuple

import pytest

from tools import ROOT

Lines = dict[str, list[int]]
QUIET = ("-q", "-x", "-s", "-p", "no:cacheprovider", "-p", "no:xdist", "--no-header", "--timeout=0")
WALL = 1800.0  # seconds after which a test that waits for something counts as late


class Test(NamedTuple):
    """A test that passed: its CPU seconds, and the lines of the library that it executed."""

    name: str
    seconds: float
    lines: Mapping[str, frozenset[int]]


def digest(file: str) -> str:
    path = ROOT / file
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.is_file() else ""


def prepared() -> None:
    """Imports what is slow to import; Hypothesis draws the same cases each time and does not shrink what it finds."""
    import hypothesis
    import numpy  # noqa: F401
    import scipy.stats  # noqa: F401
    import sklearn  # noqa: F401
    import torch

    torch.set_num_threads(1)
    phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
    hypothesis.settings.register_profile("mutants", derandomize=True, database=None, deadline=None, phases=phases)
    hypothesis.settings.load_profile("mutants")


def cpu() -> float:
    """Seconds that this process and the children it has waited for have computed."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def forked(work: Callable[[Callable[[int], None]], int], wall: float = WALL) -> tuple[str, int]:
    """What became of ``work`` in a silent child ("passed", "failed", "late"), and the last number it told."""
    told = os.memfd_create("told")
    os.pwrite(told, bytes(4), 0)
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            os.setpgid(0, 0)
            null = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(null, stream)
            os._exit(work(lambda number: os.pwrite(told, number.to_bytes(4, "little"), 0) and None))
        os._exit(1)
    deadline = time.monotonic() + wall
    status, late = None, False
    while status is None:
        done, code = os.waitpid(child, os.WNOHANG)
        if done:
            status = code
        elif time.monotonic() > deadline:
            late = True
            os.kill(child, signal.SIGKILL)
            deadline += WALL
        else:
            time.sleep(0.01)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # what a test had started
    late = late or (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU)
    number = int.from_bytes(os.pread(told, 4, 0), "little")
    os.close(told)
    return ("late" if late else "failed" if status else "passed"), number


def limited(seconds: float) -> None:
    """Ends this process when it has computed that much more."""
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    resource.setrlimit(resource.RLIMIT_CPU, (int(used + seconds) + 1, hard))


class Watch:
    """Remembers which test failed or was skipped."""

    def __init__(self) -> None:
        self.failed = self.skipped = False

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.failed = self.failed or report.failed
        self.skipped = self.skipped or report.skipped

    def passes(self, item: pytest.Item) -> bool:
        self.failed = self.skipped = False
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
        return not self.failed


class Trace:
    """Records the executed lines of some files; stops watching a piece of code once all of its lines have been seen."""

    def __init__(self, files: Iterable[str]):
        self.files = {str(ROOT / file): file for file in files}
        self.left: dict[CodeType, set[int]] = {}

    def __call__(self, frame: FrameType, event: str, arg: Any) -> Any:
        code = frame.f_code
        if code.co_filename not in self.files:
            return None
        left = self.left.get(code)
        if left is None:
            left = self.left[code] = {line for *_, line in code.co_lines() if line}
            left.discard(code.co_firstlineno)
        if not left:
            return None

        def local(frame: FrameType, event: str, arg: Any) -> Any:
            left.discard(frame.f_lineno)
            return local

        return local

    def seen(self) -> Lines:
        found: dict[str, set[int]] = {}
        for code, left in self.left.items():
            lines = {line for *_, line in code.co_lines() if line} - {code.co_firstlineno}
            found.setdefault(self.files[code.co_filename], set()).update(lines - left)
        return {file: sorted(lines) for file, lines in found.items()}


class Session:
    """Collects the tests of some files once, and does ``work`` on this session instead of running them."""

    def __init__(self, work: Callable[[Session], None]):
        self.work, self.watch, self.sound = work, Watch(), set[str]()
        self.items: dict[str, pytest.Item] = {}
        self.functions: dict[str, list[FunctionType]] = {}
        self.error: BaseException | None = None

    def start(self, files: Sequence[str]) -> None:
        with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
            given = [*QUIET, "--basetemp", f"{folder}/base", *(str(ROOT / file) for file in files)]
            status = pytest.main(given, plugins=[self, self.watch])
        if self.error or status not in (0, pytest.ExitCode.NO_TESTS_COLLECTED):
            raise self.error or RuntimeError(f"the tests could not be collected (pytest ended with {status})")

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        if session.testsfailed:
            return False  # pytest says what could not be collected
        self.items = {item.nodeid: item for item in session.items}
        for each in gc.get_objects():
            if type(each) is FunctionType:
                self.functions.setdefault(each.__code__.co_filename, []).append(each)
        gc.collect()
        gc.freeze()  # forks share what is there now
        try:
            self.work(self)
        except BaseException as error:
            self.error = error
        return True

    def trace(self, test_file: str, files: Sequence[str], seconds: float) -> tuple[list[Any], bool]:
        """Name, CPU seconds and executed lines of each passing test of a file; whether the seconds sufficed."""
        items = [item for name, item in self.items.items() if name.split("::")[0] == test_file]
        with tempfile.NamedTemporaryFile("w+", encoding="utf-8") as out:

            def work(tell: Callable[[int], None]) -> int:
                limited(seconds)
                for item in items:
                    trace, start = Trace(files), cpu()
                    sys.settrace(trace)
                    passed = self.watch.passes(item)
                    sys.settrace(None)
                    if passed and not self.watch.skipped:
                        print(json.dumps([item.nodeid, round(cpu() - start, 3), trace.seen()]), file=out, flush=True)
                return 0

            whole = (
                forked(work, min(WALL, 20 * seconds + 60))[0] != "late"
            )  # a test that waits for others computes little
            return [json.loads(line) for line in Path(out.name).read_text("utf-8").splitlines()], whole

    def noticed(self, change: Callable[[], object], tests: Sequence[Test]) -> tuple[str, str]:
        """ "noticed" or "late" and by which test, or "survived". A test that fails unchanged too does not count."""
        left = [test for test in tests if test.name in self.items]
        while left:
            verdict, number = forked(functools.partial(self._run, change, left))
            if verdict == "passed":
                break
            test = left[number]
            if test.name in self.sound or forked(functools.partial(self._run, lambda: None, [test]))[0] == "passed":
                self.sound.add(test.name)
                return ("late" if verdict == "late" else "noticed"), test.name
            left = left[number + 1 :]
        return "survived", ""

    def _run(self, change: Callable[[], object], tests: Sequence[Test], tell: Callable[[int], None]) -> int:
        change()
        for number, test in enumerate(tests):
            tell(number)
            limited(10 * test.seconds + 10)
            if not self.watch.passes(self.items[test.name]):
                return 1
        return 0


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for const in code.co_consts:
        if isinstance(const, CodeType):
            yield from _codes(const)


def in_memory(functions: Iterable[FunctionType], module: CodeType) -> Callable[[], None]:
    """What gives the functions of a file the code that they have in ``module``, the file's compiled new text."""
    new = {(code.co_qualname, code.co_firstlineno): code for code in _codes(module)}
    places = [(each, (each.__code__.co_qualname, each.__code__.co_firstlineno)) for each in functions]
    pairs = [(each, new[place]) for each, place in places if place in new]
    if not pairs:
        raise ValueError(f"no test imports {module.co_filename}")

    def change() -> None:
        for function, code in pairs:
            function.__code__ = code

    return change


def defaults(module: CodeType, name: str) -> Callable[[], bool]:
    """What gives the functions and classes of a module the numbers that its new text has as defaults and attributes.

    It says whether there are any. What was made of the old ones while the tests were collected stays.
    """

    def change() -> bool:
        old = sys.modules[name]
        new = {"__name__": name, "__package__": old.__package__, "__file__": old.__file__}
        exec(module, new)
        return _transplanted(vars(old), new, name)

    return change


def _transplanted(old: Mapping[str, Any], new: Mapping[str, Any], name: str, owner: type | None = None) -> bool:
    found = False
    for key, after in list(new.items()):
        before, after = (_bare(each) for each in (old.get(key), after))
        if isinstance(before, FunctionType) and isinstance(after, FunctionType):
            for place in ("__defaults__", "__kwdefaults__"):
                was, becomes = getattr(before, place), getattr(after, place)
                if was and becomes and repr(was) != repr(becomes):
                    setattr(before, place, _mixed(was, becomes))
                    found = True
        elif isinstance(before, type) and isinstance(after, type) and before.__module__ == name and owner is None:
            found |= _transplanted(vars(before), vars(after), name, before)
        elif owner is not None and isinstance(before, (int, float)) and before != after:
            setattr(owner, key, after)
            found = True
    return found


def _bare(value: Any) -> Any:
    """The function within a method, a property or a decorated function."""
    value = getattr(value, "__func__", None) or getattr(value, "fget", None) or value
    return inspect.unwrap(value) if callable(value) and not isinstance(value, type) else value


def _mixed(was: Any, becomes: Any) -> Any:
    """Of ``becomes`` the numbers, of ``was`` all else: its objects are those that the tests know."""
    if isinstance(was, dict):
        return {key: _mixed(value, becomes[key]) for key, value in was.items()}
    if isinstance(was, tuple) and isinstance(becomes, tuple):
        return tuple(_mixed(*pair) for pair in zip(was, becomes, strict=True))
    return becomes if isinstance(becomes, (int, float)) else was


class _Only:
    """Of what was collected, these tests in this order."""

    def __init__(self, names: Sequence[str], tell: Callable[[int], None]):
        self.order, self.tell = {name: number for number, name in enumerate(names)}, tell

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = sorted((i for i in items if i.nodeid in self.order), key=lambda item: self.order[item.nodeid])

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        self.tell(self.order[item.nodeid])


def on_disk(file: str, text: str, tests: Sequence[Test]) -> tuple[str, str]:
    """As `Session.noticed`, for a file with another text in a copy of the package that is imported anew."""
    names = [test.name for test in tests]
    folder = Path(tempfile.mkdtemp(prefix="mutant-"))
    try:
        package = Path(file).parts[0]
        for path in ROOT.iterdir():
            if path.name != package:
                (folder / path.name).symlink_to(path)
        shutil.copytree(ROOT / package, folder / package)

        def work(tell: Callable[[int], None]) -> int:
            os.chdir(folder)
            os.environ["PYTHONPATH"] = str(folder)
            sys.path.insert(0, str(folder))
            sys.dont_write_bytecode = True
            for name, module in list(sys.modules.items()):
                path = str(getattr(module, "__file__", ""))
                if path.startswith(f"{ROOT}/") and not path.startswith(sys.prefix) and not name.startswith("tools"):
                    del sys.modules[name]
            limited(10 * sum(test.seconds for test in tests) + 60)
            paths = [str(folder / path) for path in dict.fromkeys(name.split("::")[0] for name in names)]
            return int(pytest.main([*QUIET, "--basetemp", str(folder / ".base"), *paths], plugins=[_Only(names, tell)]))

        (folder / file).write_text(text, "utf-8")
        verdict, number = forked(work) if names else ("passed", 0)
        if verdict == "passed":
            return "survived", ""
        shutil.copyfile(ROOT / file, folder / file)
        names = [names[number]]
        if forked(work)[0] != "passed":
            raise RuntimeError(f"{names[0]} fails in a copy of the package: {folder}")
        return ("late" if verdict == "late" else "noticed"), names[0]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
