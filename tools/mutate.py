"""Would a test notice? Changes one operator or number of the library at a time and runs the tests that import the file.

``python -m tools.mutate --sample 300`` takes a fixed sample (a hash of place and change decides, so that an edit
elsewhere leaves it alone), spread over the files by their number of places. Every mutant runs in a forked child on a
shadow of the package in which one file differs. A mutant that no test notices survives; `tests/survivors.toml` lists
those that are known, with the reason why nothing can or need notice them. Exit status 1: the share noticed or explained
is below the floor.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import copy
import hashlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tools import BUILD, ROOT

PACKAGE = ROOT / "xai_course"
ROOMS = ("methods", "maps", "measure", "train", "preset")
FLOOR = 0.92
KNOWN = ROOT / "tests" / "survivors.toml"
SWAPPED = {
    **{ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq},
    **{ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.And: ast.Or, ast.Or: ast.And},
}


class Mutant(NamedTuple):
    """One change: the file, the function around it, the line, and what was changed into what."""

    file: str
    where: str
    line: int
    change: str
    number: int  # counts equal changes within a function

    @property
    def name(self) -> str:
        """Does not hold the line: an edit above leaves the mutant's name alone."""
        return f"{self.file}:{self.where}: {self.change} #{self.number}"

    @property
    def rank(self) -> str:
        return hashlib.sha256(self.name.encode()).hexdigest()


def places(tree: ast.Module) -> Iterator[tuple[ast.AST, str]]:
    """Nodes inside functions and classes that compute, with the name around them; no annotations, no messages."""

    def walk(node: ast.AST, where: str) -> Iterator[tuple[ast.AST, str]]:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            where = f"{where}.{node.name}".lstrip(".")
        skipped: set[int] = {id(getattr(node, "annotation", None)), id(getattr(node, "returns", None))}
        if isinstance(node, ast.Raise):  # the words of a message are for people
            return
        if isinstance(node, ast.JoinedStr):
            return
        if where:
            yield node, where
        for child in ast.iter_child_nodes(node):
            if id(child) not in skipped:
                yield from walk(child, where)

    yield from walk(tree, "")


