"""Glossary terms linked at staging time: the first mention on a page leads to the glossary, later ones stay plain."""

from __future__ import annotations

import json
import re

UNLINKED = {"book/glossary.md", "book/api.md", "book/bibliography.md", "book/ledger.md", "book/notation.md"}
COMMON = {
    "attention",
    "bag",
    "control",
    "dummy",
    "explanation",
    "margin",
    "seed",
    "spread",
}  # everyday words: a link would only disturb
PLAIN = {
    r"$\log K$": "log K",
    "$K$": "K",
    r"$\max(0, m - x)$": "max(0, m − x)",
    "$x$": "x",
    "$m$": "m",
}  # formulas in a tip
PLAIN_TEXT = re.compile(
    r"^(?P<fence>`{3,}|~{3,}).*?^(?P=fence)[ \t]*$"  # code, and directives written with backticks
    r"|^:{3,}[^\n]*|^:[\w-]+:[^\n]*|^\([\w:.-]+\)=[^\n]*"  # a directive's first and last line, its options, targets
    r"|^#[^\n]*|^[ \t]*\|[^\n]*|^\S[^\n]*\n(?=: )"  # headings, tables, terms of a definition list
    r"|\$\$.*?\$\$|\$[^$]+\$|\\begin\{(?P<env>\w+\*?)\}.*?\\end\{(?P=env)\}"  # formulas
    r"|(?:\{[\w:-]+\})?(?P<ticks>`+).+?(?P=ticks)"  # code and roles
    r"|!?\[[^\]]*\](?:\([^)]*\)|\[[^\]]*\])?|<[^>\n]+>|https?://\S+",  # links, tags
    re.M | re.S,
)


def terms(glossary: str) -> list[str]:
    """The terms of the glossary's source, longest first, so that a longer term wins over one inside it."""
    block = re.search(r"```\{glossary\}\n(.*?)^```", glossary, re.M | re.S)
    found = re.findall(r"^(\S.*)$", block[1], re.M) if block else []
    return sorted((term for term in found if term not in COMMON), key=len, reverse=True)


def meanings(glossary: str) -> dict[str, tuple[str, str]]:
    """Each term's anchor in the built glossary, its name and its meaning as plain text, for a tip beside a link."""
    block = re.search(r"```\{glossary\}\n(.*?)^```", glossary, re.M | re.S)
    found = {}
    for names, body in re.findall(r"((?:^\S.*\n)+)((?:^[ \t]+\S.*\n?)+)", block[1], re.M) if block else []:
        text = re.sub(r"\{\w+\}`([^`<]+?)(?: <[^`]*>)?`", r"\1", " ".join(body.split()))
        for tex, plain in PLAIN.items():
            text = text.replace(tex, plain)
        for name in names.splitlines():
            found["term-" + re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")] = name, text
    if left := [text for _, text in found.values() if "\\" in text]:
        raise ValueError(f"a tip shows no formulas; give PLAIN the plain form of those in {left[0]!r}")
    return found


def script(glossary: str) -> bytes:
    """``glossary.js``: the meanings for pages that are opened as files, which may read no other file."""
    return f"globalThis.GLOSSARY = {json.dumps(meanings(glossary), ensure_ascii=False)};\n".encode()


def link_terms(name: str, text: str, known: list[str]) -> str:
    """The page with the first plain mention of each term linked; code, formulas, links and headings stay."""
    if name in UNLINKED or name.startswith("book/api/") or not known:
        return text
    left = {term.lower(): term for term in known}
    exactly = {term.lower(): term for term in known if term.isupper()}
    words = re.compile(r"(?<![\w-])(" + "|".join(map(re.escape, known)) + r")(s?)(?![\w-])", re.I)

    def link(match: re.Match) -> str:
        if match[1] != (exact := exactly.get(match[1].lower(), match[1])):
            return match[0]  # "gaps" is no plural of GAP
        term = left.pop(exact.lower(), None)
        return match[0] if term is None else f"{{term}}`{match[0]} <{term}>`"

    parts, at = [], 0
    for special in PLAIN_TEXT.finditer(text):
        parts += [words.sub(link, text[at : special.start()]), special[0]]
        at = special.end()
    return "".join([*parts, words.sub(link, text[at:])])
