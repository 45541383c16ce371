"""What needs no sandbox: the rules of a question's text, reading what was handed in, tables for platforms, likeness."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from planted import needs_masters

from tools.classroom import __main__ as cli
from tools.classroom import marks
from tools.classroom.handed_in import Cell, cells_of, collect, plain, read
from tools.classroom.questions import Question
from tools.classroom.report import as_csv
from tools.classroom.rules import Code
from tools.classroom.similar import pairs

HAND = Question("f", None, None, autograd=False)
EACH = Question("f", None, None, each=True)
FREE = Question("f", None, None)


@pytest.mark.parametrize(
    ("question", "source", "said"),
    [
        (FREE, "from xai_course.methods import amc\ndef f(x): return amc.loss(x)", "calls xai_course.methods.amc"),
        (FREE, "from xai_course import grad_cam as g\nf = g", "calls xai_course.grad_cam"),
        (FREE, "import xai_course\ndef f(x): return xai_course.maps.x(x)", "calls xai_course"),
        (FREE, 'import importlib as i\ndef f(x): return i.import_module("xai_course.maps").x(x)', "xai_course.maps"),
        (FREE, "import xai_course.methods as m\ndef h(x): return m.g(x)\ndef f(x): return h(x)", "xai_course.methods"),
        (FREE, "from xai_course.methods import amc\ndef f(x): return x\nprint(amc)", ""),
        (FREE, "def f(x):\n    '''xai_course.methods has this too'''\n    return x", ""),
        (FREE, "from xai_course.data import batch\ndef f(x): return x.backward()", ""),
        (HAND, "import torch\ndef f(x): return torch.autograd.grad(x.sum(), x)", "uses autograd"),
        (HAND, "def f(x):\n    x.sum().backward()\n    return x.grad", "uses backward"),
        (HAND, "from torch.func import grad\ndef f(x): return grad(sum)(x)", "uses torch.func.grad"),
        (HAND, "import torch\ndef f(x): return torch.ones(3, requires_grad=True)", "uses requires_grad"),
        (HAND, "def f(x):\n    grad = 2 * x\n    return grad", ""),
        (HAND, "def f(x):\n    return getattr(x, 'back' + 'ward')()", "uses getattr, so that nobody can read"),
        (HAND, "if True:\n    def f(x):\n        return x.backward()", "uses backward"),
        (HAND, "def g(x): return x.backward()\nfor f in [g]: pass", "uses backward"),
        (HAND, "def f(x): return x\ndef g(x): x.backward()\nglobals()['f'] = g", "uses backward, through globals"),
        (HAND, "def f(x): return x\ndef g(x): x.backward()\nf.__code__ = g.__code__", "uses __code__"),
        (HAND, "h = []\ndef f(x): return h[0](x)\nh.append(lambda x: x.backward())", "uses backward"),
        (HAND, "def s():\n    global f\n    f = lambda x: x.backward()\ns()\ndef f(x): return x", "uses backward"),
        (HAND, "import torch\ndef f(x): return torch.sin(x)\ntorch.sin = lambda x: x.backward()", "through torch.sin"),
        (HAND, "def f(x):\n    return 2 * x\nx = t.ones(3, requires_grad=True)\nf(x) - t.autograd.grad(x, x)", ""),
        (HAND, "import torch\ndef f(x): return torch.sin(x)\ntorch.testing.assert_close(f(1), g.backward())", ""),
        (FREE, "from xai_course import maps\nprint(maps)\ndef f(maps): return [m for m in maps]", ""),
        (EACH, "def f(ls, w):\n    sum(l(w) for l in ls).backward()\n    return w.grad", "outside a loop"),
        (EACH, "def f(ls, w):\n    for l in ls:\n        l(w).backward()\n    return w.grad", ""),
        (EACH, "def one(l, w): return grad(l(w), w)[0]\ndef f(ls, w): return sum(one(l, w) for l in ls)", ""),
        (EACH, "def one(l, w): return grad(l(w), w)[0]\ndef f(ls, w): return one(lambda w: g(ls, w), w)", "outside"),
    ],
)  # fmt: skip
def test_the_rules_of_a_text_are_read_from_the_answer_and_what_it_calls(question, source, said):
    found = Code([Cell(source)]).broken(question, ())
    assert said in found and bool(found) == bool(said)


def test_what_an_earlier_question_breaks_is_not_held_against_a_later_one():
    code = Code([Cell("from xai_course import maps\ndef e(x): return maps(x)\ndef f(x): return e(x)")])
    assert code.broken(FREE, ()) and code.broken(FREE, {"e", "f"}) == ""


@pytest.mark.parametrize(
    ("source", "python"),
    [
        ("%time x = 1\ny = 2", "pass\ny = 2"),
        ("!pip install x\nx?\ntorch.nn??", "pass\npass\npass"),
        ("%%time\nx = 1", "x = 1"),
        ("%%bash\nrm -r /", ""),
        ("s = '''\n%d!'''", "s = '''\n%d!'''"),
        ("if x:\n    %matplotlib inline\n    y = 1", "if x:\n    pass\n    y = 1"),
        ("(" * 5000, "(" * 5000),
    ],
)
def test_a_notebook_s_additions_to_python_are_passed_over(source, python):
    assert plain(source) == python and Cell(source).source == python


def test_of_several_notebooks_the_one_named_like_the_assignment_counts_then_the_newest(tmp_path):

    (tmp_path / "ann").mkdir()
    for age, name in enumerate(("final.ipynb", "amc.ipynb", "draft.ipynb", "notes.ipynb")):
        source = "x = 1" if name == "notes.ipynb" else f"def angles(u, v): return {age}"
        nbformat.write(new_notebook(cells=[new_code_cell(source)]), tmp_path / "ann" / name)
        os.utime(tmp_path / "ann" / name, (age, age))
    known = {"amc": {"angles"}, "cam": {"class_map"}}
    paper = read("ann", collect(tmp_path)["ann"], "amc", known)
    assert paper.path.name == "amc.ipynb" and "amc.ipynb was marked, not draft.ipynb" in paper.remarks[0]
    (tmp_path / "ann" / "amc.ipynb").unlink()
    assert read("ann", collect(tmp_path)["ann"], "amc", known).path.name == "draft.ipynb"  # notes are newer, but empty
    assert read("ann", collect(tmp_path)["ann"], "cam", known).remarks[-1] == "this is the assignment amc, not cam"


ODD = [[], {}, {"cells": 3}, {"cells": [{}]}, {"cells": [3]}, {"metadata": [], "cells": []}, {"cells": []}]
ODD += [{"cells": [{"cell_type": "code", "source": 3}]}]


@pytest.mark.parametrize("content", ODD)
def test_an_odd_file_is_told_in_plain_words(tmp_path, content):
    (tmp_path / "odd.ipynb").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="hand it in again|the notebook is empty"):
        cells_of(tmp_path / "odd.ipynb")


def test_an_old_format_and_a_foreign_kernel_are_read(tmp_path):
    cell = {"cell_type": "code", "input": ["x = 1\n", "y = 2"], "metadata": {}}
    content = {"worksheets": [{"cells": [cell]}], "metadata": {"kernelspec": {"language": "R"}}}
    (tmp_path / "old.ipynb").write_text(json.dumps(content))
    cells, remarks = cells_of(tmp_path / "old.ipynb")
    assert cells[0].source == "x = 1\ny = 2" and remarks == ["written for a kernel of 'R', run as Python"]


def test_no_cell_of_a_table_is_a_formula():
    table = list(csv.reader(io.StringIO(as_csv([["=1+1", "+a", "-b", "@c", "-1.5", "ok"]]))))
    assert table == [["'=1+1", "'+a", "'-b", "'@c", "-1.5", "ok"]]


@pytest.fixture
def grades(tmp_path):
    for name, of, scores in (("cam", 20, {"ann": 15, "bob": 8}), ("amc", 20, {"ann": 20})):
        (tmp_path / name).mkdir()
        lines = [f"{student},{score},{of},x" for student, score in scores.items()]
        (tmp_path / name / "scores.csv").write_text("\n".join(["student,score,of,remark", *lines]))
    (tmp_path / "cam" / "manual.csv").write_text("student,points\nann,5\nbob,\n")
    (tmp_path / "cam" / "late.csv").write_text("student;days\nbob;2.5\n")
    return tmp_path


def test_the_gradebook_adds_manual_points_and_takes_off_what_lateness_costs(grades, capsys):
    assert cli.main(["marks", "--grades", str(grades), "--late", "10,1"]) == 0
    table = list(csv.reader((grades / "gradebook.csv").open()))
    assert table == [
        ["student", "amc", "cam", "total", "of"],
        ["ann", "20", "20", "40", "40"],
        ["bob", "", "6.4", "6.4", "40"],
    ]
    assert marks.Late(0.1, 1, 0.3).factor(0.5) == 1 and marks.Late(0.1, 1, 0.3).factor(30) == 0.7
    with pytest.raises(SystemExit):
        cli.main(["marks", "--grades", str(grades), "--late", "ten"])
    (grades / "cam" / "late.csv").write_text("student,days\nzoe,2\n")
    assert cli.main(["marks", "--grades", str(grades)]) == 2 and "no marks for zoe" in capsys.readouterr().err


def test_canvas_and_moodle_get_their_own_tables_and_a_doubtful_roster_is_refused(grades, tmp_path, capsys):
    people = tmp_path / "people.csv"
    people.write_text('student,id,name,login\nann,11,"Lee, Ann",ann@x.org\nbob,12,,\n')
    assert cli.main(["marks", "--grades", str(grades), "--canvas", str(people)]) == 0
    table = list(csv.reader((grades / "canvas.csv").open()))
    assert table[0] == ["Student", "ID", "SIS User ID", "SIS Login ID", "Section", "amc", "cam"]
    assert table[1] == ["    Points Possible", "", "", "", "", "20", "20"]
    assert table[2:] == [["Lee, Ann", "11", "", "ann@x.org", "", "20", "20"], ["bob", "12", "", "", "", "", "8"]]
    assert cli.main(["marks", "--grades", str(grades), "--moodle", str(people)]) == 0
    assert list(csv.reader((grades / "moodle.csv").open()))[1:] == [["11", "20", "20"], ["12", "", "8"]]
    for text, said in (("student,id\nann,1\nbob,1\n", "lines 2 and 3 have the same id '1'"),
                       ("student,id\nann,1\nann,2\n", "lines 2 and 3 have the same student 'ann'"),
                       ("student,id\nann,1\n", "has no line for bob"), ("name\nann\n", "no student, id")):  # fmt: skip
        people.write_text(text)
        assert cli.main(["marks", "--grades", str(grades), "--moodle", str(people)]) == 2
        assert said in capsys.readouterr().err


def test_copied_code_is_found_under_other_names_and_own_code_is_not():
    mine = """
