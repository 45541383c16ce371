"""Labs survive the machine: what names a kept run, resuming it, rows loaded or trained, and that every lab does so."""

from __future__ import annotations

import ast
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from test_runs import toy as toy_row
from torch import nn

from tools import ROOT, bootstrap, notebook_paths
from tools.gates.executed import KEPT
from tools.run_notebooks import code_cells, text
from xai_course import colab
from xai_course.data.batch import ArrayData
from xai_course.methods.base import CrossEntropy, classification_loss
from xai_course.methods.hnc import HNC
from xai_course.nets.convnets import GapClassifier, conv, small_cnn
from xai_course.preset import Preset
from xai_course.runs import catalogue, lab, records
from xai_course.train import fit as plain_fit

PLAN = Preset(epochs=3, batch_size=8, lr=0.01, limit=24)


def images(seed: int = 0) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    pictures = torch.randint(256, (32, 3, 8, 8), generator=g, dtype=torch.uint8)
    return {"images": pictures, "labels": torch.arange(32) % 3, "masks": pictures[:, 0] > 128}


def changed(name: str, at: int) -> ArrayData:
    parts = images()
    parts[name][at] = 1 - parts[name][at].to(torch.uint8) % 2
    return ArrayData(**parts)


def net(width: int = 4, seed: int = 0) -> GapClassifier:
    torch.manual_seed(seed)
    return GapClassifier(conv(3, width), nn.Linear(width, 3))


def shift(batch, generator):
    """An augmentation that can be slowed down from outside, so that a run can be killed in its middle."""
    time.sleep(float(os.environ.get("XAI_COURSE_TEST_SLEEP", "0")))
    return batch._replace(images=batch.images + 0.1 * torch.rand((), generator=generator))


def weights(method) -> torch.Tensor:
    return torch.cat([value.double().flatten() for value in method.state_dict().values()])


BASE = {"method": lambda: HNC(net(), "mse", 0.1, keep_top=1), "data": lambda: ArrayData(**images()), "preset": PLAN}


def key(method=BASE["method"], data=BASE["data"], preset=PLAN, **rest) -> str:
    return lab.key(method(), data(), preset, **rest)


def eager():
    method = BASE["method"]()
    method.net.body[1].momentum = 0.5  # a setting that no weight shows
    return method


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    monkeypatch.setenv("XAI_COURSE_LABS", str(tmp_path / "labs"))
    monkeypatch.setattr(lab, "STARTED", time.time() + 3600)  # whoever edits the package meanwhile shall not matter here
    colab.say_once.cache_clear()
    return tmp_path


DECIDES = {
    "learning rate": {"preset": replace(PLAN, lr=0.02)},
    "epochs": {"preset": replace(PLAN, epochs=4)},
    "seed": {"seed": 1},
    "an image": {"data": lambda: changed("images", 0)},
    "a label": {"data": lambda: changed("labels", 0)},
    "a mask": {"data": lambda: ArrayData(**{**images(), "masks": ~images()["masks"]})},
    "no masks": {"data": lambda: ArrayData(**{**images(), "masks": None})},
    "lambda": {"method": lambda: HNC(net(), "mse", 0.2, keep_top=1)},
    "penalty": {"method": lambda: HNC(net(), "kd", 0.1, keep_top=1)},
    "initial weights": {"method": lambda: HNC(net(seed=1), "mse", 0.1, keep_top=1)},
    "width": {"method": lambda: HNC(net(5), "mse", 0.1, keep_top=1)},
    "class": {"method": lambda: CrossEntropy(net())},
    "momentum of BatchNorm": {"method": eager},
    "augmentation": {"augment": shift},
    "arguments of the augmentation": {"augment": partial(shift, generator=None)},
}


@pytest.mark.parametrize("change", DECIDES.values(), ids=DECIDES)
def test_whatever_decides_the_weights_names_another_run(change):
    assert key(**change) != key()


def test_all_these_runs_have_different_names():
    assert len({key(**change) for change in DECIDES.values()}) == len(DECIDES)


