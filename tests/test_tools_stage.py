"""Staging: results into prose, buttons that follow the fork, nothing rewritten that has not changed."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import yaml

from tools import fences, stage
from xai_course.runs import records


def test_fences_and_roles_are_replaced():
    page = "# T\n\n```{report} amc\n```\n\ngave {record}`amc/digits/ce accuracy` here\n"
    text, problems = fences.expand("p.md", page, lambda kind, name: f"<{kind} {name}>", lambda a: f"[{a}]")
    assert text == "# T\n\n<report amc>\n\ngave [amc/digits/ce accuracy] here\n" and problems == []


def test_an_unknown_result_names_page_and_line():
    page = "# T\n\ntext\n\nThe value {record}`amc/none/ce accuracy` is missing.\n"
    _, problems = fences.expand("book/amc.md", page)
    assert len(problems) == 1 and problems[0].startswith("book/amc.md:5: ") and "amc/none/ce" in problems[0]


def test_a_record_is_shown_with_spread_and_seeds(monkeypatch):
    metric = records.Metric((0.88, 0.9, 0.92))
    found = SimpleNamespace(metrics={"accuracy": metric}, seeds_text="3 seeds")
    asked = []
    monkeypatch.setattr(records, "load", lambda name, preset: asked.append((name, preset)) or found)
    assert fences.record_text("amc/digits/ce accuracy") == "0.900 ± 0.020 (3 seeds)"
    assert fences.record_text("amc/digits/ce accuracy colab") and asked[-1] == ("amc/digits/ce", "colab")
    assert fences.record_text("amc/digits/ce accuracy bare") == "0.900"
    assert fences.record_text("amc/digits/ce accuracy colab % bare") == "90.0"
    with pytest.raises(ValueError, match="no metric 'acuracy'; it has accuracy"):
        fences.record_text("amc/digits/ce acuracy")
    with pytest.raises(ValueError, match="expected 'experiment metric"):
        fences.record_text("amc/digits/ce")


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"BOOK_REPO": "teacher/xai", "BOOK_BRANCH": "v2", "GITHUB_REPOSITORY": "a/b"}, ("teacher/xai", "v2")),
        ({"BOOK_REPO": "https://github.com/teacher/xai.git"}, ("teacher/xai", "main")),
        ({"BOOK_REPO": "git@github.com:teacher/x.ai"}, ("teacher/x.ai", "main")),
        ({"GITHUB_REPOSITORY": "fork/xai"}, ("fork/xai", "main")),
    ],
)
def test_buttons_follow_the_fork(environ, expected):
    assert stage.repository(environ) == expected


def test_an_address_that_is_none_is_refused():
    with pytest.raises(ValueError, match="owner/name"):
        stage.repository({"BOOK_REPO": "not a repository"})


def test_without_a_remote_the_configuration_decides(tmp_path):
    (tmp_path / "_config.yml").write_text("repository:\n  url: https://github.com/some/where\n")
    assert stage.repository({}, tmp_path) == ("some/where", "main")


def test_the_staged_configuration_differs_only_in_the_repository():
    text = (stage.ROOT / "_config.yml").read_text("utf-8")
    before, after = yaml.safe_load(text), yaml.safe_load(stage.staged_config(text, "a/b", "v2"))
    assert after["repository"] == {"url": "https://github.com/a/b", "path_to_book": "", "branch": "v2"}
    assert {**after, "repository": 0} == {**before, "repository": 0}


def test_a_staged_notebook_has_card_and_fork_and_no_widget_state(tmp_path):
    widget = {"output_type": "display_data", "data": {stage.WIDGET_MIME: {}, "text/plain": "interactive(...)"}}
    kept = {"output_type": "stream", "name": "stdout", "text": "42"}
    cells = [
        {"cell_type": "markdown", "id": "0", "metadata": {}, "source": "# Angles"},
        {"cell_type": "code", "id": "1", "metadata": {}, "source": "git+.../OWNER/REPO.git", "outputs": [widget, kept]},
    ]
    about = {"executed": "2026-11-20", "seconds": 31, "memory_mb": 1075, "python": "3.11.7", "torch": "2.15.0"}
    about |= {"profile": "smoke", "budget": "2 min, 2 GB"}
    path = tmp_path / "2_amc.ipynb"
    path.write_text(json.dumps({"cells": cells, "metadata": {"widgets": {}, "xai_course": about}}))
    staged = json.loads(stage.staged_notebook(path, "a/b", "v2", "OWNER/REPO"))
    title, card, shown, code = staged["cells"]
    assert 'data-explorable="amc"' in shown["source"] and "```" not in shown["source"]
    assert title["source"] == "# Lab 2: Angles" and "widgets" not in staged["metadata"]
    assert "https://colab.research.google.com/github/a/b/blob/v2/notebooks/2_amc.ipynb" in card["source"]
    assert "Executed 2026-11-20 in 31 s with 1.0 GB of memory at profile smoke" in card["source"]
    assert "whose budget is 2 min, 2 GB (Python 3.11.7, torch 2.15.0)" in card["source"]
    assert code["outputs"] == [kept] and code["source"] == "git+.../a/b.git"


def test_every_assignment_is_offered_by_its_chapter_and_without_solutions():
    files = stage.assignments("a/b")
    pages = "".join(path.read_text("utf-8") for path in (stage.ROOT / "book").glob("*.md"))
    assert len(files) == 6
    for name, body in files.items():
        assert f"`notebook <{name.removeprefix('book/')}>`" in pages
        assert b"BEGIN SOLUTION" not in body and b"raise NotImplementedError()" in body and b"a/b" in body


def test_a_wide_table_that_a_cell_prints_is_split(tmp_path):
    table = "| row | " + " | ".join("abcdefgh") + " |\n|" + " --- |" * 9 + "\n| one |" + " 1 |" * 8 + "\n"
    output = {"output_type": "display_data", "data": {"text/markdown": [table]}, "metadata": {}}
    cells = [
        {"cell_type": "markdown", "id": "0", "metadata": {}, "source": "# Lab 8"},
        {"cell_type": "code", "id": "1", "metadata": {}, "source": "", "outputs": [output]},
    ]
    path = tmp_path / "8_tables.ipynb"
    path.write_text(json.dumps({"cells": cells, "metadata": {}}))
    staged = json.loads(stage.staged_notebook(path, "a/b", "v2", "OWNER/REPO"))
    assert staged["cells"][0]["source"] == "# Lab 8"
    assert staged["cells"][2]["outputs"][0]["data"]["text/markdown"].count("| row |") == 2


def test_sync_writes_only_what_changed_and_removes_what_went(tmp_path):
    assert stage.sync({"a/x.md": b"1", "y.md": b"2"}, tmp_path) == 2
    stamp = (tmp_path / "a/x.md").stat().st_mtime_ns
    assert stage.sync({"a/x.md": b"1", "z.md": b"3"}, tmp_path) == 2
    assert (tmp_path / "a/x.md").stat().st_mtime_ns == stamp and not (tmp_path / "y.md").exists()
    assert stage.sync({"a/x.md": b"1", "z.md": b"3"}, tmp_path) == 0


def test_formulas_are_rendered_without_a_network():
    files = stage.mathjax()
    assert "tex-chtml.js" in files and any(name.endswith(".woff") for name in files)
    assert sum(map(len, files.values())) < 4_000_000
