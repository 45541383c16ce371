"""Grading strangers' notebooks: every fault stays inside, every score is kept."""

from __future__ import annotations

import csv
import json
import shutil
import zipfile
from ast import literal_eval

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from tools import ROOT
from tools.classroom import __main__ as cli
from tools.classroom import course, sandbox
from tools.classroom.sandbox import Limits, execute

needs_bwrap = pytest.mark.skipif(
    shutil.which("bwrap") is None, reason="bubblewrap is not installed (apt-get install bubblewrap)"
)


def notebook(*sources):
    return new_notebook(cells=[new_code_cell(source) for source in sources])


def errors(done, index):
    return [o["ename"] for o in done.cells[index] if o["output_type"] == "error"]


def text(done, index):
    return "".join(o.get("text", "") for o in done.cells[index])


# --- the sandbox -----------------------------------------------------------------------------------------------------


@needs_bwrap
def test_a_submission_sees_no_host_no_key_and_no_network(tmp_path):
    secret = tmp_path / "solutions.txt"
    secret.write_text("42")
    done = execute(
        notebook(
            "print('ran')",
            f"print(open({str(secret)!r}).read())",
            f"open({str(tmp_path / 'written')!r}, 'w')",
            "import urllib.request\nurllib.request.urlopen('http://192.0.2.1', timeout=5)",
            f"import os\nprint(*(os.listdir({str(ROOT)!r} + at) for at in ('', '/tools', '/tools/classroom')))",
            "print(sorted(k for k in os.environ if 'SECRET' in k))",
            "import xai_course.checks.cam\nopen('own.txt', 'w').write('x')",
        ),
        Limits(),
    )
    assert done.stopped == "" and text(done, 0) == "ran\n"
    assert errors(done, 1) == ["FileNotFoundError"] and errors(done, 2) == ["FileNotFoundError"]
    assert errors(done, 3) == ["URLError"]
    top, tools, classroom = map(literal_eval, text(done, 4).replace("] [", "]\n[").splitlines())
    assert set(top) <= {"data", "tools", "xai_course", ".venv"} and (tools, classroom) == (["classroom"], ["runner.py"])
    assert text(done, 5) == "[]\n" and not errors(done, 6)
    assert list(tmp_path.iterdir()) == [secret]


ENDLESS = notebook("x = 1", "while True: pass", "print('after')")
HOG = notebook("x = 1", "hog = []\nwhile True: hog.append(bytearray(30_000_000))", "x")
FLOOD = notebook(
    "x = 1",
    "import subprocess\nfor _ in range(200): subprocess.Popen(['sleep', '30']).poll()\nimport time\ntime.sleep(30)",
)


@needs_bwrap
@pytest.mark.parametrize(
    ("submission", "limits", "stopped"),
    [
        (HOG, Limits(memory_mb=600), "used more than 600 MB of memory"),
        (FLOOD, Limits(processes=40), "started more than 40 processes"),
        (notebook("x = 1", "import os\nos._exit(0)", "x"), Limits(), "the kernel died"),
        (notebook("x = 1", "print('a' * 9_000_000)", "x"), Limits(output_mb=2), "printed more than 2 MB"),
        (notebook("x = 1", "import time\ntime.sleep(90)", "x"), Limits(seconds=20), "took longer than 20 s"),
    ],
    ids=["memory", "processes", "exit", "output", "time"],
)
def test_limits_stop_a_submission_and_what_ran_before_counts(submission, limits, stopped):
    done = execute(submission, limits)
    assert done.stopped == stopped
    assert 0 in done.cells and 2 not in done.cells
    import psutil

    assert not [p for p in psutil.Process().children(recursive=True) if p.status() != psutil.STATUS_ZOMBIE]


@needs_bwrap
def test_an_endless_cell_is_interrupted_and_the_rest_still_runs():
    done = execute(ENDLESS, Limits(cell_seconds=2))
    assert done.stopped == "" and errors(done, 1) and text(done, 2) == "after\n"


def test_without_bubblewrap_grading_refuses_and_names_the_way_round(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sandbox.shutil, "which", lambda name: None)
    (tmp_path / "m").mkdir()
    nbformat.write(master(), tmp_path / "m" / "sums.ipynb")
    command = ["grade", str(tmp_path), "--assignment", "sums", "--masters", str(tmp_path / "m"), "--out", str(tmp_path)]
    assert cli.main(command) == 2
    message = capsys.readouterr().err
    assert "bubblewrap (bwrap) is not installed" in message and "--no-sandbox" in message
    command[3] = "summs"
    assert cli.main(command) == 2 and "did you mean 'sums'" in capsys.readouterr().err


# --- a whole course --------------------------------------------------------------------------------------------------


BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"


