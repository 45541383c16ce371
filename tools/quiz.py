r"""Quizzes: an author writes a task list, the reader gets one folded answer per option, with its reason.

    ```{quiz}
    What does a mask of ones score?

    - [ ] Nothing, it is no answer.

      Why this is wrong, and which statement of the page decides it.

    - [x] More than zero.

      Why this is right.
    ```

Behind ``{quiz}`` may stand ``choose all``; then several options are right. Options become ``<details>`` elements: they
need no script, tell a screen reader their state, and do not open while the arrow keys pass over them, as radio buttons
would. Right and wrong are said in words. Without styles a page shows question, options and reasons in this order.
"""

from __future__ import annotations

import re
from textwrap import dedent
from typing import NamedTuple

FENCE = re.compile(r"^```\{quiz\}[ \t]*(?P<mode>[^\n]*?)[ \t]*\n(?P<body>.*?)^```[ \t]*$", re.M | re.S)
OPTION = re.compile(r"^- \[([ x])\] ", re.M)
LINK = re.compile(r"\]\(|\{[\w:]+\}`")
LETTERS = "ABCDEF"


class Option(NamedTuple):
    right: bool
    text: str
    reason: str


class Question(NamedTuple):
    text: str
    options: list[Option]
    choose_all: bool


def option(mark: str, body: str) -> Option:
    """One option from its mark and the text behind it: a line, an empty line, the reason."""
    text, _, reason = dedent(f"  {body}").strip().partition("\n\n")
    text, reason = " ".join(text.split()), reason.strip()
    if stray := re.search(r"^\S.*", body.partition("\n")[2], re.M):
        raise ValueError(f"{stray[0][:40]!r}: an option begins with '- [ ] ' or '- [x] ', its reason with two spaces")
    if not reason:
        raise ValueError(f"option {text[:40]!r} has no reason: an empty line, then text indented by two spaces")
    if LINK.search(text):
        raise ValueError(f"option {text[:40]!r} holds a link or a role, which cannot be folded; put it into the reason")
    return Option(mark == "x", text, reason)


def question(mode: str, body: str) -> Question:
    """A question from the fence's argument and body; ValueError says what is wrong with it."""
    text, *rest = OPTION.split(body)
    options = [option(*pair) for pair in zip(rest[::2], rest[1::2], strict=True)]
    right = sum(each.right for each in options)
    if mode not in ("", "choose all"):
        raise ValueError(f"expected nothing or 'choose all' behind {{quiz}}, got {mode!r}")
    if not text.strip() or not 2 <= len(options) <= len(LETTERS):
        raise ValueError(f"expected a text and 2 to {len(LETTERS)} options '- [ ] ' or '- [x] ', got {len(options)}")
    if (right < 2) if mode else (right != 1):
        raise ValueError(f"expected {'two or more' if mode else 'exactly one'} right option(s) '- [x] ', got {right}")
    return Question(text.strip(), options, bool(mode))


def rendered(asked: Question, number: int) -> str:
    """The Markdown that Sphinx reads: a named group of folded options."""
    ask = "\n\n*Choose all that hold.*" if asked.choose_all else ""
    lines = [f'<div class="quiz" role="group" aria-labelledby="quiz-{number}">', f'<div id="quiz-{number}">\n']
    lines.append(f"**{number}.** {asked.text}{ask}\n\n</div>\n")
    for letter, (right, text, reason) in zip(LETTERS, asked.options):
        verdict, kind = ("✓ Right.", "quiz-right") if right else ("✗ No.", "quiz-wrong")
        lines.append(f":::::{{dropdown}} {letter}. {text}\n:class-container: {kind}\n\n**{verdict}** {reason}\n:::::\n")
    return "\n".join([*lines, "</div>"])


def expand(page: str, text: str) -> tuple[str, list[str]]:
    """A page with its quiz ready for Sphinx, and the problems found: ``page, question n ('its first words'): why``."""
    problems, number = [], 0

    def replaced(fence: re.Match) -> str:
        nonlocal number
        number += 1
        try:
            return rendered(question(fence["mode"], fence["body"]), number)
        except ValueError as error:
            problems.append(f"{page}, question {number} ({' '.join(fence['body'].split())[:40]!r}): {error}")
            return fence[0]

    return FENCE.sub(replaced, text), problems


def questions(text: str) -> list[Question]:
    """The quiz of a page's source."""
    return [question(fence["mode"], fence["body"]) for fence in FENCE.finditer(text)]
