"""The command line: what it lists, what it says and asks before it trains, and that a mistake is one line."""

from __future__ import annotations

import dataclasses
import json
import sys

import pytest

import xai_course
from xai_course import cli
from xai_course.runs import records, sweep
from xai_course.runs.catalogue import experiments, matching, unknown


def listed(capsys, *arguments: str) -> list[dict]:
    assert cli.main(["list", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_paper_a_table_and_a_pattern_name_rows():
    papers = [e for e in experiments().values() if e.paper == "amc"]
    assert matching("amc") == papers and {e.item for e in matching("amc/digits")} == {"digits"}
    assert matching("amc/") == matching("amc/*") == papers
    assert [e.name for e in matching("amc/digits/ce")] == ["amc/digits/ce"]


def test_a_list_is_narrowed_by_preset_data_and_missing_records(capsys):
    everything = listed(capsys)
    assert [row["name"] for row in everything] == list(experiments())
    missing = listed(capsys, "--missing", "--preset", "colab", "--data", "cifar10")
    assert missing and all("colab" in row["presets"] and "colab" not in row["records"] for row in missing)
    assert all("cifar10" in str(experiments()[row["name"]].data) for row in missing)
    assert listed(capsys, "--data", "CIFAR10") == listed(capsys, "--data", "cifar10")
    assert not {row["name"] for row in missing} & {row["name"] for row in listed(capsys, "--data", "cifar100")}
    kept = {row["name"] for row in everything if not row["records"]}
    assert {row["name"] for row in listed(capsys, "--missing")} == kept
    ce = listed(capsys, "amc/digits/ce")[0]
    assert ce["records"]["smoke"] == list(records.load("amc/digits/ce").seeds) and ce["title"] == "Cross-entropy"


@pytest.fixture
def two_records(tmp_path, monkeypatch):
    """A results folder in which cross-entropy took 10 s a seed and AMC at weight 100 took 100 s."""
    ce, amc = (records.load(f"amc/digits/{row}") for row in ("ce", "amc_w100"))
    monkeypatch.setenv("XAI_COURSE_RESULTS", str(tmp_path))
    records.save(dataclasses.replace(ce, seconds=(5.0, 15.0)))
    records.save(dataclasses.replace(amc, seconds=(100.0,)))


@pytest.fixture
def started(monkeypatch):
    """What a run would have trained."""
    calls = []
    monkeypatch.setattr(sweep, "sweep", lambda names, *rest, **settings: calls.append(list(names)) or [])
    return calls


def test_a_dry_run_says_how_many_trainings_and_how_long_they_take(two_records, started, capsys):
    def said(*arguments: str) -> str:
        assert cli.main(["run", *arguments, "--dry-run"]) == 0
        return capsys.readouterr().out.strip()

    assert (
        said("amc/digits/ce") == "3 trainings (1 rows × 3 seeds at smoke), about 30 s: 1 of 1 rows by their own records"
    )
    rows = len(matching("amc/digits"))
    seconds = 2 * (
        10 * (rows - 1) + 100
    )  # the nearest of the others is the first of the table, or that of their method
    text = said("amc/digits", "--seeds", "2")
    assert text.startswith(f"{2 * rows} trainings ({rows} rows × 2 seeds at smoke), about {seconds / 60:.0f} min")
    assert text.endswith(f"2 of {rows} rows by their own records, the others by the nearest row's")
    same = said("amc/fig4/amc_w100", "--seeds", "4")
    assert "about 7 min: 0 of 1 rows" in same  # same paper, same method: 100 s
    assert said("amc/digits", "--preset", "colab").endswith("time unknown: no row has a record at colab")
    assert started == []


def test_a_terminal_is_asked_before_many_trainings(started, monkeypatch, capsys):
    answers = []
    monkeypatch.setattr("builtins.input", lambda question: answers.pop())
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    answers.append("no")
    assert cli.main(["run", "amc", "--seeds", "5"]) == 2 and started == []
    assert "trainings (" in (said := capsys.readouterr().err) and said.endswith("xai-course: nothing was started\n")
    answers.append("y")
    assert cli.main(["run", "amc", "--seeds", "5"]) == 0 and len(started) == 1
    assert cli.main(["run", "amc", "--seeds", "5", "--yes"]) == 0 and len(started) == 2
    assert cli.main(["run", "amc/digits/ce", "--seeds", str(cli.ASK_ABOVE)]) == 0 and answers == []
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    capsys.readouterr()
    assert cli.main(["run", "amc", "--seeds", "5"]) == 0 and len(started) == 4
    assert "trainings (" in capsys.readouterr().err


def test_rows_without_the_preset_are_left_out_and_counted(started, capsys):
    with_it = [e.name for e in matching("hnc") if "paper" in e.presets]
    assert 0 < len(with_it) < len(matching("hnc"))
    assert cli.main(["run", "hnc", "--preset", "paper", "--seeds", "1"]) == 0 and started == [with_it]
    assert (
        f"{len(matching('hnc')) - len(with_it)} rows are left out: they have no preset paper" in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run"], "the following arguments are required: pattern (see xai-course run --help)"),
        (["run", "amc", "--preset", "huge"], "argument --preset: invalid choice: 'huge'"),
        (["list", "nope"], "unknown experiment 'nope'\n"),
        (["list", "amk"], "unknown experiment 'amk': did you mean 'amc'?"),
        (["list", "AMC/Digitz"], "unknown experiment 'AMC/Digitz': did you mean 'amc/digits'?"),
        (["list", "amc/digitz/ce"], "unknown experiment 'amc/digitz/ce': did you mean 'amc/digits/ce'?"),
        (["list", "amc/*/x"], "unknown experiment 'amc/*/x'\n"),
        (["list", "--data", "cifr10"], "unknown data set 'cifr10': did you mean 'cifar10'?"),
        (["report", "amk"], "unknown paper 'amk': did you mean 'amc'?"),
        (["run", "mse_99"], "did you mean 'hnc/keep_top/mse_9'?"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(arguments, message, capsys):
    try:
        status = cli.main(arguments)
    except SystemExit as stopped:
        status = stopped.code
    said = capsys.readouterr().err
    assert status == 2 and said.startswith("xai-course: ") and message in said and said.count("\n") == 1


def test_only_a_near_name_is_suggested():
    assert unknown("row", "nope", experiments()) == "unknown row 'nope'"
    assert unknown("row", "hnc/keep_tp/mse_9", experiments()).endswith("did you mean 'hnc/keep_top/mse_9'?")


def test_version_and_completion(monkeypatch, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["--version"])
    assert stopped.value.code == 0 and capsys.readouterr().out == f"xai-course {xai_course.__version__}\n"
    assert cli.main(["completion", "bash"]) == 0 and "--dry-run" in capsys.readouterr().out
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert cli.main(["completion", "zsh"]) == 2
    assert capsys.readouterr().err == "xai-course: completion needs shtab: pip install shtab\n"
