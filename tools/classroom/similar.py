"""Which hand-ins resemble each other: winnowing over syntax trees without names, numbers and texts.

After Schleimer, Wilkerson and Aiken, *Winnowing* (SIGMOD 2003), as in MOSS: of the hashes of all runs of `RUN` tree
nodes, the smallest of every `WINDOW` neighbours is kept. Prints that the master or most of the class shares do not
count. A high share is a reason to read both, never a proof: short answers to the same question look alike.
"""

from __future__ import annotations

import ast
import hashlib
from collections import Counter
from collections.abc import Iterable
from itertools import combinations

from tools.classroom.handed_in import Cell

RUN, WINDOW = 12, 6
FEW = 10  # prints; a pair with fewer says nothing


def prints(cells: Iterable[Cell]) -> set[int]:
    """The fingerprints of a hand-in."""
    nodes = [name for cell in cells for top in cell.body for name in _kinds(top)]
    runs = [_number(nodes[at : at + RUN]) for at in range(len(nodes) - RUN + 1)]
    return {min(runs[at : at + WINDOW]) for at in range(max(1, len(runs) - WINDOW + 1)) if runs}


def _kinds(node: ast.AST) -> Iterable[str]:
    """Kinds of nodes, depth first; contexts and imports say nothing."""
    if not isinstance(node, (ast.expr_context, ast.Import, ast.ImportFrom)):
        yield type(node).__name__
        for child in ast.iter_child_nodes(node):
            yield from _kinds(child)


def _number(run: list[str]) -> int:
    return int.from_bytes(hashlib.blake2b(" ".join(run).encode(), digest_size=8).digest(), "big")


def pairs(papers: dict[str, list[Cell]], released: list[Cell], least: float = 0.5) -> list[tuple[float, str, str]]:
    """Share of common prints, and the two names, the most alike first.

    Args:
        papers: student to code cells.
        released: the cells that all were given.
        least: pairs below this share are left out.
    """
    found = {student: prints(cells) - prints(released) for student, cells in papers.items()}
    shared = Counter(each for one in found.values() for each in one)
    common = {each for each, count in shared.items() if count > max(3, len(found) / 3)}
    found = {student: rest for student, one in found.items() if len(rest := one - common) >= FEW}
    alike = [(len(found[a] & found[b]) / min(len(found[a]), len(found[b])), a, b) for a, b in combinations(found, 2)]
    return sorted((pair for pair in alike if pair[0] >= least), reverse=True)
