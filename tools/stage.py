"""Lay out _build/staged: the book's pages with results filled in, and the executed notebooks in place of the sources.

Buttons follow the fork: BOOK_REPO (owner/name) and BOOK_BRANCH say where they point; without them GITHUB_REPOSITORY,
then the git remote, then _config.yml decide. Only what changed is written, so that Sphinx reads only that again.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import yaml

from tools import (
    BUILD,
    ROOT,
    bibtex,
    building,
    default_repo,
    explorables,
    notation,
    pictures,
    quiz,
    search,
    slides,
    tables,
    write_if_changed,
)  # fmt: skip
from tools.fences import expand
from tools.gates.html import toc_entries
from tools.glossary import link_terms, script, terms

OUT = BUILD / "staged"
WIDGET_MIME = "application/vnd.jupyter.widget-view+json"
MATHJAX = ("tex-chtml.js", "output/chtml/fonts/woff-v2/*", "input/tex/extensions/*.js")
LABS = "1234567"  # the notebooks that are labs of a chapter: their titles say so, or two pages would have one title
COLAB = "https://colab.research.google.com/github"


def repository(environ: dict = os.environ, root: Path = ROOT) -> tuple[str, str]:
    """Owner/name and branch that launch buttons point to."""
    remote = ["git", "-C", str(root), "remote", "get-url", "origin"]
    candidates = [environ.get("BOOK_REPO"), environ.get("GITHUB_REPOSITORY")]
    if not any(candidates):
        address = subprocess.run(remote, capture_output=True, text=True, check=False).stdout.strip()
        candidates.append(address if "github.com" in address else "")
    for candidate in filter(None, candidates):
        found = re.fullmatch(r"(?:.*github\.com[:/])?([\w.-]+/[\w.-]+?)(?:\.git)?/?", candidate)
        if not found:
            raise ValueError(f"the repository must be owner/name or a github.com address, got {candidate!r}")
        return found[1], environ.get("BOOK_BRANCH", "main")
    return default_repo(root), environ.get("BOOK_BRANCH", "main")


def staged_config(text: str, repo: str, branch: str) -> str:
    """_config.yml with the repository that the buttons shall use."""
    config = yaml.safe_load(text)
    config["repository"].update(url=f"https://github.com/{repo}", branch=branch)
    return yaml.safe_dump(config, sort_keys=False, allow_unicode=True)


def mathjax(folder: Path | None = None) -> dict[str, bytes]:
    """The formula renderer with its fonts from the pip package, without which offline pages would show raw TeX.

    The package's folder name holds hyphens, so it is found as a distribution's file and never imported.
    """
    if folder is None:
        from importlib.metadata import distribution

        folder = Path(distribution("sphinx-mathjax-offline").locate_file("sphinx-mathjax-offline/static/mathjax"))
    found = {p.relative_to(folder).as_posix(): p.read_bytes() for g in MATHJAX for p in folder.glob(g) if p.is_file()}
    if "tex-chtml.js" not in found:
        raise ValueError(f"sphinx-mathjax-offline holds no tex-chtml.js under {folder}; reinstall it")
    return found


def launch_card(name: str, about: dict, repo: str, branch: str) -> dict:
    """The cell under a notebook's title: where to run it, and when, with what and how long this page was run."""
    colab = f"{COLAB}/{repo}/blob/{branch}/notebooks/{name}"
    lines = [
        "```{div} launch-card",
        f"[Open in Colab]({colab}) · {{download}}`Download with outputs <{name}>`",
    ]
    if about:
        versions = f"Python {about['python']}, torch {about['torch']}"
        used = f"{about['seconds']} s with {about['memory_mb'] / 1024:.1f} GB of memory"
        allowed = f" at profile {about['profile']}, whose budget is {about['budget']}" if "budget" in about else ""
        lines.append(f"\nExecuted {about['executed']} in {used}{allowed} ({versions}).")
    return {"cell_type": "markdown", "id": "launch-card", "metadata": {}, "source": "\n".join([*lines, "```"])}


def strip_widgets(notebook: dict) -> dict:
    """Without the saved state of live widgets (checked by the gates before): the page has no kernel to move them."""
    notebook["metadata"].pop("widgets", None)
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"] = [o for o in cell["outputs"] if WIDGET_MIME not in o.get("data", {})]
    return notebook


