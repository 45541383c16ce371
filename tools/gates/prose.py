"""Gates on running text: numbers stand in figures and tables, a sentence holds two at most, and n is said once.

A number is one that a reader would have to hold in mind: a literal one, or a role that becomes one (`tools.fences`; an
interval counts as one). Formulas, code, tables, references such as "Eq. 3", years and sizes such as "3 × 3" are none;
proofs and what an exercise gives are not read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

MOST = 2  # numbers in a sentence
SEEDS = 5  # times that a page may say "(3 seeds)" in running text
BLOCK = re.compile(r"^(?P<fence>`{3,}|:{3,})\{(?P<kind>[\w:-]+)\}[^\n]*\n(?P<body>.*?)^(?P=fence)[ \t]*$", re.M | re.S)
TEXT = re.compile(r"prf:(?!proof)\w+|admonition|dropdown|solution|quiz|note|tip|picture|explorable|figure|margin|div")
NO_TEXT = re.compile(
    r"^```(?!\{)[^\n]*\n.*?^```[ \t]*$|^(?:`{3,}|:{3,}|:[\w-]+:|\||#+ )[^\n]*$|\$\$.*?\$\$|"
    r"</?(?:details|summary|div|span|a|b|p|br|sub|sup)\b[^<>]*>|<svg.*?</svg>|<!--.*?-->",
    re.M | re.S,
)
WORDS = (  # each becomes a word without digits
    re.compile(r"\$[^$]+\$|`[^`]*`|\{(?!record|claim)[\w:-]+\}`[^`]*`"),
    re.compile(r"\]\([^)]*\)"),
    re.compile(
        r"\b(?:Eqs?\.|Fig(?:ure|s)?\.?|Tables?|Sections?|Sec\.|Algorithms?|Exercises?|Labs?|Chapters?|Reading|Appendix|[Ii]mages?|"
        r"pages?|seeds?|epochs?|patch|class|Python|CIFAR|ResNet|VGG\w*|ICCV|ECCV|CVPR|VOC)[ -]?\(?\d+\w?\)?"
        r"(?:(?:,| and| to| or|–) ?\(?\d+[a-z]?\)?)*"
    ),
    re.compile(r"\b(?:19|20)\d\d\b|\d+ ?[×x] ?\d+(?: ?[×x] ?\d+)*"),
)
ROLE = re.compile(r"\{(?:record|claim)\}`[^`]*`")
NUMBER = re.compile(r"(?<![\w./-])[-−+±]?\d[\d,]*(?:\.\d+)?")
SEEDED = re.compile(r"\(\d+ seeds?\)|\{record\}`(?![^`]* bare`)[^`]*`")
ITEM = re.compile(r"^\s*(?:[-*]|\d+\.) ", re.M)
END = re.compile(r"(?<=[.!?:;])[\"”*)]*\s+(?=[A-Z*\"“(])")


def running(page: str) -> str:
    """The page's running text: without tables, formulas on their own lines, code and what a fence computes."""
    page = BLOCK.sub(lambda m: f"\n{running(m['body'])}\n" if TEXT.fullmatch(m["kind"]) else "", page)
    return ITEM.sub("\n\n", NO_TEXT.sub("\n\n", page))


def sentences(page: str) -> Iterator[str]:
    """The sentences of a page's running text; a colon or semicolon before a capital letter ends one."""
    for paragraph in re.split(r"\n\s*\n", running(page)):
        yield from filter(None, END.split(" ".join(paragraph.split())))


def numbers(sentence: str) -> int:
    """How many numbers a sentence holds."""
    sentence = ROLE.sub(" 7 ", sentence)
    for pattern in WORDS:
        sentence = pattern.sub(" word ", sentence)
    return len(NUMBER.findall(sentence))


def check(name: str, page: str) -> list[str]:
    """Sentences with too many numbers, and how often the number of seeds is said again."""
    found = [
        f"{name}: {count} numbers in a sentence, at most {MOST}: {sentence[:90]}"
        for sentence in sentences(page)
        if (count := numbers(sentence)) > MOST
    ]
    said = len(SEEDED.findall(running(page)))
    return found + ([f"{name}: says {said} times how many seeds, at most {SEEDS}"] if said > SEEDS else [])
