"""Figures that compute while they are dragged: a fence ``{explorable} name`` becomes figure, caption and scripts.

The fence's text is the caption. ``book/_static/explorables/<name>.js`` computes, ``still/<name>.svg`` stands in its
place where scripts are off. Scripts are plain ones and not modules: pages opened from a folder may load no modules.
"""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path

from tools import ROOT

FOLDER = ROOT / "book" / "_static" / "explorables"
FENCE = re.compile(r"^```\{explorable\}[ \t]*(?P<name>\S*)[ \t]*\n(?P<caption>.*?)^```[ \t]*$", re.M | re.S)


def names(folder: Path = FOLDER) -> list[str]:
    """What a page may ask for."""
    return sorted(path.stem for path in folder.glob("*.js") if path.stem != "core")


def data(name: str) -> str | None:
    """What ``data()`` in ``tools/figures/<name>.py`` returns, as JSON that may stand in a page; None without one."""
    if not (ROOT / "tools" / "figures" / f"{name}.py").is_file():
        return None
    make = getattr(importlib.import_module(f"tools.figures.{name}"), "data", None)
    return None if make is None else json.dumps(make()).replace("</", "<\\/")


def figure(name: str, caption: str, *, first: bool, folder: Path = FOLDER) -> str:
    """The figure in Markdown: raw HTML around the caption, which stays Markdown.

    Args:
        first: whether the shared core must still be loaded on this page.

    Raises:
        ValueError: an unknown name, no caption, or no still picture.
    """
    if name not in names(folder):
        raise ValueError(f"explorables are {', '.join(names(folder))}, got {name!r}")
    if len(caption.split()) < 8:
        raise ValueError(f"explorable {name} needs a caption of at least eight words, got {caption.strip()!r}")
    still = folder / "still" / f"{name}.svg"
    if not still.is_file():
        raise ValueError(f"explorable {name} has no picture for readers without scripts: {still.name} is missing")
    wanted = ["core", name] if first else [name]
    given = data(name)
    numbers = "" if given is None else f'<script type="application/json" class="ex-data">{given}</script>'
    scripts = "".join(f'<script defer src="../_static/explorables/{each}.js"></script>' for each in wanted)
    opened = f'<figure class="explorable" id="explorable-{name}" data-explorable="{name}"><div class="ex-stage">'
    before = f"{opened}{still.read_text('utf-8').strip()}</div><figcaption>"
    return "\n\n".join(
        [_raw(before), f"**Try it.** {caption.strip()}", _raw(f"</figcaption>{numbers}</figure>{scripts}")]
    )


def expand(page: str, text: str, folder: Path = FOLDER) -> tuple[str, list[str]]:
    """A page with all its explorables, and the problems found as ``page:line: why``."""
    problems: list[str] = []
    begun = False

    def replaced(match: re.Match[str]) -> str:
        nonlocal begun
        try:
            made = figure(match["name"], match["caption"], first=not begun, folder=folder)
        except ValueError as error:
            problems.append(f"{page}:{text.count(chr(10), 0, match.start()) + 1}: {error}")
            return match[0]
        begun = True
        return made

    return FENCE.sub(replaced, text), problems


def again(chapter: str, folder: Path = FOLDER) -> str:
    """The figure that opens ``book/<chapter>.md``, for a cell of its lab.

    In plain HTML: a notebook that was downloaded shows the still picture and the caption in Jupyter, and no markup.
    """
    opening = FENCE.search((ROOT / "book" / f"{chapter}.md").read_text("utf-8"))
    if not opening:
        raise ValueError(f"book/{chapter}.md holds no explorable for its lab")
    made = figure(opening["name"], opening["caption"], first=True, folder=folder)
    return made.replace("```{raw} html\n", "").replace("\n```", "")


def _raw(html: str) -> str:
    return f"```{{raw}} html\n{html}\n```"
