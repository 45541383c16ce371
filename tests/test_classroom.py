"""Marking strangers' notebooks: every fault stays inside, every answer gets the points it deserves."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import time
import zipfile
from ast import literal_eval

import nbformat
import psutil
import pytest
from forked import Unguarded, forks
from nbformat.v4 import new_code_cell, new_notebook, new_output
from planted import needs_masters

from tools import NOTEBOOKS, ROOT
from tools.classroom import __main__ as cli
from tools.classroom import build, grading, sandbox
from tools.classroom.mock_attacks import CLOCK
from tools.classroom.sandbox import Limits, Sandbox

needs_bwrap = pytest.mark.skipif(
    shutil.which("bwrap") is None, reason="bubblewrap is not installed (apt-get install bubblewrap)"
)
ASK = {"given": [], "names": []}

# --- the sandbox -----------------------------------------------------------------------------------------------------


@needs_bwrap
def test_a_submission_sees_no_host_no_solution_and_no_network_and_writes_only_into_its_own_memory(tmp_path):
    secret = tmp_path / "solutions.txt"
    secret.write_text("42")
    cells = [
        "import os\nran = 'yes'",
        f"open({str(secret)!r}).read()",
        f"open({str(tmp_path / 'written')!r}, 'w')",
        "import urllib.request\nurllib.request.urlopen('http://192.0.2.1', timeout=5)",
        f"seen = repr([os.listdir({str(ROOT)!r} + at) for at in ('', '/tools', '/tools/classroom', '/data')])",
        "secrets = repr([k for k in os.environ if 'SECRET' in k])",
        "from xai_course.methods.amc import amc_loss\nfrom xai_course import grad_cam\nimport xai_course.maps",
        "grad_cam()",
        f"here = repr(os.listdir({str(ROOT / 'xai_course' / 'methods')!r}))",
        "open('/anywhere', 'w')",
        "open('/dev/anywhere', 'w')",
        "open('own.txt', 'w').write('x')",
        "rights = [line for line in open('/proc/self/status') if line.startswith('CapEff')][0].split()[1]",
        "for at in ('/tmp', '/dev/shm'):\n    try:\n        open(f'{at}/big', 'wb').write(bytes(9_000_000))\n"
        "        full = False\n    except OSError:\n        full = True",
    ]
    with Sandbox(cells, Limits(files_mb=8)) as box:
        value = lambda name: box.ask(order=name, name=name, **ASK)["value"]  # noqa: E731
        assert value("ran") == "yes"
        assert "FileNotFoundError" in box.faults[1] and "FileNotFoundError" in box.faults[2]
        assert "URLError" in box.faults[3] and not box.faults[6] and not box.faults[11]
        assert "xai_course.maps is not there while answers are marked" in box.faults[7]
        top, tools, classroom, _ = literal_eval(value("seen"))
        assert set(top) <= {"data", "tools", "xai_course", ".venv"}
        assert (tools, classroom) == (["classroom"], ["runner.py"])
        assert int(value("rights"), 16) == 0
        assert value("secrets") == "[]" and value("here") == "[]" and value("full") is True
        assert "Read-only" in box.faults[9] and "Read-only" in box.faults[10]
    assert list(tmp_path.iterdir()) == [secret]


HOG = "hog = []\nwhile True: hog.append(bytearray(30_000_000))"
SHARED = "import os\nopen('/dev/shm/x', 'wb').write(bytes(300_000_000))"
MAPPED = "import mmap\nwhole = mmap.mmap(-1, 3_000_000_000)\nwhile True: whole.write(bytes(1_000_000))"
FLOOD = "import subprocess, time\nfor _ in range(200): subprocess.Popen(['sleep', '30'])\ntime.sleep(30)"
OUTPUT = "print('a' * 100_000_000)\nimport os\nos.write(1, b'x' * 50_000_000)"
DEAF = CLOCK.replace("    pass", "    time.sleep(100)")  # sets every clock it can reach, and hears no alarm
BREAKS = {
    HOG: "memory|MemoryError",
    MAPPED: "used more than 1500 MB of memory",
    SHARED: "No space left",
    FLOOD: "more than 40 processes",
    "def kept(): pass\nimport os\nos._exit(0)": "ended the program",
    OUTPUT: "^$",
    "import time\ntime.sleep(100)": "took longer than 8 s",
    DEAF: "took longer than 8 s",
}


@needs_bwrap
def test_a_cell_that_breaks_a_limit_costs_itself_and_nothing_else():
    limits = Limits(memory_mb=1500, files_mb=8, processes=40, output_mb=2, cell_seconds=8)
    others = set(psutil.Process().children(recursive=True))  # such as the tracker of an earlier test's shared memory
    with Sandbox(["before = 1", *BREAKS, "after = 2"], limits) as box:
        assert [box.ask(order=name, name=name, **ASK) for name in ("before", "after")] == [
            {"order": "before", "value": 1},
            {"order": "after", "value": 2},
        ]
        assert box.ask(order="kept", name="kept", **ASK)["value"] == "an object of type function"
        said = [box.stopped.get(at) or box.faults[at] for at in range(1, 1 + len(BREAKS))]
        assert [text for text, wanted in zip(said, BREAKS.values()) if not re.search(wanted, text)] == []
        assert set(box.stopped) >= {2, 4, 5, 8} and not {3, 6, 7} & set(box.stopped)
    left = set(psutil.Process().children(recursive=True)) - others
    assert not [p for p in left if p.status() != psutil.STATUS_ZOMBIE]


def test_without_bubblewrap_grading_refuses_and_names_the_way_round(course, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sandbox.shutil, "which", lambda name: None)
    command = ["grade", str(tmp_path), "--assignment", "sums", "--masters", str(course), "--out", str(tmp_path)]
    assert cli.main(command) == 2
    message = capsys.readouterr().err
    assert "bubblewrap (bwrap) is not installed" in message and "--no-sandbox" in message
    command[3] = "summs"
    assert cli.main(command) == 2 and "did you mean 'sums'" in capsys.readouterr().err


# --- a whole course --------------------------------------------------------------------------------------------------

BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
QUESTIONS = """
from tools.classroom.questions import Case, Choice, Question, normal