def test_what_decides_nothing_changes_no_name():
    same = [
        {"preset": replace(PLAN, workers=2, checkpoint_seconds=1.0)},
        {"data": lambda: changed("images", 30)},  # beyond the limit: never read
        {"method": lambda: HNC(net().to(memory_format=torch.channels_last), "mse", 0.1, keep_top=1)},
    ]
    assert {key(**change) for change in same} == {key()}


def test_a_changed_package_file_is_part_of_the_name(monkeypatch):
    before, read = key(), Path.read_bytes
    for file in ("train.py", "preset.py", "methods/hnc.py", "nets/convnets.py", "data/batch.py"):
        changed = Path(lab.train.__file__).parent / file
        monkeypatch.setattr(Path, "read_bytes", lambda p, changed=changed: read(p) + b"\nX = 1\n" * (p == changed))
        assert key() != before, file
    monkeypatch.setattr(Path, "read_bytes", read)
    monkeypatch.setattr(lab, "STARTED", 0.0)  # what is in memory is no longer what the files say
    with pytest.raises(ValueError, match="restart the kernel"):
        key()


def test_the_methods_of_all_chapters_can_be_named():
    chosen = ("looking/digits/silent", "amc/digits/amc_w10", "hnc/digits/mse_1", "loss_attention/digits/gated")
    chosen += ("loss_attention/digits/loss_attention", "minmax/why/u4", "reff/digits/middle/energy", "bench/plain/ce")
    rows = [catalogue.find(name) for name in chosen]
    splits = rows[0].data(preset="smoke", seed=0, train=20, validation=10, test=10)
    assert len({lab.key(e.method(e.net(splits)), splits.train, e.preset("smoke")) for e in rows}) == len(rows)


KILLED = """
import test_colab_labs as t
print(t.key(preset=t.EAGER, augment=t.shift), flush=True)
t.lab.fit(t.BASE["method"](), t.BASE["data"](), t.EAGER, augment=t.shift)
"""
EAGER = replace(PLAN, checkpoint_seconds=0.0)  # saves after every step


def test_killed_and_run_again_ends_with_the_same_bits(folders, capsys):
    paths = os.pathsep.join([os.path.dirname(__file__), str(ROOT)])
    env = {**os.environ, "XAI_COURSE_TEST_SLEEP": "0.5", "PYTHONPATH": paths, "PYTHONHASHSEED": "1"}
    killed = subprocess.Popen([sys.executable, "-c", KILLED], env=env, stdout=subprocess.PIPE, text=True)
    seen, deadline = set(), time.monotonic() + 240
    while len(seen) < 2 and time.monotonic() < deadline:  # the second checkpoint lies inside the first epoch
        seen |= {path.stat().st_mtime_ns for path in folders.glob("labs/*/checkpoint.pt")}
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    (kept,) = folders.glob("labs/*/checkpoint.pt")
    assert kept.parent.name == key(augment=shift) == killed.stdout.read().strip()  # the same name in every process
    assert torch.load(kept, weights_only=True)["progress"]["epoch"] < PLAN.epochs
    method, whole = BASE["method"](), BASE["method"]()
    assert len(lab.fit(method, BASE["data"](), EAGER, augment=shift)) == PLAN.epochs
    assert KEPT in capsys.readouterr().out
    plain_fit(whole, BASE["data"](), EAGER, augment=shift)
    assert torch.equal(weights(method), weights(whole))


def test_a_finished_run_loads_and_another_lambda_is_trained_anew(folders, capsys):
    def fitted(balance, **more):
        method = HNC(net(), "mse", balance, keep_top=1)
        return lab.fit(method, BASE["data"](), PLAN, **more), weights(method)

    first, second = fitted(0.1), fitted(5.0)
    assert capsys.readouterr().out == "" and len(list((folders / "labs").iterdir())) == 2
    fresh = HNC(net(), "mse", 5.0, keep_top=1)
    plain_fit(fresh, BASE["data"](), PLAN)
    assert torch.equal(second[1], weights(fresh)) and not torch.equal(first[1], second[1])
    again = fitted(0.1)
    assert f"HNC: {KEPT}" in capsys.readouterr().out
    assert again[0] == first[0] and torch.equal(again[1], first[1])  # the history too, with its seconds
    anew = fitted(0.1, resume=False)
    assert anew[0] != first[0] and torch.equal(anew[1], first[1]) and capsys.readouterr().out == ""


