"""The teacher's path of the guide: fork, set up, build, collect, grade. Each command of the page is run as printed."""

from __future__ import annotations

import csv
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from planted import needs_masters

ROOT = Path(__file__).parents[1]


def commands() -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "book" / "teachers.md").read_text("utf-8"), re.S)
    return [line for block in blocks for line in block.replace("\\\n", "").splitlines()]


@needs_masters
@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed (apt-get install bubblewrap)")
@pytest.mark.timeout(900)  # eleven commands, each with an interpreter of its own
def test_the_commands_of_the_teacher_guide_run_in_this_order(tmp_path):
    listed = commands()
    assert [shlex.split(c)[0] for c in listed] == ["git", "cd", "make", "make", *[".venv/bin/python"] * 7]
    scripts = Path(sys.executable).parent
    ready = ["make", f"V={scripts.parent}", "-o", f"{scripts.parent}/.ready"]  # this environment, set up already
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GIT_CONFIG_GLOBAL": "/dev/null"}

    def run(command: list[str], where: Path) -> str:
        done = subprocess.run(command, cwd=where, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    clone, course = shlex.split(listed[0]), tmp_path / shlex.split(listed[1])[1]
    run([*clone[:2], "-q", str(ROOT), clone[3]], tmp_path)
    for name in ("xai_course", "tools", "notebooks", "data/checks"):  # also what is not committed yet
        shutil.copytree(ROOT / name, course / name, dirs_exist_ok=True)
    for name in ("Makefile", "_config.yml"):
        shutil.copy(ROOT / name, course)
    environment["PYTHONPATH"] = str(course)
    run([*ready, *shlex.split(listed[2].replace("OWNER/REPO", "some-teacher/some-fork"))[1:]], course)
    run([*ready, *shlex.split(listed[3])[1:]], course)
    for folder in ("assignments", "students"):  # what Colab opens installs the fork
        assert "github.com/some-teacher/some-fork" in (course / "notebooks" / folder / "cam.ipynb").read_text()

    built = course / "_build" / "assignments"
    assert {p.name for p in built.iterdir()} == {p.stem for p in (ROOT / "notebooks" / "assignments").glob("*.ipynb")}
    handed_in = course / "handed_in"
    handed_in.mkdir()
    shutil.copy(built / "cam" / "cam_key.ipynb", handed_in / "able.ipynb")
    shutil.copy(built / "cam" / "cam.ipynb", handed_in / "absent.ipynb")
    by_python = [[sys.executable, *shlex.split(line)[1:]] for line in listed[4:]]
    grade, sheet, seal, unseal, solutions, marks, similar = by_python
    run(grade, course)
    run(sheet, course)

    grades = course / "_build" / "grades" / "cam"
    rows = {row["student"]: row for row in csv.DictReader((grades / "scores.csv").open())}
    assert {name: float(row["score"]) for name, row in rows.items()} == {"able": 20, "absent": 0}
    assert {p.stem for p in (grades / "feedback").iterdir()} == set(rows)
    assert "centre box and an untrained network say\nwhat is had for nothing" in (grades / "sheet.html").read_text()
    table = (grades / "manual.csv").read_text()
    (grades / "manual.csv").write_text(table.replace("able,,,,", "able,2,1,0,2"))
    (grades / "late.csv").write_text("student,days\nable,2\n")

    masters = {p.name: p.read_bytes() for p in (course / "notebooks" / "assignments").iterdir()}
    if shutil.which("gpg"):
        run(seal, course)
        assert not (course / "notebooks" / "assignments" / "cam.ipynb").exists() and (course / "course.sealed").exists()
        run(unseal, course)
    assert {p.name: p.read_bytes() for p in (course / "notebooks" / "assignments").iterdir()} == masters
    run(solutions, course)
    assert "einsum" in (course / "notebooks" / "solutions" / "cam.ipynb").read_text()
    run(marks, course)
    book = {row["student"]: row for row in csv.DictReader((grades.parent / "gradebook.csv").open())}
    assert (book["able"]["cam"], book["able"]["of"], book["absent"]["cam"]) == ("22.5", "28", "0")
    assert "0 pairs of 2 hand-ins" in run(similar, course)
