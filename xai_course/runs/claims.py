"""Comparative sentences as data that can be executed: ``data/claims/<page>.toml``, judged on the committed records.

A claim names two rows, a metric and a direction. "higher" and "lower" are paired t-tests, "equal" is a test of
equivalence within a margin; "open" says that the paired test decides nothing, and then what it could have found. Their
p-values are corrected with Holm over the claim's family: all claims that name it and, where it is a table such as
"bench/shifted", all rows of it against their twins. "always" and "mixed" test nothing: they count the seeds on which
the first row is higher.
"""

import contextlib
import fnmatch
import functools
import tomllib
from statistics import stdev
from typing import NamedTuple

from ..data.files import course_file
from ..measure.statistics import detectable, equivalence, holm, paired
from . import records
from .catalogue import experiments, unknown

LEVEL = 0.05


class Claim(NamedTuple):
    """One comparison; ``id`` is ``page/name``, ``seeds`` the least number that both rows must share."""

    id: str
    row: str
    than: str
    metric: str
    direction: str
    family: str = ""
    margin: float = 0.0
    seeds: int = 5
    preset: str = "smoke"


class Verdict(NamedTuple):
    """Whether a claim holds, its numbers as a page prints them, and why it does not hold."""

    holds: bool
    text: str
    why: str = ""


@functools.cache
def claims() -> dict[str, Claim]:
    """All claims by ``page/name``, in the order of their files."""
    found = {}
    for path in sorted(course_file("claims").glob("*.toml")):
        for name, fields in tomllib.loads(path.read_text("utf-8")).items():
            found[f"{path.stem}/{name}"] = Claim(f"{path.stem}/{name}", **fields)
    return found


def matching(pattern: str = "*") -> list[Claim]:
    """The claims of a page or of a shell pattern.

    Raises:
        ValueError: none.
    """
    found = [c for name, c in claims().items() if name.startswith(f"{pattern}/") or fnmatch.fnmatch(name, pattern)]
    if not found:
        raise ValueError(unknown("claim", pattern, claims()))
    return found


def judge(claim: Claim) -> Verdict:
    """The verdict of the records; a claim whose rows cannot be compared does not hold."""
    try:
        ours, theirs = _values(claim)
        p = _family(claim) | {_key(claim): _p(claim)}
    except (ValueError, OSError) as error:
        return Verdict(False, "", str(error))
    found, n, tested = paired(ours, theirs), len(ours), holm(p)[_key(claim)]
    above, digits = sum(gap > 0 for gap in found.values), 3 if found.high - found.low < 0.04 else 2
    say = functools.partial(_number, digits=digits)
    least = detectable(stdev(found.values), n, level=LEVEL / len(p))
    holds, said = {
        "higher": (tested < LEVEL and found.mean > 0, f"{n} seeds"),
        "lower": (tested < LEVEL and found.mean < 0, f"{n} seeds"),
        "equal": (tested < LEVEL, f"equal within {say(claim.margin)}, {n} seeds"),
        "open": (tested >= LEVEL, f"effects above {say(least)} would have shown"),
        "always": (above == n, f"higher on each of {n} seeds"),
        "mixed": (0 < above < n, f"higher on {above} of {n} seeds"),
    }[claim.direction]
    interval = f" [{say(found.low)}, {say(found.high)}]" * (claim.direction in ("higher", "lower", "equal"))
    text = f"{say(found.mean, sign='+')}{interval}, {said}"
    return Verdict(holds, text, "" if holds else f"not {claim.direction}: {text}, p = {tested:.2g} among {len(p)}")


def _key(claim: Claim) -> str:
    return f"{claim.row} {claim.than} {claim.metric}"


def _family(claim: Claim) -> dict[str, float]:
    """The p-values of all comparisons among which this one was picked, as far as they have records."""
    if not claim.family:
        return {}
    rows = [e for name, e in experiments().items() if name.startswith(f"{claim.family}/") and e.twin]
    twins = [claim._replace(row=e.name, than=e.twin, direction="open") for e in rows]
    found = {}
    for each in (*twins, *(c for c in claims().values() if c.family == claim.family)):
        with contextlib.suppress(ValueError, OSError):
            found[_key(each)] = _p(each)
    return found


def _values(claim: Claim) -> tuple[list[float], list[float]]:
    """Both rows' values on the seeds that they share."""
    tables = []
    for name in (claim.row, claim.than):
        record = records.load(name, claim.preset)
        if claim.metric not in record.metrics:
            raise ValueError(f"{name} has no metric {claim.metric!r}")
        tables.append(dict(zip(record.seeds, record.metrics[claim.metric].values)))
    shared = [seed for seed in tables[0] if seed in tables[1]]
    if len(shared) < max(2, claim.seeds):
        raise ValueError(f"{claim.row} and {claim.than} share {len(shared)} seeds, the claim asks for {claim.seeds}")
    ours, theirs = ([table[seed] for seed in shared] for table in tables)
    return ours, theirs


def _p(claim: Claim) -> float:
    ours, theirs = _values(claim)
    return equivalence(ours, theirs, claim.margin) if claim.direction == "equal" else paired(ours, theirs).p


def _number(value: float, digits: int, sign: str = "") -> str:
    """Without the zero before the point."""
    return f"{value:{sign}z.{digits}f}".replace("0.", ".", 1) if abs(value) < 1 else f"{value:{sign}z.{digits}f}"
