"""Each gate is fed a sound case, which it lets pass, and a broken one, which it must stop."""

from __future__ import annotations

import copy
import json
import time
from pathlib import Path

import pytest

from tools import ROOT, bootstrap
from tools.gates import executed, html, masters, sources

REPO = "OWNER/REPO"
ALT = "A curve that falls from one to zero while the epochs pass by."
CAPTION = "Loss over epochs: it falls for all."


def code(at: int, source: str, tags: list[str] | None = None, **metadata) -> dict:
    metadata = {**({"tags": tags} if tags else {}), **metadata}
    return {
        "cell_type": "code", "id": str(at), "metadata": metadata, "source": source, "outputs": [],
        "execution_count": None,
    }  # fmt: skip


def committed() -> dict:
    cells = [
        {"cell_type": "markdown", "id": "0", "metadata": {}, "source": "# A lab\n\nText with $a_{b}$."},
        code(1, bootstrap.SOURCE, bootstrap.TAGS),
        code(2, bootstrap.PARAMETERS + "\nepochs = 3", ["parameters"]),
        code(3, "plot()", mystnb={"image": {"alt": ALT}, "figure": {"caption": CAPTION}}),
    ]
    return {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


def stream(text: str, name: str = "stdout") -> dict:
    return {"output_type": "stream", "name": name, "text": text}


def shown(**data) -> dict:
    return {"output_type": "display_data", "metadata": {}, "data": data}


def run() -> dict:
    """The sound notebook after a sound run."""
    notebook = committed()
    for count, cell in enumerate(notebook["cells"][1:], 1):
        cell["execution_count"] = count
    notebook["cells"][1]["outputs"] = [stream("device: cpu")]
    notebook["cells"][3]["outputs"] = [shown(**{"image/png": "iVBORw0K", "text/plain": "<Figure size 640x480>"})]
    return notebook


def problems_of_source(notebook: dict, tmp_path: Path) -> str:
    path = tmp_path / "lab.ipynb"
    path.write_text(json.dumps(notebook))
    return "\n".join(sources.check(path, REPO))


def test_a_sound_notebook_passes_every_gate(tmp_path):
    assert problems_of_source(committed(), tmp_path) == ""
    assert executed.check(run()) == []


SOURCE_FAULTS = {
    "outputs": (lambda n: n["cells"][3]["outputs"].append(stream("hi")), "has outputs"),
    "count": (lambda n: n["cells"][3].update(execution_count=4), "has outputs or an execution count"),
    "widget state": (lambda n: n["metadata"].update(widgets={}), "the metadata hold"),
    "ids": (lambda n: n["cells"][3].update(id="a1b2"), "cell ids"),
    "bootstrap text": (lambda n: n["cells"][1].update(source=bootstrap.SOURCE + "\n"), "not the bootstrap cell"),
    "bootstrap repo": (lambda n: n["cells"][1].update(source=bootstrap.source("a/b")), "not the bootstrap cell"),
    "bootstrap tags": (lambda n: n["cells"][1]["metadata"].update(tags=["setup"]), "must have tags"),
    "no parameters": (lambda n: n["cells"][2]["metadata"].pop("tags"), "must be tagged 'parameters'"),
    "other profile": (lambda n: n["cells"][2].update(source="profile = 'auto'"), "parameters must begin"),
    "computed": (lambda n: n["cells"][2].update(source=bootstrap.PARAMETERS + "\nn = f()"), "more than a literal"),
    "long cell": (lambda n: n["cells"][3].update(source="x = 1\n" * 21), "21 non-blank lines"),
    "wide code": (lambda n: n["cells"][3].update(source=f"x = {'1' * 77}"), "cell 3 has a code line of 81 columns"),
    "wide solution": (
        lambda n: n["cells"][0].update(source=f"# A\n\n```python\nx = {'1' * 77}\n```"),
        "cell 0 has a code line of 81 columns",
    ),
    "directive": (lambda n: n["cells"][0].update(source="# A\n\n```{note}\nhi\n```"), "MyST"),
    "colon fence": (lambda n: n["cells"][0].update(source="# A\n\n:::{tip}\nhi\n:::"), "MyST"),
    "role": (lambda n: n["cells"][0].update(source="# A\n\nsee {cite:p}`choi2020`"), "MyST"),
    "target": (lambda n: n["cells"][0].update(source="# A\n\n(here)=\ntext"), "MyST"),
    "title": (lambda n: n["cells"][0].update(source="text"), "'# Title'"),
    "link": (lambda n: n["cells"][0].update(source="# A\n\n[x](../book/none.md)"), "does not exist"),
}


@pytest.mark.parametrize("fault", SOURCE_FAULTS)
def test_a_broken_source_is_stopped(fault, tmp_path):
    notebook = committed()
    break_it, expected = SOURCE_FAULTS[fault]
    break_it(notebook)
    assert expected in problems_of_source(notebook, tmp_path)


def cell_with(notebook: dict, words: str) -> dict:
    return next(cell for cell in notebook["cells"] if words in "".join(cell["source"]))


def moved(notebook: dict, words: str, behind: str) -> None:
    cell = cell_with(notebook, words)
    notebook["cells"].remove(cell)
    notebook["cells"].insert(notebook["cells"].index(cell_with(notebook, behind)) + 1, cell)


def reworded(words: str, by: str):
    def change(notebook: dict) -> None:
        cell = cell_with(notebook, words)
        cell["source"] = "".join(cell["source"]).replace(words, by)

    return change


ASSIGNMENT_FAULTS = {
    "minutes": (reworded("(4 points, 15 minutes)", "(4 points, 25 minutes)"), "the parts have (100, 60, 20, 8)"),
    "points": (reworded("(4 points, 15 minutes)", "(5 points, 15 minutes)"), "the headings [5, 3"),
    "marks": (
        lambda n: cell_with(n, "assert check_ramp")["metadata"]["nbgrader"].update(points=1),
        "the cells give [4",
    ),
    "no part": (reworded("## 5. ", "### 5. "), "expected a head"),
    "head": (reworded("**Time** 90 minutes", "**Time** an hour"), "expected a head"),
    "parameters": (reworded('student = "anonymous"', "student = input()"), "the student id alone"),
    "prediction": (lambda n: moved(n, "prediction = ", "# experiment: run"), "runs without it"),
    "no assertion": (reworded("assert len(prediction.split()) >= 8", "assert True"), "runs without it"),
    "verdict": (lambda n: moved(n, "verdict = ", "# experiment: run"), "no control stands between"),
    "no reason": (lambda n: n["cells"].remove(cell_with(n, "reason = ")), "expected cells reason"),
}


@pytest.mark.parametrize("fault", ASSIGNMENT_FAULTS)
def test_a_broken_assignment_is_stopped(fault):
    notebook = json.loads((ROOT / "notebooks" / "students" / "amc.ipynb").read_text("utf-8"))
    assert masters.check(notebook) == []
    break_it, expected = ASSIGNMENT_FAULTS[fault]
    break_it(notebook)
    assert expected in "\n".join(masters.check(notebook))


def test_quoted_code_and_mathematics_are_not_myst(tmp_path):
    notebook = committed()
    notebook["cells"][0]["source"] = "# A\n\n```\n```{note}\n```\n\n$\\mathbb{R}`x`$ and ```python\nx = {1}\n```"
    assert "MyST" not in problems_of_source(notebook, tmp_path).replace("```{note}", "")


TRACE = "Traceback (most recent call last):\n  File ..."
HIDDEN = {"model_name": "OutputModel", "state": {"outputs": [{"output_type": "error", "ename": "KeyError"}]}}
WIDGETS = "application/vnd.jupyter.widget-state+json"


def first(notebook: dict) -> list:
    return notebook["cells"][1]["outputs"]


PROMISED = (
    "# A lab\n\n*Reading and trying about 5 minutes, exercises about 5. The cells\ncompute for about one "
    "minute on one CPU thread.*"
)
TOOK = {"profile": "smoke", "memory_mb": 1}
EXECUTED_FAULTS = {
    "error": (lambda n: first(n).append({"output_type": "error", "ename": "KeyError", "evalue": "k"}), "raised"),
    "caught traceback": (lambda n: first(n).append(stream(TRACE)), "prints a traceback"),
    "traceback in html": (lambda n: first(n).append(shown(**{"text/html": TRACE})), "prints a traceback"),
    "papermill tag": (lambda n: n["cells"][0]["metadata"].update(tags=[executed.PAPERMILL_ERROR]), "papermill marked"),
    "papermill exception": (
        lambda n: n["cells"][2]["metadata"].update(papermill={"exception": True}), "papermill marked"),
    "not run": (lambda n: n["cells"][3].update(execution_count=None), "not executed"),
    "out of order": (lambda n: n["cells"][3].update(execution_count=1), "in order"),
    "stderr": (lambda n: first(n).append(stream("careful", "stderr")), "stderr"),
    "warning": (lambda n: first(n).append(stream("lab.py:3: UserWarning: old")), "a warning"),
    "progress bar": (lambda n: first(n).append(stream(" 50%|#####     | 5/10")), "progress bar"),
    "redrawn line": (lambda n: first(n).append(stream("epoch 1\repoch 2")), "progress bar"),
    "installer": (lambda n: first(n).append(stream("Requirement already satisfied: torch")), "installer"),
    "hidden exception": (lambda n: n["metadata"].update(widgets={WIDGETS: {"state": {"m": HIDDEN}}}), "hides"),
    "no alt": (lambda n: n["cells"][3]["metadata"].clear(), "too short"),
    "short alt": (lambda n: n["cells"][3]["metadata"]["mystnb"]["image"].update(alt="A curve."), "too short"),
    "same alt": (lambda n: n["cells"].append({**copy.deepcopy(n["cells"][3]), "execution_count": 9}), "same alt"),
    "title as alt": (lambda n: n["cells"][0].update(source=f"# {ALT}"), "repeats a heading"),
    "html image": (lambda n: first(n).append(shown(**{"text/html": ['<img src="data:x"', ">"]})), "too short"),
    "no caption": (lambda n: n["cells"][3]["metadata"]["mystnb"].pop("figure"), "shows a figure without a caption"),
    "slider without caption": (
        lambda n: first(n).append(shown(**{"text/html": ['<div class="xai-slider">', "</div>"]})),
        "code cell 0 shows a slider without a caption"),
    "slow": (
        lambda n: (n["cells"][0].update(source=PROMISED), n["metadata"].update(xai_course=TOOK | {"cpu_seconds": 181})),
        "compute for one minutes, they took 181 s"),
    "instant": (
        lambda n: (n["cells"][0].update(source=PROMISED), n["metadata"].update(xai_course=TOOK | {"cpu_seconds": 19})),
        "compute for one minutes, they took 19 s"),
    "memory": (
        lambda n: n["metadata"].update(xai_course={"memory_mb": 2049, "budget": "2 min, 2 GB"}), "its budget is 2 min"),
    "not trained": (lambda n: first(n).append(stream(f"HNC: {executed.KEPT}; resume=False")), "of an earlier run"),
}  # fmt: skip


@pytest.mark.parametrize("fault", EXECUTED_FAULTS)
def test_a_broken_run_is_stopped(fault):
    notebook = run()
    break_it, expected = EXECUTED_FAULTS[fault]
    break_it(notebook)
    assert expected in "\n".join(executed.check(notebook))


@pytest.mark.parametrize("word", ["w", "1", "_", "9%", " ", "Warning", "\n"])
def test_a_long_output_is_judged_in_linear_time_and_stopped(word):
    """The patterns once took 3.7 s for 40,000 characters of one word, and 100 times that for 400,000."""
    notebook = run()
    first(notebook).append(stream(word * 400_000))
    began = time.perf_counter()
    found = "\n".join(executed.check(notebook))
    assert time.perf_counter() - began < 5 and "characters, a page holds 20,000: print less of it" in found


def test_many_lines_are_stopped_and_a_figure_is_not_measured():
    notebook = run()
    first(notebook).append(stream("line\n" * 200_000))
    assert "code cell 0 prints 1,000,011 characters" in "\n".join(executed.check(notebook))
    notebook = run()
    first(notebook).append(shown(**{"text/plain": "<Figure>", "text/html": "x" * 100_000}))
    assert executed.check(notebook) == []


def test_a_missing_run_is_stopped(tmp_path):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "lab.ipynb").write_text(json.dumps(committed()))
    assert executed.check_all(tmp_path) == ["lab.ipynb has not been executed"]


