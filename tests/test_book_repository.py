"""What a fresh clone promises: files that agree with each other and lead somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

import xai_course
from tools import ROOT
from tools.gates import sources
from tools.gates.html import toc_entries, tracked_files

ASKED_FOR = {"torch", "torchvision", "jupyter", "jupyter-book", "matplotlib", "ipywidgets", "papermill"}
TEXT = {".py", ".md", ".yml", ".txt", ".toml", ".ipynb", ".json", ".csv", ".bib", ".css", ".cff", ""}


def requirements() -> list[Requirement]:
    lines = [line.split("#")[0].strip() for line in (ROOT / "requirements.txt").read_text().splitlines()]
    return [Requirement(line) for line in lines if line]


def pins() -> dict[str, str]:
    return dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines())


def test_the_layout_is_the_one_asked_for():
    names = ["book", "notebooks", "xai_course", "data", "_config.yml", "_toc.yml", "requirements.txt"]
    assert [name for name in names if not (ROOT / name).exists()] == []


def test_requirements_are_bounds_and_constraints_are_pins_that_satisfy_them():
    wanted, pinned = requirements(), pins()
    assert {need.name for need in wanted} >= ASKED_FOR
    assert all(">=" in str(need.specifier) for need in wanted)
    assert [str(need) for need in wanted if pinned.get(need.name, "0") not in need.specifier] == []


def test_constraints_hold_no_address():
    assert [line for line in pins() if re.search(r"[:/@ ]", line)] == [] and "xai-course" not in pins()


def test_committed_notebooks_pass_their_gates():
    assert sources.check_all(ROOT) == []


def test_the_contents_name_files_that_are_there_and_tracked():
    entries = list(toc_entries(yaml.safe_load((ROOT / "_toc.yml").read_text())))
    tracked = tracked_files(ROOT)
    assert len(entries) == len(set(entries))
    assert [entry for entry in entries if not {f"{entry}.md", f"{entry}.ipynb"} & tracked] == []


def test_make_knows_the_targets_that_the_documents_and_workflows_use():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))
    files = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "book/how_to_use.md", ".ci/run")]
    files += (ROOT / ".github" / "workflows").glob("*.yml")
    used = {t for f in files for t in re.findall(r"(?:`|^|run: )make ([a-z-]+)\b", f.read_text(), re.M)}
    assert {"book", "test", "lint"} <= used <= targets


def test_continuous_integration_calls_the_two_commands():
    script = (ROOT / ".ci" / "run").read_text()
    assert "set -euo pipefail" in script
    assert [line for line in ("make lint", "make test", "make book") if line not in script] == []
    assert ".ci/run" in (ROOT / ".github" / "workflows" / "book.yml").read_text()


@pytest.mark.parametrize("name", ["book.yml", "weekly.yml", "release.yml"])
def test_a_workflow_is_valid(name):
    workflow = ROOT / ".github" / "workflows" / name
    command = [
        str(Path(sys.executable).with_name("check-jsonschema")),
        "--builtin-schema",
        "vendor.github-workflows",
        str(workflow),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    broken = yaml.safe_load(workflow.read_text())
    assert all(job["timeout-minutes"] for job in broken["jobs"].values())


def test_actions_are_pinned_by_commit_and_a_release_is_published_by_hand():
    for path in (ROOT / ".github" / "workflows").glob("*.yml"):
        used = re.findall(r"uses: (.+)", path.read_text())
        assert used and [u for u in used if not re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", u)] == [], (
            path.name
        )
    release = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text())
    assert list(release[True]) == ["workflow_dispatch"]  # YAML reads the key "on" as true
    publish = release["jobs"]["publish"]
    assert publish["environment"] == "pypi" and publish["if"] == "inputs.publish"


def test_every_pin_has_its_hashes():
    pins = set((ROOT / "constraints.txt").read_text().split())
    hashed = (ROOT / "constraints-hashes.txt").read_text().split("\n")
    named = {line.split(";")[0].rstrip(" \\") for line in hashed if "==" in line and not line.startswith(" ")}
    assert {pin.lower().replace("_", "-").replace(".", "-") for pin in pins} == {
        pin.lower().replace("_", "-").replace(".", "-") for pin in named
    }
    assert all(len(line.split("sha256:")[1].rstrip(" \\")) == 64 for line in hashed if "--hash" in line)


def test_each_job_of_a_workflow_has_its_own_rights_and_no_more():
    may_write = {}
    for path in (ROOT / ".github" / "workflows").glob("*.yml"):
        workflow = yaml.safe_load(path.read_text())
        assert workflow["permissions"] == {}, path.name
        for name, job in workflow["jobs"].items():
            writes = sorted(right for right, kind in job["permissions"].items() if kind == "write")
            may_write |= {f"{path.stem}/{name}": writes} if writes else {}
            if writes and "id-token" not in writes:  # what may write runs nobody else's code
                assert "container" not in job and not any("uses" in step for step in job["steps"]), name
    assert may_write == {
        "book/deploy": ["id-token", "pages"],
        "release/build": ["attestations", "id-token"],
        "release/publish": ["id-token"],
        "weekly/report": ["issues"],
    }


def test_the_version_is_said_once_and_agrees():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert settings["project"]["dynamic"] == ["version"]
    assert settings["tool"]["hatch"]["version"]["path"] == "xai_course/__init__.py"
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == xai_course.__version__
    latest = re.search(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert latest[1] == xai_course.__version__


def test_each_hook_before_a_commit_has_its_program_and_its_files():
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    tracked = tracked_files(ROOT)
    for hook in repository["hooks"]:
        program = hook["entry"].split()[0]
        assert program.startswith(".venv/bin/") and (ROOT / program).exists(), hook["id"]
        assert "files" not in hook or any(re.search(hook["files"], name) for name in tracked), hook["id"]


def test_no_tracked_file_names_a_machine():
    found = []
    for name in sorted(tracked_files(ROOT)):
        path = ROOT / name
        if path.suffix in TEXT and path.is_file():
            text = path.read_text("utf-8", errors="ignore")
            found += [f"{name}: {hit}" for hit in re.findall("/" + r"(?:work|root|home)/[\w./-]+", text)]
    assert found == []


def test_the_licences_are_there():
    assert (ROOT / "LICENSE").read_text().startswith("MIT License")
    text = (ROOT / "LICENSE-TEXT").read_text()
    assert "Creative Commons Attribution 4.0 International Public License" in text and len(text) > 15_000