def cases(g):
    yield Case("three", (normal(g, 3),), "look again")

QUESTIONS = (
    Question("double", lambda x: 2 * x, cases),
    Question("square", lambda x: x * x, cases, autograd=False),
    Question("both", lambda x: 2 * x + x * x, cases),
    Choice("colour", ("red", "green", "blue"), 1, "grass"),
)
"""


def master():
    def cell(source, **settings):
        return new_code_cell(source, metadata={"nbgrader": {"schema_version": 3, "task": False, **settings}})

    def asked(name, points, solution):
        lines = solution.splitlines()
        head, lines = (lines[:1], lines[1:]) if lines[0].startswith("def") else ([], lines)
        indent = "    " if head else ""
        source = "\n".join([*head, indent + BEGIN, *lines, indent + END])
        test = f"from xai_course.checks import check_{name}\n\nassert check_{name}({name})"
        return [
            cell(source, grade_id=name, grade=False, locked=False, solution=True),
            cell(test, grade_id=f"test_{name}", grade=True, locked=True, solution=False, points=points),
        ]

    return new_notebook(
        cells=[
            new_code_cell('student = "anonymous"'),
            new_code_cell("import torch"),
            *asked("double", 3, "def double(x):\n    return 2 * x"),
            *asked("square", 2, "def square(x):\n    return x * x"),
            *asked("both", 4, "def both(x):\n    return double(x) + square(x)"),
            *asked("colour", 1, 'colour = "b"'),
        ],
        metadata={"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}},
    )


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    folder = tmp_path_factory.mktemp("course")
    nbformat.write(master(), folder / "sums.ipynb")
    (folder / "sums.py").write_text(QUESTIONS)
    return folder


@pytest.mark.parametrize("path", sorted((NOTEBOOKS / "assignments").glob("*.ipynb")), ids=lambda p: p.stem)
def test_a_student_version_holds_no_solution_and_loses_nothing_else(path, tmp_path):
    made = build.build(path, tmp_path)
    student, key = (nbformat.read(p, 4) for p in (made.student, made.key))
    nbformat.validate(student)
    assert key == nbformat.read(path, 4) and len(student.cells) == len(key.cells)
    for ours, theirs in zip(key.cells, student.cells):
        if ours.metadata.get("nbgrader", {}).get("solution"):
            empty = f'{ours.metadata.nbgrader.grade_id} = """\n\n"""'
            assert "SOLUTION" not in theirs.source
            assert theirs.source.endswith("raise NotImplementedError()") or theirs.source == empty
            assert len(theirs.source.splitlines()) <= 3
        else:
            assert ours.source == theirs.source and "HIDDEN" not in ours.source
    with zipfile.ZipFile(made.archive) as archive:
        assert archive.namelist() == [path.name] and archive.read(path.name) == made.student.read_bytes()


def test_a_master_that_would_give_its_solution_away_is_refused(tmp_path):
    content = master()
    content.cells[2].source = "def double(x):\n    return 2 * x"
    nbformat.write(content, tmp_path / "sums.ipynb")
    with pytest.raises(ValueError, match="cell double marks no solution"):
        build.build(tmp_path / "sums.ipynb", tmp_path / "out")


RIGHT = {
    "double": "def double(x):\n    return x + x",
    "square": "def square(x):\n    return x**2",
    "both": "def both(x):\n    return double(x) + square(x)",
}
AUTOGRAD = """def square(x):
    y = x.clone().requires_grad_()
    return torch.autograd.grad((y**3 / 3).sum(), y)[0]"""
BORROWED = """def double(x):
    from xai_course.methods import amc
    return 2 * x"""


def paper(course, student, **answers):
    """The student version, filled in; the choice is right for the id."""
    content = nbformat.reads(build.released(course / "sums.ipynb"), 4)
    letter = grading.questions("sums", course / "sums.ipynb")["colour"].letter(student)
    for name, source in {"student": f"student = {student!r}", "colour": f"colour = {letter!r}", **answers}.items():
        place = 0 if name == "student" else next(i for i, c in enumerate(content.cells) if grade_id(c) == name)
        content.cells[place].source = source
    return content


def grade_id(cell):
    return cell.metadata.get("nbgrader", {}).get("grade_id")


def without_metadata(content):
    for cell in content.cells:
        cell.metadata = {}
    content.cells = [cell for cell in content.cells if "check_" not in cell.source]
    return content


def twice(content):
    place = next(i for i, c in enumerate(content.cells) if grade_id(c) == "double")
    stub = nbformat.from_dict(
        dict(content.cells[place], source="def double(x):\n    # YOUR CODE HERE\n    raise NotImplementedError()")
    )
    content.cells[place + 1 : place + 1] = [content.cells[place], stub, content.cells[place + 1]]
    return content


@pytest.fixture(scope="module")
def server():
    with forks():
        yield


@pytest.fixture
def unguarded(server, monkeypatch):
    """Our own papers need no walls; those of others are in the mock class, in the attacks and in the guide's test."""
    monkeypatch.setattr(grading, "Sandbox", Unguarded)


