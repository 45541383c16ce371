"""Gates on the committed notebooks: what Colab opens and what git stores."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import yaml

from tools import assignment_paths, bootstrap, default_repo, notebook_paths, quiz
from tools.gates import chapters as theory
from tools.gates import labs, masters, prose
from tools.run_notebooks import code_cells, text

MAX_LINES = 20
MAX_COLUMNS = 80  # what a code cell of the book shows without scrolling; ruff formats the labs to it
MIN_QUESTIONS = 4
MYST = re.compile(
    r"^\s*(`{3,}|~{3,}|:{3,})\{[\w:.-]+\}"  # a directive's fence
    r"|\{[a-z][\w:.-]*\}`[^`]+`"  # a role
    r"|^\([\w:.-]+\)=\s*$"  # a target
    r"|^\+\+\+( |$)"  # a block break
    r"|\{\{ ?\w+ ?\}\}",  # a substitution
    re.M,
)
CODE_FENCE = re.compile(r"^(`{3,}|~{3,})[^{\n]*\n.*?^\1\s*$", re.M | re.S)
MATH = re.compile(r"\$\$.*?\$\$|\$[^$\n]+\$", re.S)
LAB = re.compile(r"\[lab\]\(\.\./notebooks/(?P<file>\w+\.ipynb)\)\s+takes\s+about\s+(?P<lab>\d+)\s+minutes")
LINK = re.compile(r"\]\(([^)\s#]+)(?:#[^)\s]*)?\)")


def no_outputs(notebook: dict) -> list[str]:
    """Nothing in git that a run has made."""
    found = []
    for at, cell in enumerate(code_cells(notebook)):
        if cell.get("outputs") or cell.get("execution_count") is not None:
            found.append(f"code cell {at} has outputs or an execution count; run nbstripout")
    if extra := set(notebook["metadata"]) & {"widgets", "papermill", "xai_course"}:
        found.append(f"the metadata hold {sorted(extra)}, left by a run; run nbstripout")
    return found


def stable_ids(notebook: dict) -> list[str]:
    """Cell ids are 0, 1, 2, ... as nbstripout writes them, so that a re-saved notebook gives no difference."""
    ids = [cell.get("id") for cell in notebook["cells"]]
    return [] if ids == [str(i) for i in range(len(ids))] else ["cell ids are not 0, 1, 2, ...; run nbstripout"]


def bootstrap_cell(notebook: dict, repo: str) -> list[str]:
    """The first code cell is the one text of tools/bootstrap.py, with its tags."""
    cells = code_cells(notebook)
    if not cells or text(cells[0]) != bootstrap.source(repo):
        return ["the first code cell is not the bootstrap cell of tools/bootstrap.py; run make set-repo"]
    tags = cells[0]["metadata"].get("tags")
    return [] if tags == bootstrap.TAGS else [f"the bootstrap cell must have tags {bootstrap.TAGS}, got {tags}"]


def parameters_cell(notebook: dict) -> list[str]:
    """The second code cell is tagged ``parameters``, begins with the profile and holds literals only."""
    cells = code_cells(notebook)[1:2]
    tagged = [c for c in code_cells(notebook) if "parameters" in c["metadata"].get("tags", [])]
    if tagged != cells:
        return ["the second code cell, and no other, must be tagged 'parameters'"]
    body = text(cells[0])
    found = [] if body.startswith(bootstrap.PARAMETERS) else [f"parameters must begin with: {bootstrap.PARAMETERS}"]
    for statement in ast.parse(body).body:
        try:
            ast.literal_eval(getattr(statement, "value", None))
        except (ValueError, TypeError):
            found.append(f"parameters hold more than a literal: {ast.unparse(statement)}")
    return found


def short_cells(notebook: dict) -> list[str]:
    """A longer block belongs into the package."""
    counts = [sum(bool(line.strip()) for line in text(cell).splitlines()) for cell in code_cells(notebook)]
    return [
        f"code cell {at} has {n} non-blank lines, at most {MAX_LINES}" for at, n in enumerate(counts) if n > MAX_LINES
    ]


def narrow_code(notebook: dict) -> list[str]:
    """Code is as narrow as the page of the book, quoted code in Markdown (a folded solution) too."""
    found = []
    for at, cell in enumerate(notebook["cells"]):
        code = cell["cell_type"] == "code"
        blocks = [text(cell)] if code else [match[0] for match in CODE_FENCE.finditer(text(cell))]
        wide = [line for block in blocks for line in block.splitlines() if len(line) > MAX_COLUMNS]
        found += [f"cell {at} has a code line of {len(line)} columns, at most {MAX_COLUMNS}: {line}" for line in wide]
    return found


def plain_markdown(notebook: dict) -> list[str]:
    """Colab shows MyST directives and roles as raw text, so notebooks hold none (quoted code is free)."""
    found = []
    for at, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] == "markdown":
            body = MATH.sub("", CODE_FENCE.sub("", text(cell)))
            found += [f"cell {at} has MyST that Colab shows raw: {match[0].strip()!r}" for match in MYST.finditer(body)]
    return found


def links_exist(notebook: dict, folder: Path) -> list[str]:
    """Relative links lead to files that are there."""
    found = []
    for at, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] == "markdown":
            targets = [t for t in LINK.findall(text(cell)) if not re.match(r"[a-z]+:", t)]
            found += [f"cell {at} links to {t}, which does not exist" for t in targets if not (folder / t).exists()]
    return found


def has_title(notebook: dict) -> list[str]:
    """The first cell is Markdown and starts with the only level-one heading."""
    first = notebook["cells"][0] if notebook["cells"] else {"cell_type": "none", "source": ""}
    if first["cell_type"] != "markdown" or not text(first).startswith("# "):
        return ["the first cell must be Markdown that begins with '# Title'"]
    return []


def check(path: Path, repo: str) -> list[str]:
    """Every gate on one notebook."""
    notebook = json.loads(path.read_text("utf-8"))
    gates = [no_outputs, stable_ids, short_cells, narrow_code, plain_markdown, has_title]
    gates.append(masters.check if path.parent.name in ("assignments", "students") else parameters_cell)
    found = [problem for gate in gates for problem in gate(notebook)]
    return found + bootstrap_cell(notebook, repo) + links_exist(notebook, path.parent)


def chapters(toc: dict) -> list[str]:
    """The theory pages, without labs and pages of differences."""
    numbered = [part for part in toc["parts"] if part.get("numbered")]
    return [f"{chapter['file']}.md" for part in numbered for chapter in part["chapters"]]


def quiz_of(name: str, page: str) -> list[str]:
    """A chapter has a quiz of well-formed questions, and who always says "B" does not pass it."""
    if malformed := quiz.expand(name, page)[1]:
        return malformed
    questions = quiz.questions(page)
    found = [] if len(questions) >= MIN_QUESTIONS else [f"{name}: {len(questions)} quiz questions, not {MIN_QUESTIONS}"]
    places = [tuple(option.right for option in question.options).index(True) for question in questions]
    if places and max(map(places.count, places)) > len(places) / 2:
        found.append(f"{name}: more than half of the right options stand at one place: {places}")
    return found


def check_all(root: Path) -> list[str]:
    repo, paths = default_repo(root), [*notebook_paths(root), *assignment_paths(root)]
    found = [f"{path.relative_to(root)}: {p}" for path in paths for p in check(path, repo)]
    found += [problem for path in notebook_paths(root) for problem in labs.check(path)]
    for path in [*sorted((root / "book").rglob("*.md")), *notebook_paths(root)]:
        found += prose.check(path.relative_to(root).as_posix(), running_text(path))
    pages = chapters(yaml.safe_load((root / "_toc.yml").read_text("utf-8")))
    texts = {name: (root / name).read_text("utf-8") for name in pages}
    found += [problem for name, page in texts.items() for problem in lab_time(name, page, root)]
    return found + [p for name, text in texts.items() for p in quiz_of(name, text) + theory.check(name, text)]


def running_text(path: Path) -> str:
    """A page's Markdown, or that of all cells of a notebook."""
    if path.suffix == ".md":
        return path.read_text("utf-8")
    cells = json.loads(path.read_text("utf-8"))["cells"]
    return "\n\n".join(text(cell) for cell in cells if cell["cell_type"] == "markdown")


def lab_time(name: str, page: str, root: Path) -> list[str]:
    """A chapter names its lab and how long it takes, exercises and all."""
    told = LAB.search(page)
    if not told:
        return [f"{name}: no '[lab](../notebooks/...) takes about ... minutes'"]
    counted = sum(labs.minutes(json.loads((root / "notebooks" / told["file"]).read_text("utf-8"))))
    return [f"{name}: {problem}" for problem in theory.untrue(told, {"lab": counted})]
