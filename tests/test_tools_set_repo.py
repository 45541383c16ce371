"""One command puts a fork's address everywhere, and everything in this repository agrees."""

from __future__ import annotations

import json

import pytest

from tools import bootstrap, default_repo, notebook_paths, set_repo
from tools.run_notebooks import code_cells, text

NOTEBOOKS = ["notebooks/lab.ipynb", "notebooks/students/cam.ipynb"]  # as in a sealed course, without masters


@pytest.fixture
def fork(tmp_path):
    (tmp_path / "_config.yml").write_text("repository:\n  url: https://github.com/OWNER/REPO\n")
    (tmp_path / "CITATION.cff").write_text('repository-code: "https://github.com/OWNER/REPO"\n')
    (tmp_path / "pyproject.toml").write_text('Issues = "https://github.com/OWNER/REPO/issues"\n')
    cell = {"cell_type": "code", "metadata": {"tags": bootstrap.TAGS}, "source": "old", "outputs": []}
    for name in NOTEBOOKS:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(json.dumps({"cells": [cell], "metadata": {}}))
    return tmp_path


def test_every_place_names_the_fork(fork):
    changed = ["_config.yml", "CITATION.cff", "pyproject.toml", *NOTEBOOKS]
    assert set_repo.set_repo("teacher/xai", fork) == changed
    assert default_repo(fork) == "teacher/xai"
    assert "teacher/xai" in (fork / "CITATION.cff").read_text()
    for name in NOTEBOOKS:
        notebook = json.loads((fork / name).read_text())
        assert "".join(notebook["cells"][0]["source"]) == bootstrap.source("teacher/xai")
    assert set_repo.set_repo("teacher/xai", fork) == []


@pytest.mark.parametrize("name", ["", "xai", "a/b/c", "https://github.com/a/b"])
def test_another_form_of_address_is_refused(fork, name):
    with pytest.raises(ValueError, match="owner/name"):
        set_repo.set_repo(name, fork)


def test_a_notebook_without_its_first_cell_is_named(fork):
    (fork / "notebooks" / "lab.ipynb").write_text(json.dumps({"cells": [], "metadata": {}}))
    with pytest.raises(ValueError, match=r"lab\.ipynb: expected one cell tagged 'setup', got 0"):
        set_repo.set_repo("teacher/xai", fork)


def test_all_notebooks_agree_with_the_configuration():
    expected = bootstrap.source(default_repo())
    wrong = [p.name for p in notebook_paths() if text(code_cells(json.loads(p.read_text("utf-8")))[0]) != expected]
    assert wrong == []