def changes(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """What can be done to one node: a description and the changed copy."""
    new = copy.deepcopy(node)
    if isinstance(new, ast.Compare) and type(new.ops[0]) in SWAPPED:
        new.ops[0] = SWAPPED[type(new.ops[0])]()
    elif isinstance(new, (ast.BinOp, ast.BoolOp)) and type(new.op) in SWAPPED:
        new.op = SWAPPED[type(new.op)]()
    elif isinstance(new, ast.UnaryOp) and isinstance(new.op, (ast.Not, ast.USub)):
        new = new.operand
    elif isinstance(new, ast.Constant) and isinstance(new.value, bool):
        new.value = not new.value
    elif isinstance(new, ast.Constant) and isinstance(new.value, (int, float)):
        new.value = new.value + 1
    else:
        return
    yield f"{ast.unparse(node)} -> {ast.unparse(new)}", new


def mutants(path: Path) -> list[Mutant]:
    """Every change that can be made to a file, in the order of the file."""
    found: list[Mutant] = []
    seen: dict[tuple[str, str], int] = {}
    for node, where in places(ast.parse(path.read_text("utf-8"))):
        for change, _ in changes(node):
            number = seen[where, change] = seen.get((where, change), 0) + 1
            found.append(Mutant(path.relative_to(ROOT).as_posix(), where, node.lineno, change, number))
    return found


class _Change(ast.NodeTransformer):
    def __init__(self, target: ast.AST, replacement: ast.AST):
        self.target, self.replacement = target, replacement

    def visit(self, node: ast.AST) -> ast.AST:
        return self.replacement if node is self.target else self.generic_visit(node)


def mutated(source: str, mutant: Mutant) -> str:
    """The file's text with that one change."""
    tree, count = ast.parse(source), 0
    for target, where in places(tree):
        for change, replacement in changes(target):
            if (where, change) == (mutant.where, mutant.change):
                count += 1
                if count == mutant.number:
                    return ast.unparse(ast.fix_missing_locations(_Change(target, replacement).visit(tree)))
    raise ValueError(f"{mutant.name} is not in the file")


def files(rooms: Sequence[str] = ROOMS) -> list[Path]:
    found = [path for room in rooms for path in (PACKAGE / room).rglob("*.py")]
    return sorted([*found, *(PACKAGE / f"{room}.py" for room in rooms if (PACKAGE / f"{room}.py").is_file())])


def sample(count: int, rooms: Sequence[str] = ROOMS) -> list[Mutant]:
    """The ``count`` mutants of lowest rank, each file in proportion to its places."""
    by_file = {path: sorted(mutants(path), key=lambda m: m.rank) for path in files(rooms)}
    total = sum(map(len, by_file.values()))
    chosen = [m for every in by_file.values() for m in every[: -(-len(every) * count // total)]]
    return sorted(chosen, key=lambda m: m.rank)[:count]


def tests_of(file: str) -> list[Path]:
    """Test files that import the file's module by whatever name, or something of it through a door above it."""
    stem = Path(file).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__")
    package, _, name = stem.rpartition(".")
    own = {getattr(node, "name", None) for node in ast.parse((ROOT / file).read_text("utf-8")).body}
    found = []
    for test in sorted((ROOT / "tests").glob("test_*.py")):
        for node in ast.walk(ast.parse(test.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                names = {alias.name for alias in node.names}
                door = stem.startswith(f"{node.module}.") and names & own
                if node.module == stem or door or (node.module == package and name in names):
                    found.append(test)
                    break
    return found


def shadow(folder: Path, mutant: Mutant) -> None:
    """The repository in ``folder`` as links, with one changed file."""
    changed = Path(mutant.file)
    for path in ROOT.iterdir():
        if path.name != changed.parts[0]:
            (folder / path.name).symlink_to(path)
    here, there = ROOT / changed.parts[0], folder / changed.parts[0]
    for part in (*changed.parts[1:], None):
        there.mkdir()
        for path in here.iterdir():
            if path.name not in (part, "__pycache__") and part is not None:
                (there / path.name).symlink_to(path)
        if part is None or part == changed.name:
            break
        here, there = here / part, there / part
    (there / changed.name).write_text(mutated((ROOT / changed).read_text("utf-8"), mutant), "utf-8")


def noticed(mutant: Mutant, seconds: float) -> str:
    """ "noticed", "late" (a test ran into the time limit, which counts as noticed), or "survived"."""
    tests = tests_of(mutant.file)
    if not tests:
        return "survived"
    folder = Path(tempfile.mkdtemp(prefix="mutant-"))
    try:
        shadow(folder, mutant)
        child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException):
                os._exit(_in_child(folder, tests))
            os._exit(1)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                return "noticed" if status else "survived"
            time.sleep(0.05)
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return "late"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _in_child(folder: Path, tests: Sequence[Path]) -> int:
    """Pytest on the shadow, quiet; 0 only if every test passed."""
    import pytest

    os.setpgid(0, 0)
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    os.chdir(folder)
    os.environ["PYTHONPATH"] = str(folder)
    sys.path.insert(0, str(folder))
    for name in [each for each in sys.modules if each.split(".")[0] == PACKAGE.name]:
        del sys.modules[name]  # the parent's own: the shadow's must be imported
    sys.dont_write_bytecode = True
    names = [str(folder / test.relative_to(ROOT)) for test in tests]
    return int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--no-header", *names]))


def reasons(path: Path = KNOWN) -> dict[str, str]:
    """Known survivors and why nothing notices them."""
    return dict(tomllib.loads(path.read_text("utf-8"))) if path.is_file() else {}


def table(results: dict[str, str], known: dict[str, str]) -> str:
    """One line per room: noticed of all, and the survivors without a reason."""
    rooms: dict[str, list[str]] = {}
    for name, verdict in results.items():
        room = Path(name.split(":")[0]).with_suffix("").parts[1]
        rooms.setdefault(room, []).append(verdict)
    lines = [
        f"{room:<10} {sum(v != 'survived' for v in every):>4} of {len(every)}" for room, every in sorted(rooms.items())
    ]
    left = [name for name, verdict in results.items() if verdict == "survived" and name not in known]
    share = 1 - sum(v == "survived" and n not in known for n, v in results.items()) / max(1, len(results))
    return "\n".join(
        [*lines, *(f"survived: {name}" for name in left), f"noticed or explained: {share:.1%} of {len(results)}"]
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sample", type=int, default=300, help="how many mutants (default 300)")
    parser.add_argument("--room", action="append", help=f"only these rooms, of {', '.join(ROOMS)}")
    parser.add_argument("--part", default="1/1", help="every n-th of the sample, such as 1/2 and 2/2 on two cores")
    parser.add_argument("--seconds", type=float, default=240, help="time limit per mutant")
    given = parser.parse_args()
    import torch  # once, before the forks

    torch.set_num_threads(1)
    part, parts = map(int, given.part.split("/"))
    chosen = sample(given.sample, given.room or ROOMS)[part - 1 :: parts]
    kept = BUILD / f"mutants-{part}-{parts}.json"
    results: dict[str, str] = json.loads(kept.read_text()) if kept.is_file() else {}
    for mutant in chosen:
        if mutant.name not in results:
            results[mutant.name] = noticed(mutant, given.seconds)
            kept.parent.mkdir(exist_ok=True)
            kept.write_text(json.dumps(results, indent=1))
            print(f"{results[mutant.name]:<9} {mutant.name} (line {mutant.line})", flush=True)
    results = {mutant.name: results[mutant.name] for mutant in chosen}
    known = reasons()
    print(table(results, known))
    left = [name for name, verdict in results.items() if verdict == "survived" and name not in known]
    return 1 if len(left) > (1 - FLOOR) * len(results) else 0


if __name__ == "__main__":
    sys.exit(main())
