"""Would a test notice? Changes one operator or number of the library at a time and runs the tests that execute it.

``python -m tools.mutate --sample 300`` takes a fixed sample (a hash of place and change decides, so that an edit
elsewhere leaves it alone), spread over the files by their number of places. Which test executes which line, and in how
many seconds, is measured first and kept in ``_build/mutation``. So are the verdicts: a call that was ended goes on
where it was. Each mutant meets the tests that execute its statement, the fastest first, until one fails or
``--seconds`` of tests are spent. A mutant that no test notices survives; `tests/survivors.toml` lists those that are
known, with the reason why nothing can or need notice them. ``--write`` keeps the count in ``tests/mutation.toml``. Exit
status 1: the share noticed or explained is below the floor.
"""

from __future__ import annotations

import argparse
import ast
import copy
import hashlib
import json
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tools import BUILD, ROOT, noticing
from tools.noticing import Test

PACKAGE = ROOT / "xai_course"
ROOMS = ("methods", "maps", "measure", "train", "preset")
SAMPLE, FLOOR = 300, 0.92
KNOWN = ROOT / "tests" / "survivors.toml"
COUNT = ROOT / "tests" / "mutation.toml"
KEPT = BUILD / "mutation"
READERS = ("tests/test_defaults.py",)  # read what a module computes when it is imported, and execute no line of it
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
    lines: tuple[tuple[int, int], ...] = ()  # first and last line of what it stands in, from the statement outwards
    live: bool = True  # stands in the body of a function, and not in what is computed when the module is imported

    @property
    def name(self) -> str:
        """Does not hold the line: an edit above leaves the mutant's name alone."""
        return f"{self.file}:{self.where}: {self.change} #{self.number}"

    @property
    def rank(self) -> str:
        return hashlib.sha256(self.name.encode()).hexdigest()


class Place(NamedTuple):
    """A node that computes, the dotted name around it, and the fields of `Mutant` of the same names."""

    node: ast.AST
    where: str
    lines: tuple[tuple[int, int], ...]
    live: bool


def places(tree: ast.Module) -> Iterator[Place]:
    """Nodes inside functions and classes that compute; no annotations, no messages."""

    def walk(node: ast.AST, where: str, around: tuple[tuple[int, int], ...], live: bool) -> Iterator[Place]:
        if isinstance(node, (ast.Raise, ast.JoinedStr)):  # the words of a message are for people
            return
        lines = around
        if isinstance(node, ast.stmt):
            body = getattr(node, "body", None)
            last = max(node.lineno, body[0].lineno - 1) if body else node.end_lineno or node.lineno
            lines = ((node.lineno, last), *around)
        inner = around
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            where = f"{where}.{node.name}".lstrip(".")
            inner = ((node.body[0].lineno, node.end_lineno or node.lineno), *around)
            if not live:  # what its head computes is met by what executes its body
                lines = inner
        if where:
            yield Place(node, where, lines, live)
        skipped = {id(getattr(node, "annotation", None)), id(getattr(node, "returns", None))}
        body = {id(each) for each in getattr(node, "body", ())} if isinstance(node, ast.FunctionDef) else set()
        for child in ast.iter_child_nodes(node):
            if id(child) not in skipped:
                statement = isinstance(child, ast.stmt)
                yield from walk(child, where, inner if statement else lines, live or id(child) in body)

    yield from walk(tree, "", (), False)


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
    file = path.relative_to(ROOT).as_posix()
    for node, where, lines, live in places(ast.parse(path.read_text("utf-8"))):
        for change, _ in changes(node):
            number = seen[where, change] = seen.get((where, change), 0) + 1
            found.append(Mutant(file, where, getattr(node, "lineno", 0), change, number, lines, live))
    return found


class _Change(ast.NodeTransformer):
    def __init__(self, target: ast.AST, replacement: ast.AST):
        self.target, self.replacement = target, replacement

    def visit(self, node: ast.AST) -> ast.AST:
        return self.replacement if node is self.target else self.generic_visit(node)


def mutated(source: str, mutant: Mutant) -> ast.Module:
    """The file with that one change."""
    tree, count = ast.parse(source), 0
    for target, where, *_ in places(tree):
        for change, replacement in changes(target):
            if (where, change) == (mutant.where, mutant.change):
                count += 1
                if count == mutant.number:
                    new: ast.Module = _Change(target, ast.copy_location(replacement, target)).visit(tree)
                    return ast.fix_missing_locations(new)
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


