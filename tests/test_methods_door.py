"""The front door of the methods: every public name, loaded when it is used."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from pathlib import Path

import xai_course.methods as door

ROOM = Path(door.__file__).parent


def test_the_door_lists_every_public_name_and_no_other():
    defined = []
    for file in ROOM.glob("*.py"):
        for node in ast.parse(file.read_text("utf-8")).body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
                defined.append((file.stem, node.name))
    count = Counter(name for _, name in defined)
    files = {file.stem for file in ROOM.glob("*.py")}  # a name that a file has too is had from that file
    expected = {f"from .{m} import {n} as {n}" for m, n in defined if count[n] == 1 and n not in files}
    lines = (ROOM / "__init__.pyi").read_text("utf-8").splitlines()
    listed = [line for line in lines if line and not line.startswith("#")]
    assert sorted(listed) == sorted(expected), "add or remove lines of methods/__init__.pyi"
    assert set(dir(door)) >= set(door.__all__) == {n for n, times in count.items() if times == 1} - files


def test_every_name_can_be_had():
    for name in door.__all__:
        assert getattr(door, name).__name__ == name


def test_looking_through_the_door_loads_nothing():
    code = """
import sys
import xai_course.methods
assert "AmcLoss" in dir(xai_course.methods) and "HomogeneousNegativeMaps" in xai_course.methods.__all__
assert not [m for m in sys.modules if m.startswith("xai_course.methods.") or m in ("torch", "torchvision")]
from xai_course.methods import HNC
from xai_course.methods import amc
assert (HNC.__module__, amc.__name__) == ("xai_course.methods.hnc", "xai_course.methods.amc")
assert "xai_course.methods.reff" not in sys.modules and "torchvision" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
