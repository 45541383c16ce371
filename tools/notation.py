"""Tables of letters, from one source: ``data/notation.toml``.

A fence ``{notation} chapter`` becomes the table of a chapter, ``{notation} common`` that of all chapters, and
``{notation} several`` the letters whose meaning differs between chapters.
"""

from __future__ import annotations

import re
import tomllib
from functools import cache

from tools import ROOT

FENCE = re.compile(r"^```\{notation\}[ \t]*(?P<of>\S*)[ \t]*\n```[ \t]*$", re.M)
MATH = re.compile(r"\$\$(.+?)\$\$|(?<!\\)\$([^$]+?)\$|^```\{math\}[^\n]*\n(?::\w+:[^\n]*\n)*(.*?)^```", re.S | re.M)
NO_LETTERS = re.compile(
    r"^```\{quiz.*?^```|(?<!`)`[^`\n]+`", re.M | re.S
)  # options of a quiz bring letters of their own; code is no formula
WORDS = re.compile(
    r"\\(?:operatorname|text|mathrm|mathbb|begin|end|label|texttt|color)\*?\s?(?:\{[^}]*\}|\w)|\\(?:KL|Var|Cov|CE)\b"
)
GREEK = "alpha beta gamma delta epsilon varepsilon zeta eta theta kappa lambda mu nu xi rho sigma tau phi psi omega"
GREEK_LETTER = re.compile(rf"\\({'|'.join((GREEK + ' Gamma Delta Theta Psi Omega Sigma Phi').split())})(?![A-Za-z])")


@cache
def source() -> dict:
    """The file, read: for each chapter its ``title`` and its ``rows``."""
    return tomllib.loads((ROOT / "data" / "notation.toml").read_text("utf-8"))


def letters(text: str) -> dict[str, int]:
    """How often each letter stands in a page's formulas; Greek ones by name, script ones as ``calM``."""
    found: dict[str, int] = {}
    for match in MATH.finditer(NO_LETTERS.sub("", text)):
        body = WORDS.sub(" ", next(filter(None, match.groups())))
        body = re.sub(r"\\mathcal\s?\{?(\w)\}?", lambda m: f" <cal{m[1]}> ", body)
        body = re.sub(GREEK_LETTER, lambda m: f" <{m[1]}> ", body)
        body = re.sub(r"_\{[a-z]{2,}\}|F1|KL", " ", re.sub(r"\\[A-Za-z]+", " ", body))  # names, not letters
        for name in re.findall(r"<(\w+)>|([A-Za-z])", body):
            found[name[0] or name[1]] = found.get(name[0] or name[1], 0) + 1
    return found


def declared(chapter: str) -> dict[str, list[str]]:
    """Each letter of a chapter with its meanings: the chapter's own rows, else those of all chapters."""
    own, common = ({}, {})
    for found, part in ((own, chapter), (common, "common")):
        for row in source()[part]["rows"]:
            for letter in row[0].split():
                found.setdefault(letter, []).append(row[3])
    return common | own


def table(of: str) -> str:
    """A fence's table in Markdown.

    Raises:
        ValueError: no such chapter.
    """
    if of == "several":
        return several()
    if of not in source():
        raise ValueError(f"notation is known of {', '.join(source())} and several, got {of!r}")
    head = ["symbol", "in the code", "meaning", "shape"][: 4 if of == "common" else 3]
    rows = [head, ["---"] * len(head), *[row[1:] for row in source()[of]["rows"]]]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def several() -> str:
    """The letters that a chapter uses otherwise than the common table, with every chapter's meaning."""
    rows: dict[str, list[str]] = {}
    for chapter, part in source().items():
        for names, symbol, _, meaning, *_ in part["rows"]:
            for letter in names.split():
                rows.setdefault(letter, []).append((chapter, part["title"], symbol, meaning))
    lines = ["| letter | where | symbol | meaning |", "| --- | --- | --- | --- |"]
    for letter, uses in sorted(rows.items(), key=lambda item: (item[0].lower(), item[0])):
        if len(uses) > 1:
            shown = f"${letter}$" if len(letter) == 1 else f"$\\{letter}$"
            for at, (_, title, symbol, meaning) in enumerate(uses):
                lines.append(f"| {'' if at else shown} | {title} | {symbol} | {meaning} |")
    return "\n".join(lines)


def expand(page: str, text: str) -> tuple[str, list[str]]:
    """A page with its tables, and the problems found as ``page:line: why``."""
    problems: list[str] = []

    def replaced(match: re.Match[str]) -> str:
        try:
            return table(match["of"])
        except ValueError as error:
            problems.append(f"{page}:{text.count(chr(10), 0, match.start()) + 1}: {error}")
            return match[0]

    return FENCE.sub(replaced, text), problems
