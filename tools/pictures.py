"""Figures of the theory pages, drawn while the book is staged: a fence ``{picture} chapter.function``.

The function stands in ``tools/figures/<chapter>.py``, takes nothing and returns a matplotlib figure; it calls the
package's ``show`` functions or reads run records, so no picture is committed and none can go stale. The fence holds
``:name:`` (for ``{numref}``), ``:alt:`` and the caption. Each is drawn once and kept as two SVG files: one in dark ink,
one in light ink for the page in dark mode.
"""

from __future__ import annotations

import hashlib
import importlib
import io
import re
from functools import cache
from pathlib import Path

from tools import BUILD, ROOT, write_if_changed

FENCE = re.compile(
    r"^```\{picture\}[ \t]*(?P<what>\S*)[ \t]*\n(?P<options>(?::\w+:[^\n]*\n)*)(?P<caption>.*?)^```[ \t]*$", re.M | re.S
)
OPTION = re.compile(r"^:(?P<key>\w+):[ \t]*(?P<value>[^\n]*?)[ \t]*$", re.M)
OPTIONS = ("name", "alt", "width")
KEPT = BUILD / "pictures"
SOURCES = ("tools/figures/*.py", "tools/pictures.py", "xai_course/**/*.py", "data/results/**/*.json", "constraints.txt")
# Ink and the colours of `xai_course.show.style.CYCLE` that are too dark to be seen on a dark page.
DARK = {
    "#000000": "#ced6dd",
    "#4d4d4d": "#a9b1b8",
    "#0072b2": "#5ab4f0",
    "#d55e00": "#ff8b3d",
    "#009e73": "#3fcf9f",
    "#262626": "#ced6dd",
    "#00305a": "#b7d9f5",
}
COLOUR = re.compile(r"#[0-9a-f]{6}\b")


def drawn(what: str) -> str:
    """The SVG of one figure, its ground transparent.

    Raises:
        ValueError: no such function.
    """
    import matplotlib

    matplotlib.use("Agg")
    chapter, _, function = what.partition(".")
    try:
        make = getattr(importlib.import_module(f"tools.figures.{chapter}"), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"there is no function {function!r} in tools/figures/{chapter}.py ({error})") from error
    out = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": what, "svg.fonttype": "path"}):
        make().savefig(out, format="svg", transparent=True, bbox_inches="tight", metadata={"Date": None})
    return out.getvalue()


def darkened(svg: str) -> str:
    """The same picture for a dark page: light ink, brighter lines. Maps and photographs keep their colours."""
    inked = svg.replace("<svg ", f'<svg fill="{DARK["#000000"]}" ', 1)  # letters name no colour and would stay black
    return COLOUR.sub(lambda found: DARK.get(found[0], found[0]), inked)


@cache
def state(root: Path = ROOT) -> str:
    """Hash of all that a figure may depend on."""
    total = hashlib.sha256()
    for path in sorted(file for pattern in SOURCES for file in root.glob(pattern)):
        total.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes())
    return total.hexdigest()[:24]


def picture(what: str, kept: Path = KEPT) -> tuple[bytes, bytes]:
    """Both files of a figure, light and dark; from the last build where nothing has changed."""
    folder = kept / state()
    file = folder / f"{what}.svg"
    if not file.is_file():
        write_if_changed(file, drawn(what).encode())
    svg = file.read_text("utf-8")
    return svg.encode(), darkened(svg).encode()


def expand(page: str, text: str, make=picture) -> tuple[str, dict[str, bytes], list[str]]:
    """A page with its figures as MyST ``{figure}``, the files they need, and the problems as ``page:line: why``."""
    files: dict[str, bytes] = {}
    problems: list[str] = []

    def replaced(match: re.Match[str]) -> str:
        options = {found["key"]: found["value"] for found in OPTION.finditer(match["options"])}
        caption, what = match["caption"].strip(), match["what"]
        try:
            wrong = [key for key in options if key not in OPTIONS]
            if wrong or not options.get("name", "").startswith("fig-"):
                raise ValueError(f"options are {', '.join(OPTIONS)}, and the name begins with fig-, got {options}")
            if len(options.get("alt", "")) < 30 or len(caption.split()) < 6:
                raise ValueError(f"picture {what} needs an alt of at least 30 letters and a caption of six words")
            light, dark = make(what)
        except Exception as error:
            problems.append(f"{page}:{text.count(chr(10), 0, match.start()) + 1}: {error}")
            return match[0]
        stem = what.replace(".", "-")
        files[f"book/_pictures/{stem}.svg"] = light
        files[f"book/_static/pictures/{stem}.svg"] = dark
        width = f":width: {options['width']}\n" if "width" in options else ""
        head = f"```{{figure}} _pictures/{stem}.svg\n:name: {options['name']}\n:alt: {options['alt']}\n"
        return f"{head}:figclass: drawn\n{width}\n{caption}\n```"

    return FENCE.sub(replaced, text), files, problems


def forget_old(kept: Path = KEPT) -> None:
    """Remove what was drawn for other states than the present one."""
    import shutil

    for folder in kept.glob("*"):
        if folder.name != state():
            shutil.rmtree(folder, ignore_errors=True)
