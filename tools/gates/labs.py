"""Gates on what a lab asks one to do: exercises with a check and a folded solution, live controls, a Try next.

And on what it says of itself: a caption below each figure, minutes that are true."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

from tools.gates import chapters
from tools.run_notebooks import code_cells, text

EXERCISES, CONTROLS, READINGS = 3, 2, 3  # at least
HEAD = re.compile(r"### Exercise (\d+): (\S.*)\n\n\*Difficulty [●○]{3} · importance [●○]{3} · \d+ minutes\*\n\n(?=\S)")
FOLD = re.compile(r"<details><summary>(.+?)</summary>\n\n(.+?)\n\n</details>", re.S)
CODE = re.compile(r"^```python\n(.*?)^```$", re.M | re.S)
CAPTION_WORDS = 6  # at least
WORDS_A_MINUTE = 200  # of prose and of code that one reads beside what it prints
TRY_MINUTES = 5  # of one question of Try next
PROMISE = re.compile(
    r"\*Reading and trying about (?P<reading>\d+) minutes, exercises about (?P<exercises>\d+)\.\s+"
    r"The cells\s+compute\s+for\s+about\s+(?P<computing>one|two) minutes? on one CPU thread"
)
ASKED = re.compile(r"^\*Difficulty .* (\d+) minutes\*$", re.M)
RECIPES = "8_your_own_loop"  # shows how parts fit together and trains nothing worth an experiment


def tags(cell: dict) -> list[str]:
    return cell["metadata"].get("tags", [])


def exercises(notebook: dict) -> list[tuple[str, str, str, str]]:
    """Title, stub, check and solution of each exercise whose four cells stand together."""
    found, cells = [], notebook["cells"]
    for head, stub, check, folded in zip(cells, cells[1:], cells[2:], cells[3:]):
        solution = FOLD.match(text(folded)) and CODE.search(text(folded))
        if (title := HEAD.match(text(head))) and "exercise" in tags(stub) and "check" in tags(check) and solution:
            found.append((title[1], text(stub), text(check), solution[1]))
    return found


def to_do(name: str, notebook: dict) -> list[str]:
    """What a lab lacks as something to do."""
    prose = [text(cell) for cell in notebook["cells"] if cell["cell_type"] == "markdown"]
    whole, started = exercises(notebook), sum(each.startswith("### Exercise") for each in prose)
    found = [] if len(whole) >= EXERCISES else [f"{len(whole)} exercises, at least {EXERCISES}"]
    if len(whole) < started:
        found.append(f"{started - len(whole)} exercises lack difficulty, importance, minutes, stub, check or solution")
    numbers = [int(title) for title, *_ in whole]
    if numbers != sorted(set(numbers)):
        found.append(f"exercises are numbered {numbers}")
    for title, stub, check, _ in whole:
        if "    ..." not in stub:
            found.append(f"exercise {title} has no stub: its answer stands there")
        if "exercise(" not in check:
            found.append(f"exercise {title} has no check")
        if not check.rstrip().endswith(";"):
            found.append(f"exercise {title} shows what its check returns: end it with a semicolon")
    for before, head in zip(notebook["cells"], notebook["cells"][1:]):
        said = text(before).strip() if before["cell_type"] == "markdown" else ""
        announced = said.endswith(":") or re.search(r"^##", said, re.M)  # a section begun, and no code of it yet
        if text(head).startswith("### Exercise") and announced:
            found.append(f"{text(head).splitlines()[0][4:]} stands between an announcement and its code")
    if (moving := controls(notebook)) < CONTROLS:
        found.append(f"{moving} live controls, at least {CONTROLS}")
    if not text(notebook["cells"][0]).startswith(f"# Lab {name[0]}: "):
        found.append(f"its title does not begin with 'Lab {name[0]}: '")
    found += captions(name, notebook) + promises(notebook)
    return found if name == RECIPES else found + try_next(notebook)


def captions(name: str, notebook: dict) -> list[str]:
    """Every figure that moves, and every one with an alternative text, has a caption and a name of its own."""
    found, names = [], []
    for at, cell in enumerate(code_cells(notebook)):
        about = cell["metadata"].get("mystnb", {})
        if "interact(" not in text(cell) and not {"image", "figure"} & set(about):
            continue
        figure = about.get("figure", {})
        names.append(figure.get("name", ""))
        if len(figure.get("caption", "").split()) < CAPTION_WORDS:
            found.append(f"code cell {at} shows a figure without a caption (metadata mystnb.figure.caption)")
        elif not names[-1].startswith(f"lab{name[0]}-") or names[-1] in names[:-1]:
            found.append(f"code cell {at}: a figure's name is its own and begins with lab{name[0]}-, got {names[-1]!r}")
    return found


def minutes(notebook: dict) -> tuple[int, int]:
    """Minutes of reading and trying, and of exercises, counted as `chapters.minutes` does for a theory page."""
    prose = "\n\n".join(text(cell) for cell in notebook["cells"] if cell["cell_type"] == "markdown")
    open_text, sources = FOLD.sub("", prose), [text(cell) for cell in code_cells(notebook)]
    words = chapters.words(open_text) + sum(len(re.findall(r"[A-Za-z_]\w*", source)) for source in sources)
    moving = sum("interact(" in source for source in sources)
    still = sum("figure" in cell["metadata"].get("mystnb", {}) for cell in code_cells(notebook)) - moving
    reading = words / WORDS_A_MINUTE + chapters.FIGURE_MINUTES * still + chapters.EXPLORABLE_MINUTES * moving
    questions = re.findall(r"^\d\. ", open_text.partition("## Try next\n")[2], re.M)
    return round(reading + TRY_MINUTES * len(questions)), sum(int(asked) for asked in ASKED.findall(open_text))


def promises(notebook: dict) -> list[str]:
    """What a lab's first cell says of a reader's time agrees with what is counted."""
    told = PROMISE.search(text(notebook["cells"][0]))
    if not told:
        return ["no '*Reading and trying about ... minutes, exercises about ... The cells compute for about ...'"]
    return chapters.untrue(told, dict(zip(("reading", "exercises"), minutes(notebook))))


def controls(notebook: dict) -> int:
    """How many keywords `show.slider.interact` is given as controls, in all cells together."""
    sources = [text(cell) for cell in code_cells(notebook) if "interact(" in text(cell)]
    calls = [node for source in sources for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    named = [node for node in calls if isinstance(node.func, ast.Name) and node.func.id == "interact"]
    return sum(keyword.arg != "start" for node in named for keyword in node.keywords)


def try_next(notebook: dict) -> list[str]:
    """Experiments to go on with, each with its reading folded behind a cell that prints the answer."""
    cells = notebook["cells"]
    for head, cell, readings in zip(cells, cells[1:], cells[2:]):
        if text(head).startswith("## Try next\n") and "try-next" in tags(cell):
            asked, read = len(re.findall(r"^\d\. ", text(head), re.M)), len(FOLD.findall(text(readings)))
            return [] if asked == read >= READINGS else [f"Try next asks {asked} questions and folds {read} readings"]
    return ["no Try next with a cell to change"]


def check(path: Path) -> list[str]:
    """Every problem of one lab."""
    notebook = json.loads(path.read_text("utf-8"))
    return [f"notebooks/{path.name}: {problem}" for problem in to_do(path.stem, notebook)]