def staged_notebook(path: Path, repo: str, branch: str, written_for: str) -> bytes:
    """An executed notebook as the book shows it: launch card, explorable, no widget state, the fork's address."""
    notebook = strip_widgets(json.loads(path.read_text("utf-8").replace(written_for, repo)))
    for output in [o for cell in notebook["cells"] for o in cell.get("outputs", ())]:
        if shown := output.get("data", {}).get("text/markdown"):
            output["data"]["text/markdown"] = tables.narrow("".join(shown))
    about = notebook["metadata"].pop("xai_course", {})
    title = notebook["cells"][0]
    if (number := path.stem.split("_")[0]) in LABS:
        title["source"] = re.sub(r"\A# (?!Lab )", f"# Lab {number}: ", "".join(title["source"]))
        shown = {"cell_type": "markdown", "id": "explorable", "metadata": {}}
        notebook["cells"].insert(1, shown | {"source": explorables.again(path.stem.partition("_")[2])})
    notebook["cells"].insert(1, launch_card(path.name, about, repo, branch))
    return json.dumps(notebook, indent=1, ensure_ascii=False).encode()


def assignments(repo: str) -> dict[str, bytes]:
    """The assignments without their solutions, which the chapters offer."""
    return {
        f"book/assignments/{path.name}": path.read_text("utf-8").replace(default_repo(), repo).encode()
        for path in sorted((ROOT / "notebooks" / "students").glob("*.ipynb"))
    }


def collect(repo: str, branch: str) -> tuple[dict[str, bytes], list[str]]:
    """Every file of the staged tree by its name, and the problems of the pages. Only what _toc.yml lists is staged."""
    files = {"_config.yml": staged_config((ROOT / "_config.yml").read_text("utf-8"), repo, branch).encode()}
    files["_toc.yml"] = (ROOT / "_toc.yml").read_bytes()
    listed = set(toc_entries(yaml.safe_load(files["_toc.yml"])))
    problems: list[str] = []
    glossary = (ROOT / "book" / "glossary.md").read_text("utf-8")
    files["book/_static/glossary.js"], known = script(glossary), terms(glossary)
    filled: dict[str, bytes] = {}
    cited = bibtex.entries((ROOT / "book" / "references.bib").read_text("utf-8"))
    for path in sorted((ROOT / "book").rglob("*")):
        name = path.relative_to(ROOT).as_posix()
        if path.suffix == ".md" and name.removesuffix(".md") in listed:
            text, papers = bibtex.offer(name, path.read_text("utf-8"), cited)
            filled[name] = notation.expand(name, expand(name, text)[0])[0].encode()
            text, unknown = expand(name, link_terms(name, slides.offer(text, repo, branch), known))
            text, malformed = quiz.expand(name, text)
            text, unlisted = notation.expand(name, text)
            text, unmade = explorables.expand(name, text)
            text, drawings, undrawn = pictures.expand(name, text)
            text = search.known_as(name, text)
            files |= papers | drawings | {name: tables.narrow(text).encode()}
            problems += unknown + malformed + unlisted + unmade + undrawn
        elif path.suffix != ".md" and path.is_file():
            files[name] = path.read_bytes()
    files |= slides.decks(filled)
    files |= {f"book/_static/vendor/mathjax/{name}": body for name, body in mathjax().items()}
    for path in [p for p in sorted((BUILD / "executed").glob("*.ipynb")) if f"notebooks/{p.stem}" in listed]:
        files[f"notebooks/{path.name}"] = staged_notebook(path, repo, branch, default_repo())
    files |= assignments(repo)
    files["CITATION.cff"] = (ROOT / "CITATION.cff").read_bytes()
    return files, problems


def sync(files: dict[str, bytes], out: Path) -> int:
    """Make ``out`` hold exactly ``files``; returns how many were written or removed."""
    changed = sum([write_if_changed(out / name, body) for name, body in files.items()])
    for path in [p for p in out.rglob("*") if p.is_file()]:
        if path.relative_to(out).as_posix() not in files:
            path.unlink()
            changed += 1
    return changed


def main() -> int:
    if importlib.util.find_spec("xai_course") is None:
        sys.exit("xai_course is not installed here; use make book")
    repo, branch = repository()
    files, problems = collect(repo, branch)
    for problem in problems:
        print(problem, file=sys.stderr)
    if problems:
        print(f"stage: {len(problems)} results that no record holds, or questions that are no quiz", file=sys.stderr)
        return 1
    pictures.forget_old()
    print(f"stage: {sync(files, OUT)} of {len(files)} files changed; buttons point to {repo}, branch {branch}")
    return 0


if __name__ == "__main__":
    with building():
        sys.exit(main())
