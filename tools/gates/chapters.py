"""Gates on the chapters' sources: enough pictures, each with a caption, text one can finish, minutes that are true."""

from __future__ import annotations

import re

from tools.notation import MATH

FIGURES = 5
WORDS = 5000  # of theory, without what is folded, exercises, solutions and the quiz
WORDS_A_MINUTE = 120  # of a text that one reads with a pencil
FORMULA_MINUTES = 0.5  # of a formula on a line of its own
FIGURE_MINUTES = 1.0
STATEMENT_MINUTES = 1.0  # of a proposition, its proof glanced at
EXPLORABLE_MINUTES = 3.0
QUESTION_MINUTES = 2
OFF = 0.25  # the share by which a rounded promise may miss what is counted
BLOCK = re.compile(r"^(?P<fence>`{3,}|:{3,})\{(?P<kind>[\w:-]+)\}[^\n]*\n(?P<body>.*?)^(?P=fence)[ \t]*$", re.M | re.S)
FOLDED = ("dropdown", "quiz", "exercise", "solution", "report", "departures", "notation", "bench", "prf:proof")
HIDDEN = re.compile(r"^:[\w-]+:[^\n]*$|\{[\w:-]+\}`[^`]*`|^\|[^\n]*$", re.M)  # options, roles, tables
DISPLAY = re.compile(r"^\$\$.*?^\$\$|^```\{math\}.*?^```", re.M | re.S)
PROMISE = re.compile(r"\*Theory about (?P<theory>\d+) minutes, exercises about (?P<exercises>\d+)")
EXERCISE = re.compile(r"^(?P<fence>`{3,}|:{3,})\{exercise\}[^\n]*\n(?P<body>.*?)^(?P=fence)", re.M | re.S)
OPENING = re.compile(r"\A# [^\n]+\n\n(?P<said>[A-Z*][^\n]*(?:\n[^\n`]+)*)\n\n```\{explorable\}")
OPENING_WORDS = 40  # more, and a phone's first screen has no room for the picture
ASKED = re.compile(r"(?P<minutes>\d+) minutes")
FIGURE = re.compile(
    r"^(?P<fence>`{3,}|:{3,})\{(?P<kind>figure|picture|image)\}[^\n]*\n(?P<body>.*?)^(?P=fence)", re.M | re.S
)
INLINE = re.compile(r"!\[[^\]]*\]\([^)]+\)")


def opening(name: str, page: str) -> list[str]:
    """The first screen answers the page's question: a sentence or two, and a picture that moves."""
    found = OPENING.match(page)
    if not found:
        return [f"{name}: does not begin with a title, a sentence and an explorable"]
    count = len(found["said"].split())
    return [f"{name}: {count} words before the first picture, at most {OPENING_WORDS}"] if count > OPENING_WORDS else []


def figures(name: str, page: str) -> list[str]:
    """A chapter explains with pictures, and each says in words what is to be seen."""
    found = []
    pictures = list(FIGURE.finditer(page))
    if len(pictures) < FIGURES:
        found.append(f"{name}: {len(pictures)} figures, at least {FIGURES}")
    for match in pictures:
        caption = "\n".join(line for line in match["body"].splitlines() if not line.startswith(":"))
        if len(caption.split()) < 6:
            found.append(f"{name}:{page.count(chr(10), 0, match.start()) + 1}: a {match['kind']} without a caption")
    for match in INLINE.finditer(page):
        found.append(
            f"{name}:{page.count(chr(10), 0, match.start()) + 1}: a picture without a caption: {match[0][:40]}"
        )
    return found


def unfolded(page: str) -> str:
    """The page as one reads it from top to bottom: what is folded, exercises and the quiz are left out."""
    while True:
        shorter = BLOCK.sub(lambda m: "" if m["kind"].split(":")[-1] in FOLDED or m["kind"] in FOLDED else m[0], page)
        if shorter == page:
            return page
        page = shorter


def words(page: str) -> int:
    """Words of the theory; a formula counts as one."""
    text = HIDDEN.sub(" word ", MATH.sub(" formula ", unfolded(page)))
    return len(re.findall(r"[A-Za-z0-9][\w'’.-]*", re.sub(r"[`*_#{}:>|-]+", " ", text)))


def minutes(page: str) -> tuple[int, int]:
    """Minutes of theory and of exercises, counted: words, formulas and figures; what exercises and quiz ask for."""
    text = unfolded(page)
    theory = words(page) / WORDS_A_MINUTE + FORMULA_MINUTES * len(DISPLAY.findall(text))
    theory += FIGURE_MINUTES * len(FIGURE.findall(text)) + EXPLORABLE_MINUTES * text.count("{explorable}")
    theory += STATEMENT_MINUTES * len(re.findall(r"\{prf:(?:proposition|theorem|lemma)\}", text))
    asked = [ASKED.search(match["body"]) for match in EXERCISE.finditer(page)]
    exercises = sum(int(found["minutes"]) for found in asked if found)
    return round(theory), exercises + QUESTION_MINUTES * len(re.findall(r"^```\{quiz\}", page, re.M))


def promises(name: str, page: str) -> list[str]:
    """What a chapter says of a reader's time agrees with what is counted, and the theory can be read at one go."""
    found = [f"{name}: {count:,} words of theory, at most {WORDS:,}: fold"] if (count := words(page)) > WORDS else []
    told = PROMISE.search(page)
    if not told:
        return [*found, f"{name}: no line '*Theory about ... minutes, exercises about ...'"]
    counted = dict(zip(("theory", "exercises"), minutes(page)))
    return found + [f"{name}: {problem}" for problem in untrue(told, counted)]


def untrue(told: re.Match[str], counted: dict[str, int]) -> list[str]:
    """The promised minutes, by the groups of ``told``, that are far from what is counted."""
    return [
        f"says {what} about {told[what]} minutes, counted are {found}"
        for what, found in counted.items()
        if abs(int(told[what]) - found) > max(5, OFF * found)
    ]


def check(name: str, page: str) -> list[str]:
    """Every gate on one chapter."""
    return opening(name, page) + figures(name, page) + promises(name, page)
