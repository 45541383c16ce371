"""The fidelity ledger: every numbered thing of the papers, with the code and the tests that stand for it.

``python -m tools.ledger`` (``make ledger``) prints one line per entry and ends non-zero where code or test is missing.

One CSV file per paper in ``data/ledger``: paper, kind, where, what, code, test, status, note. An entry is a gap when
its status says "done" or "declared" and its code cannot be found, or "done" and its tests cannot.
"""

from __future__ import annotations

import ast
import csv
import importlib
import sys
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tools import ROOT
from xai_course.runs.catalogue import experiments

STATUSES = {
    "done": "implemented and tested",
    "declared": "declared as an experiment, not run at the paper's scale",
    "open": "not built yet",
}


@dataclass(frozen=True)
class Entry:
    """One row of the ledger; ``code`` and ``test`` hold names separated by semicolons."""

    paper: str
    kind: str
    where: str
    what: str
    code: str
    test: str
    status: str
    note: str

    @property
    def codes(self) -> list[str]:
        return [part.strip() for part in self.code.split(";") if part.strip()]

    @property
    def tests(self) -> list[str]:
        return [part.strip() for part in self.test.split(";") if part.strip()]


def entries(folder: Path = ROOT / "data" / "ledger") -> list[Entry]:
    """All entries, papers in alphabetical order.

    Raises:
        ValueError: a row without exactly the eight columns, named by file and line.
    """
    found = []
    for path in sorted(folder.glob("*.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            for row in (reader := csv.DictReader(file)):
                if None in row or None in row.values():
                    raise ValueError(
                        f"{path.name}, line {reader.line_num}: expected {len(Entry.__annotations__)} columns"
                    )
                found.append(Entry(**row))
    return found


def gaps(entry: Entry) -> list[str]:
    """What is missing for the entry's status, in words; empty if nothing."""
    if entry.status not in STATUSES:
        return [f"status must be one of {', '.join(STATUSES)}, got {entry.status!r}"]
    if entry.status == "open":
        return []
    missing = [f"no code {name}" for name in entry.codes if not _code_exists(name)]
    missing += [f"no test {name}" for name in entry.tests if not _test_exists(name)]
    if not entry.codes:
        missing.append("names no code")
    if entry.status == "done" and not entry.tests:
        missing.append("names no test")
    return missing


def _code_exists(name: str) -> bool:
    module, _, attribute = name.partition(":")
    if module == "experiments":
        return any(known == attribute or known.startswith(attribute + "/") for known in experiments())
    try:
        found = importlib.import_module(module)
        for part in filter(None, attribute.split(".")):
            found = getattr(found, part)
    except (ImportError, AttributeError):
        return False
    return True


@cache
def _tests_in(path: Path) -> frozenset[str]:
    tree = ast.parse(path.read_text("utf-8"))
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def _test_exists(name: str) -> bool:
    file, _, function = name.partition("::")
    return (ROOT / file).is_file() and function.split("[")[0] in _tests_in(ROOT / file)


def summary() -> Counter:
    """Number of entries by status."""
    return Counter(entry.status for entry in entries())


def ledger_markdown() -> str:
    """The ledger as one Markdown table per paper, with a count by status at the top."""
    counts = summary()
    lines = [", ".join(f"**{counts[s]}** {s} ({words})" for s, words in STATUSES.items() if counts[s]) + "."]
    paper = None
    for entry in entries():
        if entry.paper != paper:
            paper = entry.paper
            lines += [
                "",
                f"## {paper}",
                "",
                "| Where | What | Code | Test | Status | Differs because |",
                "|" + " --- |" * 6,
            ]
        code = "<br>".join(f"`{name.removeprefix('xai_course.')}`" for name in entry.codes)
        tests = "<br>".join(f"`{name.removeprefix('tests/')}`" for name in entry.tests)
        where = f"{entry.kind} {entry.where}"
        lines.append(f"| {where} | {_cell(entry.what)} | {code} | {tests} | {entry.status} | {_cell(entry.note)} |")
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main() -> int:
    """The exit status: 1 where an entry has a gap."""
    bad = 0
    for entry in entries():
        missing = gaps(entry)
        bad += bool(missing)
        print(f"{entry.status if not missing else 'GAP':<9} {entry.paper:<15} {entry.kind} {entry.where}: {entry.what}")
        for line in missing:
            print(f"          {line}")
    print(", ".join(f"{count} {status}" for status, count in sorted(summary().items())) + f", {bad} with a gap")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
