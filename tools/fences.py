"""Results into prose: what a page may ask for, replaced at staging time by text from the run records.

- a fence ``{report} paper`` becomes the paper's tables, ours beside the printed numbers; ``{report} paper item ...``
  only the items named, such as ``digits``;
- a fence ``{twins} paper`` becomes each of the paper's tables beside its twin: picture, verdict, numbers folded;
- a fence ``{bench} table setting`` becomes a table of the bench, or its verdicts in words;
- a fence ``{masks} part`` becomes a part of the page on masks: what was run, the numbers, the chosen values;
- a fence ``{speed}`` becomes the tables of the benchmark records;
- a fence ``{departures} paper`` becomes the table of settings in which a paper's rows depart from it;
- a fence ``{ledger}`` becomes the ledger of equations, algorithms and tables;
- a fence ``{api}`` becomes the documentation of every public module, so that none can be forgotten;
- a role ``{record}`experiment metric` `` becomes "0.884 ± 0.003 (3 seeds)"; an optional third word is
  a preset, ``%`` after it prints a share in per cent, "88.4 ± 0.3 (3 seeds)", and ``bare`` as the last word leaves
  deviation and seeds to the figure or table that the sentence points to: "0.884";
- a role ``{claim}`page/name` `` becomes the numbers of a comparison in ``data/claims/page.toml``, such as
  "+.20 [.12, .29], 20 seeds"; a claim that the records do not bear is an error.

No number of ours is typed into a page by hand. A name that no record has is an error that names page and line.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from tools import api
from tools.bench_page import bench_markdown
from tools.claims import claim_text
from tools.ledger import ledger_markdown
from tools.masks_page import masks_markdown
from tools.settings import departures_markdown
from tools.speed import speed_markdown
from tools.twins import twins_markdown
from xai_course.runs.report import report_markdown

ASKED = re.compile(
    r"^```\{(?P<kind>report|twins|bench|masks|speed|ledger|departures|api)\}[ \t]*(?P<of>[^\n]*?)[ \t]*\n```[ \t]*$"
    r"|\{record\}`(?P<record>[^`\n]+)`|\{claim\}`(?P<claim>[^`\n]+)`",
    re.M,
)


def record_text(argument: str) -> str:
    """``"amc/digits/ce accuracy [preset] [%] [bare]"`` -> mean ± sd (n seeds), or the mean alone."""
    from xai_course.measure.metrics import metric
    from xai_course.runs import records

    words = argument.split()
    bare = words[-1:] == ["bare"]
    words = words[: len(words) - bare]
    percent = words[-1:] == ["%"]
    words = words[: len(words) - percent]
    if len(words) not in (2, 3):
        raise ValueError(f"expected 'experiment metric [preset] [%] [bare]', got {argument!r}")
    record = records.load(words[0], preset=words[2] if len(words) == 3 else "smoke")
    if words[1] not in record.metrics:
        raise ValueError(f"record {words[0]} has no metric {words[1]!r}; it has {', '.join(sorted(record.metrics))}")
    if percent and metric(words[1]).unit != "share":
        raise ValueError(f"{words[1]} is no share: it is measured in {metric(words[1]).unit}, not in per cent")
    found = record.metrics[words[1]]
    text = found.percent if percent else str(found)
    return text.split(" ± ")[0] if bare else f"{text} ({record.seeds_text})"


def block_text(kind: str, argument: str) -> str:
    """The Markdown of a fence."""
    if kind == "report" and not argument:
        raise ValueError("a {report} fence needs a paper, as in {report} amc")
    made = {"ledger": ledger_markdown, "speed": speed_markdown, "api": api.markdown, "bench": bench_markdown}
    made |= {"departures": departures_markdown, "twins": twins_markdown, "masks": masks_markdown}
    return made.get(kind, report_markdown)(*argument.split())


def expand(page: str, text: str, block: Callable = block_text, record: Callable = record_text) -> tuple[str, list[str]]:
    """A page with all fences and roles replaced, and the problems found as ``page:line: why``."""
    problems: list[str] = []

    def replaced(match: re.Match) -> str:
        try:
            if match["claim"]:
                return claim_text(match["claim"])
            return record(match["record"]) if match["record"] else block(match["kind"], match["of"])
        except Exception as error:
            line = text.count("\n", 0, match.start()) + 1
            problems.append(f"{page}:{line}: {match[0].splitlines()[0]}: {error}")
            return match[0]

    return ASKED.sub(replaced, text), problems
