"""Claims on pages: a role that prints one, and the gate that finds sentences which compare without one.

``{claim}`page/name` `` becomes the claim's numbers, such as "+.20 [.12, .29], 5 seeds"; with " bare" behind the name
the same without the seeds, for a page that says how many beside its figure. A notebook, which knows no roles, names one
in a comment: ``<!-- claim page/name -->``. A claim that the records do not bear is an error.

The gate lists every sentence of page or notebook that names a method beside a word that compares, has no claim in its
paragraph and is not in ``data/unclaimed.toml``. That list can only shrink: a sentence that is gone must leave it.
``python -m tools.claims`` prints what stands there by page.
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from tools import ROOT, notebook_paths
from tools.run_notebooks import text
from xai_course.runs import claims
from xai_course.runs.declared import unknown

COMPARES = re.compile(
    r"\b(better|best|worse|worst|gains?|helps?|beats?|higher|lower|outperforms?|no effect|no gain|loses to|costs|"
    r"improves?|superior|stronger|weaker|ahead of|more than|less than|on (?:every|all) seeds?|(?:lies?|ends) above)\b",
    re.I,
)
METHOD = re.compile(
    r"\b(AMC|HNC|ReFF|Min-Max|Loss-Attention|cross-entropy|Energy loss|label smoothing|RRR|CDEP|GroupDRO|JTT|DFR|"
    r"mse|kd|the variance|mean-pooling|gated attention|WILDCAT|erasing|CAM-Avg|pasting|Euclidean|GRADIA|PPCE|ABN)\b"
    r"|\{record\}",
    re.I,
)
NAMED = re.compile(r"\{claim\}`([^` ]+)(?: bare)?`|<!-- claim ([\w/]+) -->")
FENCE = re.compile(r"\s*(`{3,}|:{3,}|~{3,})(\{([\w:-]+)\})?")
READ = (
    "note",
    "tip",
    "important",
    "warning",
    "admonition",
    "dropdown",
    "figure",
    "prf:",
    "glue:figure",
    "div",
    "margin",
)
SENTENCE = re.compile(r"(?<=[.!?:;])\s+(?=[A-Z*`{$\[])")


def claim_text(asked: str) -> str:
    """The numbers of a claim; with " bare" behind its name without the number of seeds.

    Raises:
        ValueError: an unknown claim, or one that the records do not bear.
    """
    name = asked.removesuffix(" bare")
    if name not in claims.claims():
        raise ValueError(unknown("claim", name, claims.claims()))
    found = claims.judge(claims.claims()[name])
    if not found.holds:
        raise ValueError(f"the claim does not hold: {found.why}")
    return found.text if name == asked else re.sub(r", \d+ seeds$", "", found.text)


def prose(page: str) -> str:
    """What is read as text: without code, formulas, tables made by fences, and options of directives."""
    lines, open_, hidden = [], [], 0
    for line in page.splitlines():
        fence = FENCE.match(line)
        if fence and not fence[2] and open_ and not line.strip().strip("`:~") and len(fence[1]) >= len(open_[-1][0]):
            hidden -= open_.pop()[1]
            line = ""
        elif fence and not (hidden and not fence[2]):
            open_.append((fence[1], not (fence[3] or "code").startswith(READ)))
            hidden += open_[-1][1]
            line = ""
        lines.append("" if hidden or re.match(r"\s*:[\w-]+:", line) else line)
    return "\n".join(lines)


def sentences(page: str) -> Iterator[tuple[str, bool]]:
    """Every sentence that compares methods, and whether its paragraph names a claim; quizzes and code are left out."""
    for paragraph in re.split(r"\n\s*\n|\n(?=\s*(?:[-*|]|\d+\.) )", prose(page)):
        claimed = bool(NAMED.search(paragraph))
        for sentence in SENTENCE.split(" ".join(paragraph.split())):
            if COMPARES.search(sentence) and METHOD.search(sentence):
                yield sentence, claimed


def pages(root: Path = ROOT) -> dict[str, str]:
    """The book's pages and the Markdown of the notebooks by name."""
    found = {path.relative_to(root).as_posix(): path.read_text("utf-8") for path in (root / "book").glob("*.md")}
    for path in notebook_paths(root):
        cells = [c for c in json.loads(path.read_text("utf-8"))["cells"] if c["cell_type"] == "markdown"]
        found[path.relative_to(root).as_posix()] = "\n\n".join(map(text, cells))
    return dict(sorted(found.items()))


def unclaimed(root: Path = ROOT) -> dict[str, dict[str, list[str]]]:
    """The exceptions: reason to page to sentences."""
    listed = tomllib.loads((root / "data" / "unclaimed.toml").read_text("utf-8"))["exception"]
    return {each["reason"]: each["sentences"] for each in listed}


def check_all(root: Path = ROOT) -> list[str]:
    """Sentences that compare without a claim, exceptions that are gone, and claims that a notebook names in vain."""
    spared: dict[str, set[str]] = {}
    for listed in unclaimed(root).values():
        for page, said in listed.items():
            spared.setdefault(page, set()).update(said)
    found = []
    for page, body in pages(root).items():
        bare = {sentence for sentence, claimed in sentences(body) if not claimed}
        known = spared.pop(page, set())
        found += [f"{page}: compares without a claim: {sentence}" for sentence in sorted(bare - known)]
        found += [f"{page}: take out of data/unclaimed.toml, no longer there: {s}" for s in sorted(known - bare)]
        for match in NAMED.finditer(body):
            try:
                claim_text(match[1] or match[2])
            except ValueError as error:
                found.append(f"{page}: {match[0]}: {error}")
    return found + [f"{page}: take out of data/unclaimed.toml, there is no such page" for page in spared]


def main() -> int:
    for reason, listed in unclaimed().items():
        print(f"{sum(map(len, listed.values()))} sentences: {reason}")
        for page, said in listed.items():
            print(f"  {len(said):3} {page}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
