"""Gates on executed notebooks: what a reader would see."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from tools import notebook_paths
from tools.gates.labs import CAPTION_WORDS, PROMISE
from tools.run_notebooks import code_cells, text

MIN_ALT = 30
TRACEBACK = "Traceback (most recent call last)"
PAPERMILL_ERROR = "papermill-error-cell-tag"
KEPT = "a checkpoint of this very run is used"  # xai_course.runs.lab.fit
NOISE = re.compile(
    r"\r(?!\n)"  # a line drawn over itself
    r"|\d%\s*\|[ █▏▎▍▌▋▊▉#]|\bit/s\b|\bs/it\b"  # progress bars
    r"|^Requirement already|^Collecting \S"  # pip
    r"|Warning: ",
    re.M,
)
SECONDS = {"one": 60, "two": 120}  # as the first cell says, and measured may be a third or three times as many
SHOWN = ("image/png", "image/jpeg", "image/svg+xml")
SLIDER = 'class="xai-slider"'
MOST = 20_000  # characters that one cell may print onto a page
IMAGE = re.compile(r"<img\b[^>]*>", re.I)
ALT = re.compile(r"\balt\s*=\s*(\"([^\"]*)\"|'([^']*)')", re.I)


def output_text(output: dict) -> str:
    """The readable text of an output: a stream's, or its plain-text and HTML representations."""
    data = output.get("data", {})
    parts = [output.get("text", ""), data.get("text/plain", ""), data.get("text/html", "")]
    return "\n".join(part if isinstance(part, str) else "".join(part) for part in parts)


def no_errors(notebook: dict) -> list[str]:
    """No error output, no traceback printed by code that caught it, no cell that papermill marked."""
    found = []
    for at, cell in enumerate(code_cells(notebook)):
        for output in cell["outputs"]:
            if output["output_type"] == "error":
                found.append(f"code cell {at} raised {output.get('ename')}: {output.get('evalue')}")
            elif TRACEBACK in output_text(output):
                found.append(f"code cell {at} prints a traceback")
    marked = [c for c in notebook["cells"] if PAPERMILL_ERROR in c["metadata"].get("tags", [])]
    if marked or any((c["metadata"].get("papermill") or {}).get("exception") for c in notebook["cells"]):
        found.append("papermill marked an exception")
    return found


def all_executed(notebook: dict) -> list[str]:
    """Every code cell with code in it has run, in order."""
    counts = [cell.get("execution_count") for cell in code_cells(notebook) if text(cell).strip()]
    if None in counts:
        return [f"code cell {counts.index(None)} was not executed"]
    return [] if counts == sorted(counts) else ["the cells were not executed in order"]


def quiet(notebook: dict) -> list[str]:
    """No stderr, no warnings, no progress bars, no installer's chatter on a page."""
    found = []
    for at, cell in enumerate(code_cells(notebook)):
        for output in cell["outputs"]:
            if output["output_type"] == "stream" and output["name"] == "stderr":
                found.append(f"code cell {at} writes to stderr: {output_text(output)[:200]!r}")
            elif output["output_type"] == "stream" and (noise := NOISE.search(output_text(output))):
                found.append(f"code cell {at} prints {noise[0]!r}: a warning, progress bar or installer's output")
    return found


def strings(value: object) -> Iterator[str]:
    """Every text inside nested lists and dictionaries."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from strings(inner)


def widgets_healthy(notebook: dict) -> list[str]:
    """No exception hides in the saved state of a widget (an Output widget swallows what its callback raises)."""
    found = []
    for bundle in notebook["metadata"].get("widgets", {}).values():
        for name, model in bundle.get("state", {}).items():
            outputs = model.get("state", {}).get("outputs", [])
            raised = [o.get("ename") for o in outputs if isinstance(o, dict) and o.get("output_type") == "error"]
            if raised or any(TRACEBACK in s for s in strings(model)):
                found.append(f"widget {name} ({model.get('model_name')}) hides an exception {raised}")
    return found


def described_images(cell: dict) -> list[str]:
    """The alternative texts of a cell's figures, '' for one without."""
    described = cell["metadata"].get("mystnb", {}).get("image", {}).get("alt", "")
    found = []
    for output in cell["outputs"]:
        data = output.get("data", {})
        if any(kind.startswith("image/") for kind in data):
            found.append(described)
        html = data.get("text/html", "")
        for tag in IMAGE.findall(html if isinstance(html, str) else "".join(html)):
            alt = ALT.search(tag)
            found.append((alt[2] or alt[3] or "") if alt else "")
    return found


