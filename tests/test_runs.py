"""Experiments, records, sweeps, reports, ledger and the command line."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
import subprocess
from pathlib import Path

import pytest
import torch
from torch import nn

from tools import ledger
from tools.speed import speed_markdown
from xai_course import cli
from xai_course.data.batch import ArrayData, Splits, fingerprint
from xai_course.identity import identity
from xai_course.methods.base import CrossEntropy, predict
from xai_course.nets.convnets import GapClassifier
from xai_course.preset import Preset
from xai_course.runs import catalogue, estimate, experiment, provenance, records, report, sweep
from xai_course.runs.experiment import Experiment, run

CALLS = []


def data(preset: str, seed: int, size: int = 30) -> Splits:
    g = torch.Generator().manual_seed(1)
    part = ArrayData(torch.rand(size, 1, 6, 6, generator=g), torch.arange(size) % 2)
    return Splits("Toys", part, part, part, ("a", "b"), fingerprint(part.images, size))


def net(splits: Splits) -> nn.Module:
    return GapClassifier(nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU()), nn.Linear(3, len(splits.classes)))


def accuracy(method, splits) -> dict[str, float]:
    CALLS.append("measured")
    logits, labels = predict(method, splits.test)
    return {"accuracy": (logits.argmax(1) == labels).float().mean()}


def broken(method, splits) -> dict[str, float]:
    raise ArithmeticError("planted fault")


def toy(name: str = "amc/toy/ce", **changes) -> Experiment:
    fields = {
        "data": functools.partial(data, size=24),
        "net": net,
        "method": functools.partial(CrossEntropy, label_smoothing=0.1),
        "presets": {"smoke": Preset(epochs=1, batch_size=8)},
        "measures": (accuracy,),
        "reported": {"accuracy": "82.35 ± 0.17"},
    }
    return Experiment(name=name, title="toy row", **{**fields, **changes})


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """Own results and cache folders, and a catalogue that holds three toys."""
    monkeypatch.setenv("XAI_COURSE_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("XAI_COURSE_CACHE", str(tmp_path / "cache"))
    toys = {e.name: e for e in (toy(), toy("amc/toy/other"), toy("amc/toy/broken", measures=(broken,)))}
    for module in (catalogue, estimate, provenance, report, ledger):
        monkeypatch.setattr(module, "experiments", lambda: toys)
    CALLS.clear()
    return tmp_path


def test_a_run_writes_one_record_with_everything_that_decided_it(lab):
    record = run(toy(), seeds=(0, 1))
    assert record == records.load("amc/toy/ce")
    assert len(record.metrics["accuracy"].values) == 2 == len(record.curves["total"]) == len(record.seconds)
    assert record.settings["method"] == {"call": "xai_course.methods.base.CrossEntropy", "label_smoothing": 0.1}
    assert record.settings["preset"]["batch_size"] == 8 and record.settings["data"]["size"] == 24
    assert record.data == {"name": "Toys", "fingerprints": [data("smoke", 0, 24).fingerprint] * 2}
    assert len(record.cpu_seconds) == 2 and min(record.cpu_seconds) > 0
    assert record.device and record.commit and record.versions["torch"] == torch.__version__.split("+")[0]


def test_finished_seeds_are_not_run_again_until_settings_change(lab):
    run(toy(), seeds=(0, 1))
    run(toy(), seeds=(0, 1, 2))
    assert len(CALLS) == 3
    run(toy(presets={"smoke": Preset(epochs=2, batch_size=8)}), seeds=(0,))
    assert len(CALLS) == 4
    run(toy(), seeds=(0,), resume=False)
    assert len(CALLS) == 5


@pytest.mark.parametrize("damage", [b"", b'{"metrics": {', b"[]", b"null", b'{"metrics": {}}', b"\xff\xfe"])
def test_a_damaged_finished_seed_is_trained_again(lab, damage):
    first = run(toy(), seeds=(0,))
    (kept,) = lab.rglob("result.json")
    whole = kept.read_bytes()
    kept.write_bytes(damage)
    assert run(toy(), seeds=(0,)).metrics == first.metrics and len(CALLS) == 2
    assert json.loads(kept.read_text())["metrics"] == json.loads(whole)["metrics"]
    kept.unlink()
    kept.mkdir()  # not even a file
    with pytest.raises(OSError, match=r"result\.json cannot be written to .*set XAI_COURSE_CACHE"):
        run(toy(), seeds=(0,))


def test_a_trial_of_one_seed_leaves_the_record_of_three(lab):
    three = run(toy(), seeds=(0, 1, 2))
    with pytest.warns(UserWarning, match="keeps its 3 seeds, this run has 1"):
        assert len(run(toy(), seeds=(0,)).seeds) == 1
    assert records.load("amc/toy/ce") == three
    assert cli.main(["run", "amc/toy/ce", "--seeds", "1", "--force"]) == 0
    assert records.load("amc/toy/ce").seeds == (0,)


def test_fingerprints_of_the_data_stand_in_the_order_of_the_seeds(lab, monkeypatch):
    each = lambda preset, seed: data(preset, seed)._replace(fingerprint=f"images of {9 - seed}")  # noqa: E731
    monkeypatch.setattr(Experiment, "settings", lambda self, preset: {})
    record = run(toy(data=each), seeds=(2, 0))
    assert record.data["fingerprints"] == ["images of 7", "images of 9"]


def test_a_record_is_stale_after_other_code_settings_or_an_uncommitted_tree(lab, monkeypatch, capsys):
    record = run(toy(), seeds=(0,))
    fresh = dataclasses.replace(record, commit="0123456789ab")
    assert provenance.stale(fresh) == []
    assert provenance.stale(dataclasses.replace(fresh, commit="0123456789ab+")) == ["uncommitted code"]
    assert provenance.stale(dataclasses.replace(fresh, commit="unknown", code="")) == ["other code", "uncommitted code"]
    assert provenance.stale(dataclasses.replace(fresh, settings={})) == ["other settings"]
    assert provenance.stale(dataclasses.replace(fresh, preset="paper")) == ["no longer declared"]
    assert provenance.stale(dataclasses.replace(fresh, experiment="amc/toy/gone")) == ["no longer declared"]
    records.save(fresh)
    assert cli.main(["records", "--stale"]) == 0 and capsys.readouterr().out == "no stale record\n"
    assert cli.main(["records"]) == 0 and "1 records     1 trainings" in capsys.readouterr().out
    records.save(dataclasses.replace(fresh, code="other"))
    assert cli.main(["records", "--stale"]) == 1
    out = capsys.readouterr().out
    assert out == "amc/toy/ce [smoke]: other code\n1 of 1 records are stale: 1 with other code\n"


def test_one_seed_trained_again_shows_that_a_record_is_what_later_code_gives(lab, monkeypatch, capsys):
    for name, shift in (("amc/toy/ce", 0.0), ("amc/toy/other", 0.25)):
        record = run(toy(name), seeds=(3, 4))
        moved = {"accuracy": records.Metric(tuple(v + shift for v in record.metrics["accuracy"].values))}
        old = {"code": "of before", "commit": "0123456789ab+", "seconds": (9.0, 1.0), "metrics": moved}
        records.save(dataclasses.replace(record, **old))
    monkeypatch.setattr(provenance, "commit", lambda files: "ba9876543210")
    CALLS.clear()
    assert cli.main(["records", "--recheck", "amc/*"]) == 1  # one of them is no longer what it was
    same, other = capsys.readouterr().out.splitlines()
    assert same == "amc/toy/ce [smoke]: seed 4 as recorded"
    assert re.fullmatch(r"amc/toy/other \[smoke\]: seed 4 accuracy [\d.]+ now [\d.]+", other)
    found, code = records.load("amc/toy/ce"), toy().code()
    assert found.checked == {"seed": 4, "code": code, "commit": "ba9876543210"} and found.code == "of before"
    assert provenance.stale(found) == [] and provenance.stale(records.load("amc/toy/other"))
    assert provenance.stale(dataclasses.replace(found, settings={})) == ["other settings"]
    assert cli.main(["records", "--recheck", "amc/toy/ce"]) == 0 and capsys.readouterr().out == ""


def test_a_recheck_that_fails_costs_the_others_nothing(lab, capsys):
    whole = run(toy(), seeds=(0,))
    for name in ("amc/toy/ce", "amc/toy/broken"):
        row = {"experiment": name, "code": "of before", "settings": catalogue.experiments()[name].settings("smoke")}
        records.save(dataclasses.replace(whole, **row))
    assert cli.main(["records", "--recheck", "*"]) == 1
    lines = capsys.readouterr().out
    assert "amc/toy/broken [smoke]: seed 0 failed, ArithmeticError: planted fault" in lines
    assert "amc/toy/ce [smoke]: seed 0 as recorded" in lines and not records.load("amc/toy/broken").checked


def test_a_record_without_cpu_seconds_is_read(lab):
    run(toy(), seeds=(0,))
    path = records.record_path("amc/toy/ce", "smoke")
    content = json.loads(path.read_text())
    del content["cpu_seconds"]
    path.write_text(json.dumps(content))
    assert records.load("amc/toy/ce").cpu_seconds == ()


def test_uncommitted_are_changes_in_files_that_decide_the_run(tmp_path, monkeypatch):
    def git(*words: str) -> None:
        subprocess.run(["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=a@b", *words], check=True)

    for name in ("used.py", "other.py"):
        (tmp_path / name).write_text("1")
    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "x")
    monkeypatch.setattr(experiment, "HERE", tmp_path)
    (tmp_path / "other.py").write_text("2")
    assert not experiment.commit([tmp_path / "used.py"]).endswith("+")
    (tmp_path / "used.py").write_text("2")
    assert experiment.commit([tmp_path / "used.py"]).endswith("+")
    monkeypatch.setattr(experiment, "HERE", tmp_path / "none")
    assert experiment.commit([]) == "unknown"


def test_metric_mean_and_sample_deviation():
    metric = records.Metric((0.2, 0.4))
    assert metric.mean == pytest.approx(0.3) and metric.sd == pytest.approx(0.02**0.5)
    assert str(metric) == "0.300 ± 0.141" and str(records.Metric((0.5,))) == "0.500"


@pytest.mark.parametrize("damage", ["half", "schema", "field"])
def test_a_damaged_record_is_named_and_skipped(lab, damage):
    run(toy(), seeds=(0,))
    path = records.record_path("amc/toy/ce", "smoke")
    text = path.read_text()
    content = json.loads(text)
    if damage == "half":
        path.write_text(text[: len(text) // 2])
    elif damage == "schema":
        path.write_text(json.dumps({**content, "schema": 99}))
    else:
        path.write_text(json.dumps({k: v for k, v in content.items() if k != "seeds"}))
    with pytest.raises(ValueError, match="smoke.json cannot be used .*run the experiment again"):
        records.load("amc/toy/ce")
    with pytest.warns(UserWarning, match="cannot be used"):
        assert records.available("amc/toy/ce") == {}


def test_a_missing_record_names_the_command(lab):
    with pytest.raises(FileNotFoundError, match="xai-course run amc/toy/ce --preset colab"):
        records.load("amc/toy/ce", "colab")


def test_a_full_disk_keeps_the_earlier_record(lab, monkeypatch):
    run(toy(), seeds=(0,))
    before = records.record_path("amc/toy/ce", "smoke").read_bytes()

    def full(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        run(toy(), seeds=(0, 1))
    assert records.record_path("amc/toy/ce", "smoke").read_bytes() == before


def test_a_sweep_goes_on_past_a_failure_and_after_a_stop(lab):
    names = ["amc/toy/broken", "amc/toy/ce", "amc/toy/other"]
    found = []
    with pytest.raises(RuntimeError, match="2 of 6 runs failed\namc/toy/broken seed 0: ArithmeticError: planted fault"):
        for record in sweep.sweep(names, seeds=(0, 1)):
            found.append(record.experiment)
    assert found == names[1:] and len(CALLS) == 2  # "other" is declared as "ce" is: it trains nothing again
    assert [r.experiment for r in sweep.sweep(names[1:], seeds=(0, 1))] == names[1:] and len(CALLS) == 2


def test_settings_are_data_not_code():
    def local():
        pass

    with pytest.raises(ValueError, match="experiments are data"):
        identity(local)
    partial = functools.partial(torch.add, 1, alpha=functools.partial(max, 2))
    assert identity(partial)["alpha"] == {"call": "builtins.max", "0": 2}


def test_report_shows_the_paper_beside_ours_and_why_a_row_was_not_run(lab):
    run(toy(), seeds=(0, 1))
    catalogue.experiments()["amc/toy/other"] = toy("amc/toy/other", needs="a GPU")
    text = report.report_markdown("amc")
    ours = str(records.load("amc/toy/ce").metrics["accuracy"])
    text = text.replace("\u00a0", " ")
    assert f"| toy row | 82.35 ± 0.17 | {ours} | data " in text and "*All runs: smoke, 2 seeds, Toys, CPU" in text
    assert "| toy row | 82.35 ± 0.17 |  | not run: needs a GPU |" in text
    with pytest.raises(ValueError, match="unknown paper 'amk': did you mean 'amc'"):
        report.report_markdown("amk")
    with pytest.raises(ValueError, match="unknown item of amc"):
        report.report_markdown("amc", "toi")
    assert report.report_markdown("amc", "toy").replace("\u00a0", " ") == text
    record = records.load("amc/toy/ce")
    other = dataclasses.replace(record, data={**record.data, "fingerprints": ["another"]})
    assert report.how_it_ran(record) != report.how_it_ran(other)  # says which images
    shared = report.in_common([record, dataclasses.replace(record, preset="colab")])
    assert "preset" not in shared and shared["data"] == "Toys"
    assert report.how_it_ran(record, shared).startswith("smoke, data\u00a0")
    assert report.item_title("table1") == "Table 1" and report.item_title("fig4") == "Figure 4"


HEADER = "paper,kind,where,what,code,test,status,note\n"
GOOD = (
    "amc,equation,1,what,xai_course.methods.base:CrossEntropy.losses,"
    "tests/test_runs.py::test_metric_mean_and_sample_deviation,done,\n"
)


@pytest.mark.parametrize(
    ("change", "gap"),
    [
        (("CrossEntropy.losses", "CrossEntropy.loses"), "no code"),
        (("methods.base", "methods.bass"), "no code"),
        (("test_metric_mean", "test_metric_men"), "no test"),
        (("tests/test_runs.py::test_metric_mean_and_sample_deviation", ""), "names no test"),
        (("xai_course.methods.base:CrossEntropy.losses", ""), "names no code"),
        ((",done,", ",finished,"), "status must be one of"),
    ],
)
def test_every_kind_of_ledger_gap_is_seen(tmp_path, change, gap):
    (tmp_path / "amc.csv").write_text(HEADER + GOOD)
    assert [ledger.gaps(e) for e in ledger.entries(tmp_path)] == [[]]
    (tmp_path / "amc.csv").write_text(HEADER + GOOD.replace(*change))
    found = [ledger.gaps(e) for e in ledger.entries(tmp_path)]
    assert gap in found[0][0], found


def test_ledger_rows_with_too_few_columns_are_named(tmp_path):
    (tmp_path / "amc.csv").write_text(HEADER + "amc,equation,1\n")
    with pytest.raises(ValueError, match="amc.csv, line 2"):
        ledger.entries(tmp_path)


def test_command_line(lab, capsys):
    assert cli.main(["run", "amc/toy/c*", "--seeds", "1"]) == 0
    assert "amc/toy/ce [smoke, 1 seed]  accuracy" in capsys.readouterr().out
    assert cli.main(["list", "amc/*"]) == 0
    out = capsys.readouterr().out
    assert "toy row  [smoke (1 seed)]" in out and "[no record]" in out
    assert cli.main(["report", "amc"]) == 0 and "82.35" in capsys.readouterr().out
    assert cli.main(["run", "amc/toy/cee"]) == 2
    assert capsys.readouterr().err == "xai-course: unknown experiment 'amc/toy/cee': did you mean 'amc/toy/ce'?\n"
    assert cli.main(["run", "amc/toy/ce", "--seeds", "0"]) == 2
    assert "--seeds must be >= 1 and --from >= 0, got 0 and 0" in capsys.readouterr().err
    assert cli.main(["run", "amc/toy/ce", "--seeds", "2", "--from", "7"]) == 0
    assert records.load("amc/toy/ce").seeds == (7, 8)
    assert cli.main(["run", "amc/toy/ce", "--preset", "colab"]) == 2
    assert "has the presets smoke, got 'colab'" in capsys.readouterr().err


def test_speed_tables_name_their_reference_and_refuse_empty_records(lab):
    with pytest.raises(ValueError, match="no benchmark records: run `make bench`"):
        speed_markdown()
    folder = lab / "results" / "benchmarks"
    folder.mkdir(parents=True)
    timing = {"ratio": 1.0, "low": 1.0, "high": 1.0, "milliseconds": 2.5}
    record = {"machine": "CPU", "threads": 1, "python": "3", "torch": "2", "cases": {"n = 4": {"plain": timing}}}
    record["cases"]["n = 4"]["ours"] = {"ratio": 0.5, "low": 0.4, "high": 0.625, "milliseconds": 1.25}
    (folder / "toy.json").write_text(json.dumps(record))
    text = speed_markdown()
    assert "| n = 4 | CPU time ÷ plain |" in text and "| ours | 0.50 | 0.40 to 0.62 | 1.2 |" in text
    (folder / "toy.json").write_text(json.dumps({**record, "cases": {}}))
    with pytest.raises(ValueError, match="toy.json holds no cases"):
        speed_markdown()


def test_commands_and_rows_named_in_the_text_exist():
    """Every ``xai-course run PATTERN`` and every row that the book names in a table of what to run."""
    import re

    from xai_course.runs.catalogue import matching

    root = Path(__file__).parents[1]
    named = set()
    for page in (root / "README.md", *(root / "book").glob("*.md")):
        text = page.read_text("utf-8")
        named |= set(re.findall(r"xai-course run \"?([a-z_]+/[^\s\"`']+)", text))
        named |= set(re.findall(r"`([a-z_]+/[a-z0-9_/.]+/\*)`", text))
    assert len(named) >= 10
    for pattern in named:
        assert matching(pattern), pattern  # an unknown name raises


def test_a_cached_seed_depends_on_all_code_that_decides_it(monkeypatch):
    """Also on files behind decorators, on helpers of a declared function's file, and on modules they import."""
    from xai_course.runs.catalogue import find

    root = Path(cli.__file__).parent

    decides = {
        "loss_attention/digits/loss_attention": ("methods/loss_attention.py", "nets/patch_nets.py", "train.py"),
        "amc/digits/amc_w10": ("preset.py", "data/textured_digits.py", "methods/amc.py"),
        "hnc/digits/mse_1": ("measure/peaks.py", "methods/hnc.py"),
        "minmax/digits/u0": ("measure/localising.py", "methods/erasing.py"),
        "reff/digits/easy/ce": ("data/textures.py", "maps/gradients.py"),
    }
    read = Path.read_bytes
    for name, files in decides.items():
        before = find(name).code()
        for file in files:
            changed = root / file
            monkeypatch.setattr(Path, "read_bytes", lambda p, changed=changed: read(p) + b"\nX = 1\n" * (p == changed))
            assert find(name).code() != before, (name, file)
        monkeypatch.setattr(Path, "read_bytes", read)
        assert find(name).code() == before
    other = root / "methods/minmax.py"
    monkeypatch.setattr(Path, "read_bytes", lambda p: read(p) + b"\nX = 1\n" * (p == other))
    assert find(name).code() == before  # another paper's method decides nothing here