def test_files(of: Sequence[Path]) -> list[str]:
    """Test files that import something of the rooms by whatever door, and the files themselves for their examples."""
    rooms = {".".join(path.relative_to(ROOT).with_suffix("").parts[:2]) for path in of}
    found = [ROOT / reader for reader in READERS if (ROOT / reader).is_file()]
    for test in sorted((ROOT / "tests").glob("test_*.py")):
        nodes = [node for node in ast.walk(ast.parse(test.read_text("utf-8"))) if isinstance(node, ast.ImportFrom)]
        names = {f"{node.module}.{alias.name}" for node in nodes for alias in node.names}
        if any(name == room or name.startswith(f"{room}.") for name in names for room in rooms):
            found.append(test)
    return [path.relative_to(ROOT).as_posix() for path in [*of, *found]]


class Traces:
    """Which test executes which line, by test file; kept until the test file or a file it executes changes.

    Args:
        seconds: for the tests of one file; what was traced within fewer, and had not ended, is traced again.
    """

    def __init__(self, path: Path, seconds: float = 60):
        self.path, self.seconds = path, seconds
        self.kept: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.is_file() else {}

    def fresh(self, test_file: str) -> bool:
        entry = self.kept.get(test_file, {"needs": {"": "never traced"}, "cut": None})
        same = all(noticing.digest(file) == value for file, value in entry["needs"].items())
        return same and (entry["cut"] is None or self.seconds <= entry["cut"])

    def add(self, test_file: str, found: Sequence[Any], whole: bool) -> None:
        files = {test_file, *(file for _, _, lines in found for file in lines)}
        needs = {file: noticing.digest(file) for file in sorted(files)}
        self.kept[test_file] = {"needs": needs, "cut": None if whole else self.seconds, "tests": found}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(self.kept), "utf-8")

    def tests(self) -> list[Test]:
        """Fastest first."""
        found = [
            Test(name, seconds, {file: frozenset(numbers) for file, numbers in lines.items()})
            for test_file in sorted(self.kept)
            for name, seconds, lines in self.kept[test_file]["tests"]
        ]
        return sorted(found, key=lambda test: test.seconds)


def chosen(mutant: Mutant, tests: Sequence[Test], seconds: float) -> tuple[list[Test], int]:
    """Tests that execute the statement (the function, the class, the file), within the seconds; how many are left."""
    spans = mutant.lines[:1] if mutant.live else (*mutant.lines, (1, sys.maxsize))
    for first, last in spans:
        found = [test for test in tests if any(first <= line <= last for line in test.lines.get(mutant.file, ()))]
        if found:
            break
    if not mutant.live:
        found = [*(test for test in tests if test.name.split("::")[0] in READERS), *found]
    spent, taken = 0.0, list[Test]()
    for test in found:
        spent += test.seconds
        if taken and spent > seconds:
            break
        taken.append(test)
    return taken, len(found) - len(taken)


def reasons(path: Path = KNOWN) -> dict[str, str]:
    """Known survivors and why nothing notices them."""
    return dict(tomllib.loads(path.read_text("utf-8"))) if path.is_file() else {}


def table(results: Mapping[str, str], known: Mapping[str, str]) -> str:
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


def counted(results: Mapping[str, str], known: Mapping[str, str]) -> str:
    """The count as TOML: the whole sample, then each room."""
    rooms: dict[str, list[str]] = {"": list(results)}
    for name in sorted(results):
        rooms.setdefault(Path(name.split(":")[0]).with_suffix("").parts[1], []).append(name)
    text = "# Written by `python -m tools.mutate --write`: how many changed operators and numbers the tests notice.\n"
    for room, names in rooms.items():
        survived = [name for name in names if results[name] == "survived"]
        explained = sum(name in known for name in survived)
        text += f"\n[{room}]\n" if room else ""
        text += f"mutants = {len(names)}\nnoticed = {len(names) - len(survived)}\nexplained = {explained}\n"
    return text