def master():
    def cell(source, **settings):
        return new_code_cell(source, metadata={"nbgrader": {"schema_version": 3, "task": False, **settings}})

    solved = {"grade": False, "locked": False, "solution": True, "cell_type": "code"}
    tested = {"grade": True, "locked": True, "solution": False, "cell_type": "code"}
    return new_notebook(
        cells=[
            cell(f"def double(x):\n    {BEGIN}\n    return 2 * x\n    {END}", grade_id="d", **solved),
            cell(
                "assert double(1) == 2\n### BEGIN HIDDEN TESTS\nassert double(21) == 42\n### END HIDDEN TESTS",
                grade_id="test_double",
                points=3,
                **tested,
            ),
            cell(f"def square(x):\n    {BEGIN}\n    return x * x\n    {END}", grade_id="s", **solved),
            cell("assert square(3) == 9", grade_id="test_square", points=2, **tested),
        ],
        metadata={"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}},
    )


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("course")
    path = folder / "sums.ipynb"
    nbformat.write(master(), path)
    return path, course.build(path, folder / "built")


def test_the_student_version_holds_neither_solutions_nor_hidden_tests(built):
    _, made = built
    student = made.student.read_text()
    sources, key = (str([c.source for c in nbformat.read(p, 4).cells]) for p in (made.student, made.key))
    assert "2 * x" not in sources and "42" not in sources and "YOUR CODE HERE" in sources
    assert "2 * x" in key and "== 42" in key
    with zipfile.ZipFile(made.archive) as archive:
        assert archive.namelist() == ["sums.ipynb"] and archive.read("sums.ipynb").decode() == student


def submission(made, double=None, square=None, extra=None):
    content = nbformat.read(made.student, 4)
    for index, source in ((0, double), (2, square)):
        if source is not None:
            content.cells[index].source = source
    if extra is not None:
        content.cells.insert(2, new_code_cell(extra))
    return content


@needs_bwrap
def test_grading_a_folder_keeps_every_score_whatever_the_others_do(built, tmp_path, capsys):
    path, made = built
    folder, out = tmp_path / "handed_in", tmp_path / "out"
    folder.mkdir()
    right = {"double": "def double(x):\n    return x + x", "square": "def square(x):\n    return x**2"}
    cheat = submission(made, "def double(x):\n    return 2 if x == 1 else 0", right["square"])
    cheat.cells[1].source = "pass"  # an edited test cell is put back before grading
    papers = {
        "right": submission(made, **right),
        "half": submission(made, right["double"]),
        "cheat": cheat,
        "quits": submission(made, **right, extra="import os\nos._exit(0)"),
    }
    for name, content in papers.items():
        nbformat.write(content, folder / f"{name}.ipynb")
    (folder / "broken.ipynb").write_text(papers_half := (folder / "right.ipynb").read_text()[:200])
    assert papers_half
    (folder / "empty.ipynb").write_text(json.dumps(new_notebook()))
    (folder / "huge.ipynb").write_bytes(b"0" * 50_000_000)
    (folder / "forgot").mkdir()

    before = {p.name: p.stat().st_size for p in folder.iterdir()}
    command = ["grade", str(folder), "--assignment", "sums", "--masters", str(path.parent), "--out", str(out)]
    assert cli.main(command) == 0
    rows = {row["student"]: row for row in csv.DictReader((out / "sums" / "scores.csv").open())}
    assert {name: float(row["score"]) for name, row in rows.items()} == {
        **{"right": 5, "half": 3, "cheat": 2, "quits": 3},
        **dict.fromkeys(("broken", "empty", "huge", "forgot"), 0),
    }
    assert all(row["of"] == "5" for row in rows.values())
    assert (rows["half"]["test_double"], rows["half"]["test_square"]) == ("3", "0")
    remarks = {name: row["remark"] for name, row in rows.items()}
    assert "not a readable notebook" in remarks["broken"] and remarks["empty"] == "the notebook is empty"
    assert "has 48 MB, at most 10" in remarks["huge"] and remarks["forgot"] == "no notebook in the submission"
    assert remarks["quits"] == "the kernel died" and remarks["right"] == ""
    for name in rows:
        page = (out / "sums" / "feedback" / f"{name}.html").read_text()
        assert (remarks[name] in page) or name in ("quits", "right", "half", "cheat")
    assert {p.name: p.stat().st_size for p in folder.iterdir()} == before

    graded = []
    monkey = course._Course.grade
    course._Course.grade = lambda self, student, *a: graded.append(student) or monkey(self, student, *a)
    try:  # handed in again: only the changed one is run
        nbformat.write(submission(made, **right), folder / "half.ipynb")
        assert cli.main(command) == 0
    finally:
        course._Course.grade = monkey
    assert graded == ["half"] and "half: 5 of 5" in capsys.readouterr().out


def test_bad_folders_are_named(built, tmp_path):
    path, _ = built
    with pytest.raises(ValueError, match="submissions must be a folder"):
        next(course.grade(tmp_path / "none", path, tmp_path, sandbox=False))
    with pytest.raises(ValueError, match="no submissions in"):
        next(course.grade(tmp_path, path, tmp_path / "out", sandbox=False))
    with pytest.raises(ValueError, match="no master notebooks"):
        course.masters(tmp_path)
