"""The BibTeX entry of each chapter's paper as a download beside its citation, cut from the one bibliography."""

from __future__ import annotations

import re

from pybtex.database import BibliographyData, parse_string

# A chapter's title, sentence and explorable, then the line with time, paper and lab.
OPENING = re.compile(r"\A# [^\n]*\n\n(?:\*\*.+?^```\{explorable\}.+?^```\n\n)?\*(?!\*).+?\n\n", re.S | re.M)
PAPER = re.compile(r"\{cite:t\}`(?P<key>[\w:-]+)`")


def entries(bibliography: str) -> dict[str, str]:
    """Each entry by its key, as BibTeX."""
    found = parse_string(bibliography, "bibtex").entries
    return {key: BibliographyData({key: entry}).to_string("bibtex") for key, entry in found.items()}


def offer(name: str, text: str, known: dict[str, str]) -> tuple[str, dict[str, bytes]]:
    """A page with a link behind each paper that its opening cites, and the files that the links need."""
    opening, files = OPENING.match(text), {}

    def linked(cited: re.Match) -> str:
        if cited["key"] not in known:
            raise ValueError(f"{name} is about {cited['key']}, which references.bib does not hold")
        files[f"book/bibtex/{cited['key']}.bib"] = known[cited["key"]].encode()
        return f"{cited[0]} ([BibTeX](bibtex/{cited['key']}.bib))"

    if not opening:
        return text, {}
    end = opening.end()
    return PAPER.sub(linked, text[:end]) + text[end:], files
