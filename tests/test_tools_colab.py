"""The first cell of a notebook: one line, no change to the machine."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import xai_course
from tools import ROOT, bootstrap
from xai_course import colab

# What Colab's image held in August 2026, as far as its published list names what this package needs.
COLAB = {"torch": "2.11.0", "torchvision": "0.26.0", "numpy": "2.1.3", "matplotlib": "3.10.0", "ipywidgets": "7.7.1"}


@pytest.mark.parametrize(("where", "expected"), [("cpu", "smoke"), ("mps", "smoke"), ("cuda", "colab")])
def test_the_hardware_picks_the_profile(monkeypatch, where, expected):
    monkeypatch.setattr(colab, "device", lambda: where)
    assert colab.profile("auto") == expected
    assert [colab.profile(name) for name in colab.PROFILES] == list(colab.PROFILES)


def test_an_unknown_profile_is_refused():
    with pytest.raises(ValueError, match="profile must be one of .*, got 'fast'"):
        colab.profile("fast")


def test_setup_says_one_line_and_returns_what_it_said(capsys):
    found = xai_course.setup()
    said = capsys.readouterr().out
    assert said.count("\n") == 1 and found.profile in said and found.budget in said and said.startswith("device: ")


def test_a_notebook_does_not_show_the_value_a_second_time(capsys):
    found = colab.Setup("cpu", "smoke", "2 min")
    assert found._ipython_display_() is None and capsys.readouterr().out == ""


def test_setup_loads_no_plotting_library():
    program = "import sys, xai_course; xai_course.setup(); print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.splitlines()[-1] == "False" and done.stderr == ""


def test_the_first_cell_changes_no_package():
    """It installs without dependencies, so nothing that is there can be replaced."""
    installs = [line for line in bootstrap.SOURCE.splitlines() if "pip" in line]
    assert len(installs) == 1 and "--no-deps" in installs[0]
    assert "torch" not in bootstrap.SOURCE and "mount" not in bootstrap.SOURCE


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, check=True, cwd=ROOT, capture_output=True)
    return next(folder.glob("*.whl"))


def test_the_wheel_carries_records_ledger_and_registry(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    for folder in ("results", "ledger", "checks"):
        for path in filter(Path.is_file, (ROOT / "data" / folder).rglob("*")):
            assert f"xai_course/_data/{path.relative_to(ROOT / 'data').as_posix()}" in names
    assert any(name.startswith("xai_course/_data/registry") for name in names)
    assert "xai_course/py.typed" in names and f"xai_course-{xai_course.__version__}-py3-none-any.whl" == wheel.name
    assert not any(name.startswith(("tests/", "tools/", "notebooks/", "book/")) for name in names)


def test_colabs_versions_satisfy_the_wheel(wheel):
    """Even a plain install, with dependencies, would replace none of Colab's versions."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        needs = Parser().parsestr(archive.read(name).decode()).get_all("Requires-Dist")
    wanted = [Requirement(need) for need in needs if "extra ==" not in need]
    refused = [str(need) for need in wanted if need.name in COLAB and COLAB[need.name] not in need.specifier]
    assert refused == []
    assert not [str(need) for need in wanted if {s.operator for s in need.specifier} - {">="}], "lower bounds only"


def test_the_wheel_works_from_another_folder(wheel, tmp_path):
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", str(tmp_path)]
    subprocess.run([*command, str(wheel)], check=True, capture_output=True)
    assert {path.name.split("-")[0] for path in tmp_path.iterdir()} <= {"xai_course", "bin"}
    program = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import xai_course; print(xai_course.__file__)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.startswith(str(tmp_path))