class Own(CrossEntropy):
    """Stands for a loss that a reader writes in a cell."""

    def losses(self, batch, clock):
        yield {"total": 2 * classification_loss(self.net(batch.images), batch.labels)}


def unwritable(folders, monkeypatch):
    (folders / "labs").write_text("a file where the folder should be")


def full(folders, monkeypatch):
    disk = type(lab.shutil.disk_usage(folders))
    monkeypatch.setattr(lab.shutil, "disk_usage", lambda path: disk(10**12, 10**12 - 10**6, 10**6))


def nameless(folders, monkeypatch):
    monkeypatch.setattr(Own, "__module__", "__main__")


REASONS = {
    unwritable: "cannot be written .*set XAI_COURSE_CACHE",
    full: "MB are needed and 1 MB are free .*set XAI_COURSE_CACHE",
    nameless: "Own is written in this notebook",
}


@pytest.mark.parametrize(("fault", "said"), REASONS.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_a_run_that_cannot_be_kept_is_trained_and_says_why(folders, monkeypatch, capsys, fault, said):
    fault(folders, monkeypatch)
    method, reference = Own(net()), Own(net())
    assert len(lab.fit(method, BASE["data"](), PLAN)) == PLAN.epochs
    out = capsys.readouterr().out
    assert out.count("\n") == 1 and out.startswith("Own is trained without a checkpoint: ")
    assert re.search(said, out)
    assert not list(folders.glob("labs/*/checkpoint.pt"))
    plain_fit(reference, BASE["data"](), PLAN)
    assert torch.equal(weights(method), weights(reference))


def test_networks_that_nobody_asked_for_in_a_month_are_removed(folders):
    lab.fit(CrossEntropy(net()), BASE["data"](), PLAN)
    (old,) = (folders / "labs").iterdir()
    month = time.time() - (lab.KEPT_DAYS + 1) * 86400
    os.utime(old / "checkpoint.pt", (month, month))
    (folders / "labs" / "notes").mkdir()  # not ours
    lab.fit(CrossEntropy(net(seed=1)), BASE["data"](), PLAN)
    assert not old.exists() and (folders / "labs" / "notes").exists() and len(list((folders / "labs").iterdir())) == 2


def test_a_kept_network_is_small(folders):
    lab.fit(CrossEntropy(small_cnn(3)), BASE["data"](), replace(PLAN, epochs=1))
    (kept,) = folders.glob("labs/*/checkpoint.pt")
    assert kept.stat().st_size < 1.5e6


@pytest.fixture
def table(folders, monkeypatch):
    """Own results and cache, and a catalogue with three rows; two also exist at colab."""
    monkeypatch.setenv("XAI_COURSE_RESULTS", str(folders / "results"))
    monkeypatch.setenv("XAI_COURSE_CACHE", str(folders / "cache"))
    both = {name: Preset(epochs=1, batch_size=8) for name in ("smoke", "colab")}
    found = {f"amc/toy/{name}": toy_row(f"amc/toy/{name}", presets=both) for name in ("a", "b")}
    found["amc/small/c"] = toy_row("amc/small/c")
    monkeypatch.setattr(catalogue, "experiments", lambda: found)
    monkeypatch.setattr(lab, "experiments", lambda: found)
    return found


def test_rows_are_loaded_and_a_missing_one_names_its_command(table):
    with pytest.raises(FileNotFoundError, match="xai-course run amc/toy/a --preset smoke"):
        lab.rows("amc/toy", ["a"])
    assert lab.rows("amc/toy", ["a"], skip_missing=True) == {}
    with pytest.raises(ValueError, match="did you mean 'amc/toy/a'"):
        lab.rows("amc/toy", ["aa"])
    with pytest.raises(ValueError, match="profile must be one of"):
        lab.rows("amc/toy", profile="fast")
    made = lab.rows("amc/toy", ["b"], retrain=True, save=True)
    assert lab.rows("amc/toy", ["b"]) == made and made["b"].seeds == (0, 1, 2)
    assert list(lab.rows("amc/toy", skip_missing=True)) == ["b"]


def test_rows_of_one_table_come_from_one_profile(table, capsys):
    lab.rows("amc/toy", None, "smoke", retrain=True, save=True)
    lab.rows("amc/toy", ["a"], "colab", retrain=True, save=True)
    capsys.readouterr()
    colab.say_once.cache_clear()
    for _ in range(2):  # b has no colab record, and the line comes once
        assert [r.preset for r in lab.rows("amc/toy", profile="colab").values()] == ["smoke", "smoke"]
    assert capsys.readouterr().out.count("not every row is recorded") == 1
    lab.rows("amc/toy", ["b"], "colab", retrain=True, save=True)
    assert [r.preset for r in lab.rows("amc/toy", profile="colab").values()] == ["colab", "colab"]
    assert lab.rows("amc/small", None, "colab", retrain=True, save=True)["c"].preset == "smoke"
    assert "not every row is declared at profile colab" in capsys.readouterr().out


def test_retraining_leaves_the_committed_records_alone(table, folders):
    lab.rows("amc/toy", ["b"], retrain=True, save=True)
    before = {path: path.read_bytes() for path in (folders / "results").rglob("*.json")}
    made = lab.rows("amc/toy", None, retrain=True)
    assert list(made) == ["a", "b"] and made["a"].metrics
    assert {path: path.read_bytes() for path in (folders / "results").rglob("*.json")} == before
    assert len(list((folders / "cache").rglob("result.json"))) >= 3, "what was trained waits in the cache folder"


def test_retraining_uses_the_seeds_of_the_record(table, capsys):
    first = lab.rows("amc/small", ["c"], retrain=True, save=True)["c"]
    records.save(replace(first, seeds=(7,), metrics={"accuracy": records.Metric((0.123,))}, seconds=(1.0,)), force=True)
    again = lab.rows("amc/small", ["c"], retrain=True, save=True)["c"]
    assert again.seeds == (7,) and again.code == first.code and again.metrics["accuracy"].values != (0.123,)
    assert "seeds 7; the committed run took 1 s" in capsys.readouterr().out


def trees(path) -> list[ast.AST]:
    cells = [text(cell) for cell in code_cells(json.loads(path.read_text("utf-8")))]
    return [node for cell in cells if "%pip" not in cell for node in ast.walk(ast.parse(cell))]


LABS = [path for path in notebook_paths() if path.stem != "8_your_own_loop"]  # keeps no network


@pytest.mark.parametrize("path", LABS, ids=lambda path: path.stem)
def test_every_lab_keeps_what_it_trains_and_loads_or_trains_its_rows(path):
    cells, nodes = code_cells(json.loads(path.read_text("utf-8"))), trees(path)
    assert text(cells[1]).startswith(bootstrap.PARAMETERS) and "retrain = False" in bootstrap.PARAMETERS
    imported = {f"{n.module}.{a.name}" for n in nodes if isinstance(n, ast.ImportFrom) for a in n.names}
    assert "xai_course.train.fit" not in imported, "train through lab.fit, which goes on where it stopped"
    assert not {n for n in imported if n.startswith("xai_course.runs.records")}, "read records through lab.rows"
    assert "xai_course.runs.lab" in imported
    assert not [n for n in nodes if isinstance(n, ast.Call) and isinstance(n.func, ast.Name) and n.func.id == "fit"]
    calls = [ast.unparse(n) for n in nodes if isinstance(n, ast.Call) and ast.unparse(n.func) == "lab.rows"]
    assert calls and all("retrain" in call and ("profile" in call or "'smoke'" in call) for call in calls)
    used = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
    assert {"profile", "retrain"} <= used