PAGE = """<link rel="stylesheet" href="_static/a.css"><script src="_static/b.js"></script>
<img src="x.png" alt="A digit on gravel."><a href="https://example.org/paper">paper</a>
<a href="https://colab.research.google.com/github/a/b/blob/main/notebooks/lab.ipynb">Colab</a>"""
TRACKED = {"notebooks/lab.ipynb"}
PAGE_FAULTS = {
    '<script src="https://cdn.example.org/x.js"></script>': "from the network",
    '<script src="//cdn.example.org/x.js"></script>': "from the network",
    '<link rel="stylesheet" href="https://fonts.example.org/x.css">': "from the network",
    '<link rel="preload" href="https://fonts.example.org/x.woff2">': "from the network",
    '<img src="https://example.org/badge.svg" alt="A badge of some kind">': "from the network",
    "<style>@import 'https://example.org/x.css';</style>": "from the network",
    '<div style="background: url(https://example.org/x.png)"></div>': "from the network",
    '<img src="y.png">': "alternative text",
    '<img src="y.png" alt="">': "alternative text",
    '<img src="y.png" alt="_images/y.png">': "alternative text",
    '<a href="https://github.com/a/b/blob/main/notebooks/gone.ipynb">Colab</a>': "does not track",
    '<a href="https://github.com/a/b/edit/main/book/gone.md">edit</a>': "does not track",
    "<table><tr>" + "<td>1</td>" * 8 + "</tr></table>": "a table has 8 columns, at most 7",
    "<p>| a | b | | --- | --- | | 1 | 2 |</p>": "a table is shown as raw text",
}