@needs_masters
def test_marking_a_folder_gives_everybody_what_is_theirs_whatever_the_others_do(course, tmp_path, capsys, unguarded):
    folder, out = tmp_path / "handed_in", tmp_path / "out"
    folder.mkdir()
    slip = {**RIGHT, "double": "def double(x):\n    return 2 * x + 1"}
    half = {"double": RIGHT["double"]}
    papers = {
        "right": paper(course, "right", **RIGHT),
        "half": paper(course, "half", **half),
        "slip": paper(course, "slip", **slip),  # one mistake costs one question
        "twice": twice(paper(course, "twice", **RIGHT)),
        "bare": without_metadata(paper(course, "bare", **RIGHT)),
        "renamed": paper(course, "renamed", **{**RIGHT, "square": "def squared(x):\n    return x * x"}),
        "autograd": paper(course, "autograd", **{**RIGHT, "square": AUTOGRAD}),
        "borrows": paper(course, "borrows", **{**RIGHT, "double": BORROWED}),
        "magic": paper(course, "magic", **{**RIGHT, "double": "%matplotlib inline\n!ls\n" + RIGHT["double"]}),
        "=cmd()": paper(course, "=cmd()", **RIGHT),
        "quits": paper(course, "quits", **{**RIGHT, "square": "import os\nos._exit(0)"}),
        "raises": paper(course, "raises", **{**RIGHT, "square": "raise ValueError('\\udcff')"}),
        "typo": paper(course, "typo", **{**RIGHT, "square": "def square(x)\n    return x * x"}),
        "script": paper(course, "script", **{**half, "square": "raise ValueError('<script>alert(1)</script>')"}),
        "cheat": paper(course, "cheat", double="import xai_course.checks as c\nc.compare = lambda *a: ''\n"
                       "c.Check.__call__ = lambda *a, **k: True\ndef double(x):\n    return x"),
    }  # fmt: skip
    for name, content in papers.items():
        nbformat.write(content, folder / f"{name}.ipynb")
    (folder / "broken.ipynb").write_text((folder / "right.ipynb").read_text()[:200])
    (folder / "empty.ipynb").write_text(json.dumps(new_notebook()))
    (folder / "huge.ipynb").write_bytes(b"0" * 50_000_000)
    chatty = paper(course, "chatty", **RIGHT)
    chatty.cells[1].outputs = [new_output("stream", text="a" * 12_000_000)]
    nbformat.write(chatty, folder / "chatty.ipynb")
    halved = paper(course, "halved", **RIGHT)
    halved.cells.append(new_code_cell("x = '\udcff'"))  # half of a character, as an editor left it
    (folder / "halved.ipynb").write_text(json.dumps(halved))
    with open(os.fsencode(folder) + b"/m\xfcller.ipynb", "w") as file:  # as an older archive has it
        file.write(nbformat.writes(paper(course, "müller", **RIGHT)))
    (folder / f"{'long' * 60}.ipynb").write_text(nbformat.writes(paper(course, "long", **RIGHT)))
    (folder / "people.csv").write_text("student,id\n")
    (folder / "forgot").mkdir()
    (folder / "mark.ipynb").write_bytes(b"\xef\xbb\xbf" + nbformat.writes(paper(course, "mark", **RIGHT)).encode())
    (folder / "linked.ipynb").symlink_to(course / "sums.ipynb")
    shutil.copy(NOTEBOOKS / "assignments" / "cam.ipynb", folder / "lost.ipynb")
    (folder / "doe").mkdir()
    nbformat.write(paper(course, "doe", **half), folder / "doe.ipynb")
    nbformat.write(paper(course, "doe", **RIGHT), folder / "doe" / "hw.ipynb")
    os.utime(folder / "doe.ipynb", (1, 1))
    for age, place in enumerate(("old", "new")):
        (folder / "roe" / place).mkdir(parents=True)
        nbformat.write(paper(course, "roe", **(RIGHT if age else half)), folder / "roe" / place / "hw.ipynb")
        os.utime(folder / "roe" / place / "hw.ipynb", (age, age))

    before = {p.name: p.stat().st_size for p in folder.iterdir() if not p.is_symlink()}
    command = ["grade", str(folder), "--assignment", "sums", "--masters", str(course), "--out", str(out), "--jobs", "2"]
    command.append("--no-sandbox")
    assert cli.main(command) == 0
    assert capsys.readouterr().err == "passed over, since they are no notebooks: people.csv\n"
    rows = {row["student"]: row for row in csv.DictReader((out / "sums" / "scores.csv").open())}
    all_right = ["right", "twice", "bare", "renamed", "magic", "'=cmd()", "mark", "doe", "roe", "chatty", "halved"]
    all_right += ["müller", *(name for name in rows if name.startswith("longlong"))]
    some = {"half": 4, "slip": 7, "autograd": 8, "borrows": 7, "quits": 8, "raises": 8, "typo": 8, "script": 4}
    assert {name: float(row["score"]) for name, row in rows.items()} == {
        **dict.fromkeys(all_right, 10),
        **{**some, "cheat": 1},
        **dict.fromkeys(("broken", "empty", "huge", "forgot", "linked", "lost"), 0),
    }
    assert len(all_right) == 13 and all(row["of"] == "10" for row in rows.values())
    remarks = {name: row["remark"] for name, row in rows.items()}
    expected = {
        "right": "",
        "half": "square: not answered; both: not answered",
        "slip": "double: case “three”: result: expected",
        "autograd": "square: uses",
        "borrows": "double: calls xai_course.methods.amc; the answer must be your own",
        "renamed": "squared stands where square should, and was taken for it",
        "quits": "cell 4 ended the program, and was left out; square: its cell stopped: ended the program",
        "typo": "square: its cell stopped: SyntaxError: expected ':' (line 1)",
        "raises": "square: its cell stopped: ValueError: ?",
        "halved": "stopped: UnicodeEncodeError",
        "broken": "not a readable notebook: hand it in again, saved by Jupyter or Colab",
        "empty": "the notebook is empty",
        "huge": "not a readable notebook",
        "chatty": "11 MB, nearly all of it output: clear it before you hand in",
        "forgot": "no notebook in the submission",
        "linked": "a link or a special file, which is not followed",
        "lost": "none of the questions of sums is in this notebook",
        "doe": "2 notebooks: hw.ipynb was marked, not doe.ipynb",
        "roe": "2 notebooks: new/hw.ipynb was marked, not old/hw.ipynb",
    }
    assert {name: text in remarks[name] for name, text in expected.items()} == dict.fromkeys(expected, True), remarks
    assert all(text or float(rows[name]["score"]) == 10 for name, text in remarks.items())
    assert {p.name: p.stat().st_size for p in folder.iterdir() if not p.is_symlink()} == before
    for name in rows:
        page = (out / "sums" / "feedback" / f"{name.removeprefix(chr(39))}.html").read_text()
        assert (
            "<script" not in page and "default-src 'none'" in page and f"{float(rows[name]['score']):g} of 10" in page
        )
    assert "&lt;script&gt;" in (out / "sums" / "feedback" / "script.html").read_text()

    capsys.readouterr()
    examined, real = [], grading.examine
    try:  # handed in again: only the changed one is run; --regrade runs them all
        grading.examine = lambda exam, paper, *a: examined.append(paper.student) or real(exam, paper, *a)
        for path in folder.iterdir():
            if path.name not in ("half.ipynb", "slip.ipynb", "right.ipynb"):  # as a folder of late work: no row is lost
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        nbformat.write(paper(course, "half", **RIGHT), folder / "half.ipynb")
        assert cli.main(command) == 0 and examined == ["half"] and "half: 10 of 10" in capsys.readouterr().out
        again = {row["student"]: row["score"] for row in csv.DictReader((out / "sums" / "scores.csv").open())}
        assert again == {name: "10" if name == "half" else row["score"] for name, row in rows.items()}
        assert cli.main([*command, "--regrade", "double"]) == 0 and sorted(examined[1:]) == ["half", "right", "slip"]
        assert "slip: 7 of 10" in capsys.readouterr().out
        assert (
            cli.main([*command, "--regrade", "dubble"]) == 2
            and "questions of sums are double" in capsys.readouterr().err
        )
    finally:
        grading.examine = real


