"""Wide tables as several narrower ones: a page shows at most seven columns, and each part repeats the first."""

from __future__ import annotations

import math
import re

MOST = 7
TABLE = re.compile(r"^\|[^\n]*\|[ \t]*\n\|(?:[ \t]*:?-+:?[ \t]*\|)+[ \t]*\n(?:\|[^\n]*\|[ \t]*(?:\n|\Z))*", re.M)
CELLS = re.compile(r"(?<!\\)\|")


def cells(line: str) -> list[str]:
    """The cells of one line of a table; a bar inside a formula is written with a backslash before it."""
    return [cell.strip() for cell in CELLS.split(line.strip())[1:-1]]


def split(table: str, most: int = MOST) -> str:
    """A pipe table with at most ``most`` columns as it is; a wider one as parts of about equal width."""
    rows = [cells(line) for line in table.strip().splitlines()]
    wide = len(rows[0])
    if wide <= most:
        return table
    parts = math.ceil((wide - 1) / (most - 1))
    each = math.ceil((wide - 1) / parts)
    found = []
    for start in range(1, wide, each):
        kept = [[row[0], *row[start : start + each]] for row in rows]
        found.append("".join(f"| {' | '.join(row)} |\n" for row in kept))
    return "\n".join(found)


def narrow(text: str) -> str:
    """A page with all its pipe tables at most seven columns wide."""
    return TABLE.sub(lambda found: split(found[0]), text)