def test_a_sound_page_passes():
    assert html.check_page(html.Page(PAGE), TRACKED) == []


@pytest.mark.parametrize("fault", PAGE_FAULTS)
def test_a_broken_page_is_stopped(fault):
    assert PAGE_FAULTS[fault] in "\n".join(html.check_page(html.Page(PAGE + fault), TRACKED))


def test_a_table_in_quoted_code_is_no_raw_table():
    assert html.tables_set(html.Page("<pre>| a |\n| --- |</pre><table><tr><td colspan='7'>1</td></tr></table>")) == []


def test_two_pages_of_one_title_are_found_whatever_their_number():
    titles = {"book/a.html": "1. Where? — Course", "notebooks/1.html": "Where? — Course", "book/b.html": "Here"}
    assert html.own_titles(titles) == ["book/a.html and notebooks/1.html have one title: '1. Where? — Course'"]


def test_a_page_that_the_search_does_not_find_by_its_other_name_is_named():
    index = 'Search.setIndex({"docnames": ["book/a", "book/b"], "terms": {"heatmap": 0, "salienc": [0, 1]}})'
    wanted = {"book/a": "heatmap saliency", "book/b": "saliency heatmap of", "book/c": "rollout"}
    assert html.searched(index, lambda word: word.replace("saliency", "salienc"), wanted) == [
        "search for 'heatmap' does not find book/b"
    ]