@needs_masters
def test_neither_the_clock_of_this_computer_nor_the_times_of_files_change_a_mark(
    course, tmp_path, monkeypatch, unguarded
):
    marked = []
    (tmp_path / "in").mkdir()
    for at, (clock, changed) in enumerate(((0.0, 1), (4e9, 32_000_000_000))):  # 1970 and 2096; files of 2984
        for name, double in (("ann", RIGHT["double"]), ("bob", "def double(x):\n    return x")):
            nbformat.write(paper(course, name, **{**RIGHT, "double": double}), tmp_path / "in" / f"{name}.ipynb")
            os.utime(tmp_path / "in" / f"{name}.ipynb", (changed, changed))
        moving = iter(range(10**9))  # each look finds it 10,000 seconds further off, to and fro
        monkeypatch.setattr(time, "time", lambda clock=clock, m=moving: clock + (-1) ** (n := next(m)) * 10_000.0 * n)
        out, limits = tmp_path / f"out{at}", Limits(seconds=300, cell_seconds=60, question_seconds=60)
        (out).mkdir()
        (out / "seed").write_text("7")
        results = grading.grade(tmp_path / "in", course / "sums.ipynb", out, sandbox=False, limits=limits)
        marked.append([(r.student, r.score, r.remark) for r in results])
        monkeypatch.undo()
        monkeypatch.setattr(grading, "Sandbox", Unguarded)
    assert marked[0] == marked[1] == [("ann", 10, ""), ("bob", 7, "")]


def test_bad_folders_are_named(course, tmp_path):
    path = course / "sums.ipynb"
    with pytest.raises(ValueError, match="submissions must be a folder"):
        next(grading.grade(tmp_path / "none", path, tmp_path / "o", sandbox=False))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no submissions in"):
        next(grading.grade(tmp_path / "empty", path, tmp_path / "out", sandbox=False))
    with pytest.raises(ValueError, match="no master notebooks"):
        build.masters(tmp_path)


@pytest.mark.parametrize("path", sorted((NOTEBOOKS / "assignments").glob("*.ipynb")), ids=lambda p: p.stem)
def test_the_key_of_every_assignment_gets_all_points(path, unguarded):
    exam = grading.Exam(path, seed=7)
    result = grading.examine(
        exam, grading.read("anonymous", [path], path.stem, {path.stem: set(exam.points)}), Limits()
    )
    assert {name: mark.why for name, mark in result.marks.items()} == dict.fromkeys(exam.points, "")
    assert result.score == 20 and result.remark == ""