class Verdicts:
    """One line of JSON per judged mutant; a later line counts. Judged anew when its file or its tests change."""

    def __init__(self, path: Path):
        self.path = path
        lines = path.read_text("utf-8").splitlines() if path.is_file() else []
        self.kept: dict[str, dict[str, Any]] = {entry["name"]: entry for entry in map(json.loads, lines)}

    def due(self, mutant: Mutant, tests: Sequence[Test]) -> bool:
        entry = self.kept.get(mutant.name)
        if entry is None or entry["source"] != noticing.digest(mutant.file):
            return True
        return entry["by"] not in [t.name for t in tests] if entry["by"] else entry["tests"] != self._as_they_are(tests)

    @staticmethod
    def _as_they_are(tests: Sequence[Test]) -> list[str]:
        digests = {file: noticing.digest(file) for file in {test.name.split("::")[0] for test in tests}}
        return [f"{test.name} {digests[test.name.split('::')[0]]}" for test in tests]

    def add(self, mutant: Mutant, verdict: str, by: str, tests: Sequence[Test], untried: int) -> None:
        entry = {"name": mutant.name, "verdict": verdict, "by": by, "source": noticing.digest(mutant.file)}
        entry |= {"untried": untried, "tests": [] if by else self._as_they_are(tests)}
        self.kept[mutant.name] = entry
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            print(json.dumps(entry), file=file)
        left = f", {untried} slower tests untried" if untried and not by else ""
        print(f"{verdict:<9} {mutant.name} (line {mutant.line}) {by or f'{len(tests)} tests'}{left}", flush=True)


def judge(sampled: Sequence[Mutant], traces: Traces, verdicts: Verdicts, seconds: float) -> None:
    """Traces the tests that are not traced yet, then runs each mutant's tests; all on one collection."""
    library = [path.relative_to(ROOT).as_posix() for path in files()]

    def work(session: noticing.Session) -> None:
        for test_file in test_files(files()):
            if not traces.fresh(test_file):
                found, whole = session.trace(test_file, library, traces.seconds)
                traces.add(test_file, found, whole)
                cut = "" if whole else ", then cut"
                print(f"{len(found)} tests of {test_file}: {sum(t[1] for t in found):.1f} s{cut}", flush=True)
        tests = traces.tests()
        for mutant in sampled:
            taken, untried = chosen(mutant, tests, seconds)
            if verdicts.due(mutant, taken):
                path = str(ROOT / mutant.file)
                module = compile(mutated(Path(path).read_text("utf-8"), mutant), path, "exec", dont_inherit=True)
                change: Callable[[], object]
                if mutant.live:
                    change = noticing.in_memory(session.functions[path], module)
                else:
                    change = noticing.defaults(module, mutant.file.removesuffix(".py").replace("/", "."))
                    if noticing.forked(lambda tell, change=change: not change())[0] != "passed":
                        continue  # on disk
                verdict, by = session.noticed(change, taken)
                if mutant.live or by:
                    verdicts.add(mutant, verdict, by, taken, untried)

    noticing.prepared()
    noticing.Session(work).start(test_files(files()))
    for mutant in sampled:
        taken, untried = chosen(mutant, traces.tests(), seconds)
        if verdicts.due(mutant, taken):
            text = ast.unparse(mutated((ROOT / mutant.file).read_text("utf-8"), mutant))
            verdicts.add(mutant, *noticing.on_disk(mutant.file, text, taken), taken, untried)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sample", type=int, default=SAMPLE, help=f"how many mutants (default {SAMPLE})")
    parser.add_argument("--room", action="append", help=f"only these rooms, of {', '.join(ROOMS)}")
    parser.add_argument("--seconds", type=float, default=60, help="CPU seconds of tests per mutant")
    parser.add_argument("--per-file", type=float, default=300, help="CPU seconds for tracing the tests of one file")
    parser.add_argument("--table", action="store_true", help="judge nothing, print the kept verdicts")
    parser.add_argument("--write", action="store_true", help=f"keep the count in {COUNT.relative_to(ROOT)}")
    given = parser.parse_args()
    sampled = sample(given.sample, given.room or ROOMS)
    verdicts, known = Verdicts(KEPT / "verdicts.jsonl"), reasons()
    if not given.table:
        judge(sampled, Traces(KEPT / "traces.json", given.per_file), verdicts, given.seconds)
    entries = [verdicts.kept[mutant.name] for mutant in sampled if mutant.name in verdicts.kept]
    results = {
        entry["name"]: entry["verdict"]
        for entry in entries
        if entry["source"] == noticing.digest(entry["name"].split(":")[0])
    }
    print(table(results, known))
    if len(results) < len(sampled):
        print(f"not judged yet: {len(sampled) - len(results)} of {len(sampled)}")
    if given.write:
        COUNT.write_text(counted(results, known), "utf-8")
    left = [name for name, verdict in results.items() if verdict == "survived" and name not in known]
    return 1 if len(results) < len(sampled) or len(left) > (1 - FLOOR) * len(results) else 0


if __name__ == "__main__":
    sys.exit(main())