def alt_texts(notebook: dict) -> list[str]:
    """Each figure is described in words: a sentence of its own, not a heading said again."""
    titles = {
        line.strip("# .")
        for cell in notebook["cells"]
        if cell["cell_type"] == "markdown"
        for line in text(cell).splitlines()
        if line.startswith("#")
    }
    found, seen = [], {}
    for at, cell in enumerate(code_cells(notebook)):
        for alt in set(described_images(cell)):
            if len(alt.strip()) < MIN_ALT:
                found.append(f"code cell {at} shows a figure with the alternative text {alt!r}: too short")
            elif alt.strip(" .") in titles:
                found.append(f"code cell {at}: the alternative text only repeats a heading: {alt!r}")
            elif seen.setdefault(alt, at) != at:
                found.append(f"code cells {seen[alt]} and {at} have the same alternative text {alt!r}")
    return found


def captioned(notebook: dict) -> list[str]:
    """Each figure, one that moves too, has a caption on the page and with it a number."""
    found = []
    for at, cell in enumerate(code_cells(notebook)):
        data = [output.get("data", {}) for output in cell["outputs"]]
        shown = any(kind in each for each in data for kind in SHOWN)
        moves = any(SLIDER in "".join(each.get("text/html", "")) for each in data)
        caption = cell["metadata"].get("mystnb", {}).get("figure", {}).get("caption", "")
        if (shown or moves) and len(caption.split()) < CAPTION_WORDS:
            found.append(f"code cell {at} shows a {'slider' if moves else 'figure'} without a caption")
    return found


def measured(notebook: dict) -> list[str]:
    """What a page says of its cost is true: memory within the budget, minutes, every network trained there."""
    about = notebook["metadata"].get("xai_course", {})
    found, limit = [], re.search(r"(\d+) GB", about.get("budget", ""))
    if limit and about["memory_mb"] > 1024 * int(limit[1]):
        found.append(f"it took {about['memory_mb']} MB of memory, its budget is {about['budget']}")
    told = PROMISE.search(text(notebook["cells"][0])) if notebook["cells"] else None
    if told and about.get("profile") == "smoke":
        wanted, took = SECONDS[told["computing"]], about["cpu_seconds"]
        if not wanted / 3 <= took <= 3 * wanted:
            found.append(f"it says that its cells compute for {told['computing']} minutes, they took {took} s")
    for at, cell in enumerate(code_cells(notebook)):
        if any(KEPT in output_text(output) for output in cell["outputs"]):
            found.append(f"code cell {at} loads a network of an earlier run; pages show fresh ones")
    return found


def readable(notebook: dict) -> list[str]:
    """No cell prints more than a page can hold; figures and widgets do not count."""
    found = []
    for at, cell in enumerate(code_cells(notebook)):
        size = sum(len("".join(o.get("text", o.get("data", {}).get("text/plain", "")))) for o in cell["outputs"])
        if size > MOST:
            found.append(f"code cell {at} prints {size:,} characters, a page holds {MOST:,}: print less of it")
    return found


GATES = (no_errors, all_executed, quiet, widgets_healthy, alt_texts, captioned, measured, readable)


def check(notebook: dict) -> list[str]:
    """Every gate on one executed notebook."""
    return [problem for gate in GATES for problem in gate(notebook)]


def check_all(root: Path) -> list[str]:
    """The executed copies; one is missing for no committed notebook."""
    found = []
    for source in notebook_paths(root):
        path = root / "_build" / "executed" / source.name
        if path.is_file():
            found += [f"{path.name}: {problem}" for problem in check(json.loads(path.read_text("utf-8")))]
        else:
            found.append(f"{source.name} has not been executed")
    return found