TOC = """format: jb-book
root: book/intro
parts:
  - caption: One
    chapters:
      - file: book/theory
        sections:
          - file: notebooks/lab
"""


def site(tmp_path: Path) -> Path:
    for name in ("book/intro", "book/theory", "notebooks/lab"):
        page = tmp_path / "_build" / "html" / f"{name}.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(f"<title>{name}</title><p>hello</p>")
        source = tmp_path / (f"{name}.ipynb" if name.startswith("n") else f"{name}.md")
        source.parent.mkdir(exist_ok=True)
        source.write_text("{}")
    (tmp_path / "_toc.yml").write_text(TOC)
    (tmp_path / "_build" / "html" / "searchindex.js").write_text('Search.setIndex({"docnames": [], "terms": {}})')
    return tmp_path


def test_a_page_that_sphinx_dropped_is_missed(tmp_path):
    root = site(tmp_path)
    assert html.check_all(root) == []
    (root / "_build" / "html" / "notebooks" / "lab.html").unlink()
    assert html.check_all(root) == ["_toc.yml names notebooks/lab, but there is no page"]


def test_a_source_without_a_place_in_the_contents_is_found(tmp_path):
    root = site(tmp_path)
    (root / "book" / "lost.md").write_text("# Lost")
    assert html.check_all(root) == ["book/lost is not in _toc.yml"]


def test_a_style_sheet_that_needs_the_network_is_stopped(tmp_path):
    root = site(tmp_path)
    (root / "_build" / "html" / "x.css").write_text("body { background: url('https://example.org/x.png') }")
    assert "x.css: needs https://example.org/x.png" in html.check_all(root)[0]


def test_a_link_to_a_page_that_was_not_built_is_found(tmp_path):
    root = site(tmp_path)
    page = root / "_build" / "html" / "book" / "intro.html"
    page.write_text('<a href="theory.html#top">a</a><a href="../notebooks/lab.html">b</a><a href="gone.zip">c</a>')
    assert html.check_all(root) == ["book/intro.html: a link leads to gone.zip, which is not there"]