def angles(u, v):
    chord, both = (u - v).norm(dim=1), (u + v).norm(dim=1)
    if chord.numel() == 0:
        return chord
    return 2 * torch.atan2(chord, both)

def loss(a, s, m):
    out = []
    for t, k in zip(a, s):
        out.append(t**2 if k else max(0, m - t) ** 2)
    return torch.stack(out)"""
    copied = mine.replace("chord", "c").replace("both", "d").replace("out", "rows").replace("angles", "theta")
    other = """
def angles(u, v):
    near, far = 2 * torch.asin((u - v).norm(dim=1) / 2), math.pi - 2 * torch.asin((u + v).norm(dim=1) / 2)
    return torch.where((u * v).sum(1) > 0, near, far)

def loss(a, s, m):
    return torch.where(s, a.square(), (m - a).clamp(min=0).square())"""
    papers = {"ann": [Cell(mine)], "bob": [Cell(copied)], "eve": [Cell(other)]}
    assert [(one, two) for _, one, two in pairs(papers, [])] == [("ann", "bob")]
    assert pairs(papers, [])[0][0] == 1 and pairs(papers, [Cell(mine)]) == []


WORDS = {
    "reason": "half as many pairs",
    "prediction": 'within <b>falls</b> "by half"',
    "verdict": "the ratio falls\nfrom 0.6 to 0.4",
}


@needs_masters
def test_the_sheet_holds_each_student_s_words_and_the_table_keeps_what_was_filled_in(tmp_path, capsys):
    cells = [new_code_cell("def angles(u, v): return u"), *(new_code_cell(f"{k} = {v!r}") for k, v in WORDS.items())]
    (tmp_path / "in").mkdir()
    nbformat.write(new_notebook(cells=cells), tmp_path / "in" / "ann.ipynb")
    odd = [cells[0], new_code_cell(r"verdict = '\udcff'")]  # half of a character stops no other sheet
    nbformat.write(new_notebook(cells=odd), tmp_path / "in" / "bob.ipynb")
    command = ["sheet", str(tmp_path / "in"), "--assignment", "amc", "--out", str(tmp_path / "out")]
    assert cli.main(command) == 0
    out = tmp_path / "out" / "amc"
    page, table = (out / "sheet.html").read_text(), out / "manual.csv"
    assert "within &lt;b&gt;falls&lt;/b&gt;" in page and "from 0.6 to 0.4" in page and page.count("☐") == 2 * 3 * 4
    assert page.count("(nothing)") == 2 and "<pre>?</pre>" in page and "default-src 'none'" in page
    assert list(csv.reader(table.open())) == [
        ["student", "reason", "prediction", "control", "verdict"], ["ann", *[""] * 4], ["bob", *[""] * 4],
    ]  # fmt: skip
    table.write_text("student,reason,prediction,control,verdict\nann,1,2,0,2\n")
    assert cli.main(command) == 0 and table.read_text().splitlines()[1:] == ["ann,1,2,0,2", "bob,,,,"]
    (out / "scores.csv").write_text("student,score,of\nann,12,20\nbob,3,20\n")
    assert marks.gradebook(tmp_path / "out") == ({"amc": 28.0}, {"ann": {"amc": 17.0}, "bob": {"amc": 3.0}})
    table.write_text("student,reason,prediction,control,verdict\nann,3,2,0,2\n")
    assert cli.main(["marks", "--grades", str(tmp_path / "out")]) == 2
    assert "ann has '3'; the levels are 0, 1 and 2" in capsys.readouterr().err


@needs_masters
def test_solutions_are_not_to_be_had_before_the_deadline(tmp_path, capsys):
    command = ["solutions", "--assignment", "amc", "--out", str(tmp_path), "--deadline"]
    assert cli.main([*command, "2999-01-01T12:00"]) == 2 and "the deadline is 2999-01-01" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    assert cli.main([*command, "2020-01-01"]) == 0
    text = "\n".join(cell.source for cell in nbformat.read(tmp_path / "amc.ipynb", 4).cells)
    assert "torch.atan2((u - v).norm(dim=1)" in text and "SOLUTION" not in text and "YOUR CODE" not in text


def test_a_folder_without_rights_is_told_and_hides_nobody_else(tmp_path, monkeypatch):
    for name in ("ann", "bob", "eve/late"):
        (tmp_path / name).mkdir(parents=True)
        nbformat.write(new_notebook(cells=[new_code_cell("def angles(u, v): return u")]), tmp_path / name / "amc.ipynb")
    closed, scan, lstat = {tmp_path / "ann", tmp_path / "eve"}, os.scandir, Path.lstat

    def denied(path):
        return PermissionError(errno.EACCES, "Permission denied", str(path))

    def scandir(path):  # whoever runs this as root may read everything
        if Path(path) in closed:
            raise denied(path)
        return scan(path)

    def look(path):
        if path == tmp_path / "bob" / "amc.ipynb" and not closed:
            raise denied(path)
        return lstat(path)

    monkeypatch.setattr(os, "scandir", scandir)
    monkeypatch.setattr(Path, "lstat", look)
    papers = papers_in(tmp_path)
    told = ["the folder cannot be opened: give the right to read it"]
    assert papers["ann"].remarks == papers["eve"].remarks == told and not papers["ann"].cells
    assert papers["bob"].cells and not papers["bob"].remarks
    closed.clear()
    assert "cannot be opened (Permission denied)" in papers_in(tmp_path)["bob"].remarks[0]


def papers_in(folder, platform=""):
    found = collect(folder, platform)
    return {who: read(who, paths, "amc", {"amc": {"angles"}}) for who, paths in found.items()}


def test_downloads_of_a_platform_keep_a_student_s_name_from_one_assignment_to_the_next(tmp_path, capsys):
    canvas = {"first": ("leeann_11_900_amc.ipynb", "leeann_LATE_12_901_my hw.ipynb", "leeann_12_902_draft.ipynb"),
              "second": ("leeann_11_950_cam-1.ipynb", "leeann_12_951_x.ipynb")}  # fmt: skip
    moodle = {"first": ("Ann Lee_71_assignsubmission_file", "Bo Li_72_assignsubmission_file_",
                        "Bo Li_73_assignsubmission_file_"),
              "second": ("Ann Lee_81_assignsubmission_file",)}  # fmt: skip
    for folder, names in canvas.items():
        (tmp_path / "canvas" / folder).mkdir(parents=True)
        for name in names:
            (tmp_path / "canvas" / folder / name).write_text("{}")
        found = collect(tmp_path / "canvas" / folder, "canvas")
        assert {who: len(paths) for who, paths in found.items()} == {"leeann_11": 1, "leeann_12": len(names) - 1}
    for folder, names in moodle.items():
        for name in names:
            (tmp_path / "moodle" / folder / name).mkdir(parents=True)
    assert [*collect(tmp_path / "moodle" / "first", "moodle")] == ["Ann Lee", "Bo Li_72", "Bo Li_73"]  # not merged
    assert [*collect(tmp_path / "moodle" / "second", "moodle")] == ["Ann Lee"]
    with pytest.raises(ValueError, match="leeann_11_900_amc is not named as moodle names downloads"):
        collect(tmp_path / "canvas" / "first", "moodle")


@pytest.mark.parametrize(
    ("table", "text", "said"),
    [
        ("late.csv", "student,days\nbob,1\nbob,9\n", "lines 2 and 3 have the same student 'bob'"),
        ("manual.csv", "student,points\n\nann,5\n'ann,4\n", "lines 3 and 4 have the same student"),
        ("late.csv", "student,days\nbob,soon\n", "bob has 'soon' as days; expected a number"),
        ("late.csv", "student,days\nbob,nan\n", "bob has 'nan' as days"),
        ("manual.csv", "student,points\nann,1e999\n", "ann has '1e999' as points"),
        ("late.csv", "student,days\nzoe,1\n", "no marks for zoe"),
        ("late.csv", "student,days\nb\xf6b,1\n", "expected CSV in UTF-8"),
    ],
)
def test_a_doubtful_line_of_a_table_is_named_and_changes_no_mark(grades, capsys, table, text, said):
    (grades / "cam" / table).write_bytes(text.encode("latin-1"))
    assert cli.main(["marks", "--grades", str(grades)]) == 2
    assert said in capsys.readouterr().err and not (grades / "gradebook.csv").exists()


def test_a_spreadsheet_s_commas_empty_lines_and_short_lines_are_understood(grades):
    (grades / "cam" / "late.csv").write_text("student;days\nbob;2,5\nann\n;\n;\n")
    points = marks.gradebook(grades, marks.Late.parse("10,1"))[1]
    assert (points["bob"]["cam"], points["ann"]["cam"]) == (6.4, 20.0)
