"""The runner: what makes it run again, what does not, and that one bad notebook harms no other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tools import run_notebooks as runner


def notebook(*sources: str, prose: str = "# Lab") -> dict:
    cells = [{"cell_type": "markdown", "id": "0", "metadata": {}, "source": prose}]
    for at, source in enumerate(sources, 1):
        tags = {"tags": ["parameters"]} if source.startswith("profile") else {}
        cells.append({"cell_type": "code", "id": str(at), "metadata": tags, "source": source, "outputs": []})
        cells[-1]["execution_count"] = None
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}


@pytest.fixture
def folder(tmp_path) -> Path:
    for name, content in {
        "xai_course/maps.py": "x = 1", "xai_course/cli.py": "y = 1", "data/results/a.json": "{}",
        "data/ledger/amc.csv": "paper",
    }.items():  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    return tmp_path


@pytest.mark.parametrize("name", ["xai_course/maps.py", "xai_course/new.py", "data/results/a.json", "data/new.npz"])
def test_a_change_that_a_notebook_can_see_runs_it_again(folder, name):
    before = runner.shared_digest(folder)
    (folder / name).write_text("changed")
    assert runner.shared_digest(folder) != before


@pytest.mark.parametrize("name", ["xai_course/cli.py", "data/ledger/amc.csv", "tests/test_x.py", "book/page.md"])
def test_a_change_that_no_notebook_can_see_does_not(folder, name):
    before = runner.shared_digest(folder)
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("changed")
    assert runner.shared_digest(folder) == before


def test_versions_are_part_of_the_key(folder, monkeypatch):
    before = runner.shared_digest(folder)
    monkeypatch.setattr(runner.metadata, "version", lambda name: "0.0")
    assert runner.shared_digest(folder) != before


def test_the_key_follows_code_tags_and_parameters_but_not_prose():
    lab = notebook("a = 1")
    key = runner.notebook_digest(lab, {}, "s")
    assert runner.notebook_digest(notebook("a = 1", prose="# Other words"), {}, "s") == key
    tagged = notebook("a = 1")
    tagged["cells"][1]["metadata"]["tags"] = ["hide-input"]
    others = [(notebook("a = 2"), {}, "s"), (tagged, {}, "s"), (lab, {"profile": "smoke"}, "s"), (lab, {}, "t")]
    assert all(runner.notebook_digest(*other) != key for other in others)


def test_a_parameter_that_does_not_exist_is_refused():
    lab = notebook('profile = "auto"')
    assert runner.check_source(lab, {"profile": "smoke"}) == ""
    assert "unknown parameters ['profil']" in runner.check_source(lab, {"profil": "smoke"})


def test_a_committed_notebook_with_outputs_is_refused():
    lab = notebook("a = 1")
    lab["cells"][1]["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "1"}]
    assert "run nbstripout" in runner.check_source(lab, {})


def test_literals_from_the_command_line():
    assert [runner.literal(v) for v in ("3", "True", "smoke", "(1, 2)")] == [3, True, "smoke", (1, 2)]


def stored_with(cache: Path, damage: str) -> Path:
    """The stored result of good.ipynb, spoilt."""
    (stored,) = cache.glob("good-*.ipynb")
    stored.write_text(damage)
    return stored


def test_one_failure_stops_no_other_and_nothing_unchanged_runs_twice(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(runner, "shared_digest", lambda: "the package as it is")
    monkeypatch.setenv("XAI_COURSE_CACHE", "downloads")
    monkeypatch.setenv("XAI_COURSE_LABS", str(tmp_path / "readers"))
    good, bad, slow = (tmp_path / name for name in ("good.ipynb", "bad.ipynb", "slow.ipynb"))
    line = "print(6 * 7, profile)"
    said = "print('device: cpu | profile: smoke | time and memory: 2 min, 2 GB')"
    labs = "import os\nfrom pathlib import Path\nPath(os.environ['XAI_COURSE_LABS'], 'kept').mkdir()\n"
    labs += "print(os.environ.get('XAI_COURSE_CACHE'), os.environ['XAI_COURSE_LABS'])"
    good.write_text(json.dumps(notebook('profile = "auto"', line, said, labs)))
    bad.write_text(json.dumps(notebook("1 / 0")))
    slow.write_text(json.dumps(notebook("while True:\n    pass")))
    folders = ["--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache"), "-j", "2"]

    assert runner.main([str(bad), str(slow), str(good), *folders, "--timeout", "8"]) == 1
    log = capsys.readouterr().out
    assert "ZeroDivisionError" in log and "slow.ipynb: FAILED" in log and "1 passed, 2 failed" in log
    assert "1 / 0" in (tmp_path / "cache" / "failed" / "bad.ipynb").read_text()
    done = json.loads((tmp_path / "out" / "good.ipynb").read_text())
    assert done["cells"][2]["outputs"][0]["text"] in ("42 auto\n", ["42 auto\n"])
    about = done["metadata"]["xai_course"]
    assert set(about) == {"executed", "seconds", "cpu_seconds", "memory_mb", "profile", "budget", "python", "torch"}
    assert about["profile"] == "smoke" and about["budget"] == "2 min, 2 GB" and 20 < about["memory_mb"] < 1000
    cache, kept = "".join(done["cells"][4]["outputs"][0]["text"]).split()
    assert cache == "downloads", "what was downloaded is found"
    assert kept != str(tmp_path / "readers") and not Path(kept).exists(), "labs train on a page, nothing is left"

    good.write_text(json.dumps(notebook('profile = "auto"', line, said, labs, prose="# New words")))
    assert runner.main([str(good), *folders]) == 0
    assert "good.ipynb: cached" in capsys.readouterr().out
    again = json.loads((tmp_path / "out" / "good.ipynb").read_text())
    for damage in ("", '{"cells": [', "[]", '{"cells": [], "metadata": {}}'):  # as good as absent
        assert runner.reused(json.loads(good.read_text()), stored_with(tmp_path / "cache", damage)) is None
    assert runner.main([str(good), *folders]) == 0
    assert "good.ipynb: ran" in capsys.readouterr().out
    assert (
        json.loads((tmp_path / "out" / "good.ipynb").read_text())["cells"][2]["outputs"] == done["cells"][2]["outputs"]
    )
    assert again["cells"][0]["source"] == "# New words" and again["cells"][2] == done["cells"][2]
