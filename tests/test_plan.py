"""What a row costs on a GPU, estimated without one."""

from __future__ import annotations

import os
import re
from fnmatch import fnmatchcase
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from tools import ROOT, settings
from xai_course import cli
from xai_course.runs import plan, sweep
from xai_course.runs.catalogue import experiments, find, matching
from xai_course.runs.task import gpus, images_of


def test_every_row_has_images_of_a_known_size_and_the_ledger_of_settings_agrees():
    for row in experiments().values():
        task = images_of(row, "paper")
        assert 28 <= task.shape[1] <= 512 and 2 <= task.classes <= 1000 and task.train >= 50, row.name
    assert images_of(find("hnc/table1/focal/resnet56"), "colab") == ((3, 32, 32), 100, False, 45000, 5000, 10000)
    for paper in ("amc", "hnc", "loss_attention", "minmax", "reff"):
        for name, row in settings.rows(paper).items():
            stated, task = settings.resolved(row)[0], images_of(row, "paper")
            assert task.shape[1] == stated["image_size"], name
            if "five_digits" not in stated["data"]:  # the ledger counts those before the five are taken out
                assert task.train == pytest.approx(stated["train_images"], rel=0.01), name


def test_a_card_is_found_within_a_drivers_name():
    assert plan.known("NVIDIA H100 80GB HBM3") == "h100" and plan.known("Tesla T4") == "t4"
    assert plan.known("NVIDIA L40S") == plan.known("") == ""


def test_a_plan_is_one_line_and_a_batch_that_does_not_fit_is_smaller(capsys, monkeypatch):
    assert cli.main(["plan", "amc/digits/ce", "--gpu", "t4", "--preset", "smoke"]) == 0
    assert re.fullmatch(r"amc/digits/ce: about .* per seed, .* GB, batch 64, float32\n", capsys.readouterr().out)
    monkeypatch.setattr(plan, "_counted", of_size(1.0))
    assert "batch 8 (not 64, which need 66 GB)" in plan.plan_line(find("amc/digits/ce"), "smoke", "t4")
    monkeypatch.setattr(plan, "_counted", of_size(10.0))
    assert plan.plan_line(find("amc/digits/ce"), "smoke", "t4").endswith("fits no batch on t4, 2 images need 22 GB")


def of_size(each: float, seconds: float = 0.001):
    """In place of a count: so many GB an image, beside one for the weights, so many seconds a step."""

    def counted(row, plan, task, batch, precision="no"):
        step = SimpleNamespace(flops=1, memory=1 + each * batch, seconds=lambda gpu: seconds)
        return step, step

    return counted


def test_a_row_beyond_the_promise_of_colab_is_marked_and_says_so(capsys, monkeypatch):
    kept, row = find("amc/digits/ce"), find("loss_attention/fig7/vgg11_xi_1")
    assert plan.promised(kept) and not plan.promised(row)
    monkeypatch.setattr(plan, "_counted", of_size(0.1))
    assert not plan.keeps_promise(plan.estimated(row, "colab", "t4"))
    assert plan.plan_line(row, "colab", "t4").endswith("! more than colab's 30 min, 8 GB")
    assert "!" not in plan.plan_line(row, "colab", "h200") + plan.plan_line(row, "paper", "t4")
    assert cli.main(["run", row.name, "--preset", "colab", "--dry-run"]) == 0
    said = capsys.readouterr().err
    assert said.startswith(f"1 of 1 rows may take more than colab's 30 min, 8 GB on a T4: {row.name}; xai-course plan")
    assert said.count("\n") == 1
    assert cli.main(["run", kept.name, "--preset", "colab", "--dry-run"]) == 0
    assert not capsys.readouterr().err
    assert cli.main(["list", "loss_attention/fig7", "--preset", "colab"]) == 0
    assert all(line.endswith("! more than colab's 30 min, 8 GB") for line in capsys.readouterr().out.splitlines())
    assert cli.main(["list", kept.name, "--preset", "colab"]) == cli.main(["list", row.name]) == 0
    assert "!" not in capsys.readouterr().out


def test_a_run_on_a_known_gpu_begins_with_what_a_plan_says(capsys, monkeypatch):
    monkeypatch.setattr(sweep, "sweep", lambda *_, **__: [])
    monkeypatch.setattr(plan, "_counted", of_size(10.0))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla T4")
    assert cli.main(["run", "amc/digits/ce"]) == 0
    assert capsys.readouterr().err == "amc/digits/ce: fits no batch on Tesla T4, 2 images need 22 GB\n"
    rows = len(matching("amc/digits"))
    assert cli.main(["run", "amc/digits", "--seeds", "1"]) == 0
    *first, rest = capsys.readouterr().err.splitlines()
    assert len(first) == 3 and rest == f"{rows - 3} more: xai-course plan 'amc/digits' --gpu t4 --preset smoke"
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA L40S")
    assert cli.main(["run", "amc/digits/ce"]) == 0 and not capsys.readouterr().err


def test_the_page_on_use_says_where_a_row_is_beyond_the_promise():
    page = (ROOT / "book" / "how_to_use.md").read_text("utf-8")
    colab = [row for row in experiments().values() if "colab" in row.presets]
    beyond = {row.name for row in colab if not plan.promised(row)}
    assert "about one row in seven" in page and 1 / 8 < len(beyond) / len(colab) < 1 / 6
    told = [line for line in page.splitlines() if line.startswith("| `") and "/*`" in line]
    assert len(told) == 6
    for line in told:
        rows = {row.name for pattern in re.findall(r"`([^`]+/\*)`", line) for row in matching(pattern)}
        assert ("on a T4 most of them beyond" in line) == (len(rows & beyond) > len(rows) / 2), line
        assert bool(rows & beyond) == ("on a T4" in line), line


SAMPLE = ("amc/digits/ce", "hnc/digits/mse_1", "amc/table1/mnist/ce", "bench/plain/amc", "looking/digits/untrained")


def test_every_row_of_preset_colab_says_rightly_whether_it_keeps_the_promise():
    rows = [row for row in experiments().values() if "colab" in row.presets]
    for pattern in gpus()["promise"]["none"]:
        assert any(fnmatchcase(row.name, pattern) for row in rows), pattern
    wrong = {}
    for row in rows if os.environ.get("XAI_COURSE_TORTURE") == "long" else map(find, SAMPLE):
        try:
            kept = plan.keeps_promise(plan.estimated(row, "colab", "t4"))
        except ValueError as why:
            kept = str(why) == "trains nothing"
        if plan.promised(row) != kept:
            wrong[row.name] = kept
    assert not wrong


def test_a_row_that_trains_nothing_or_lacks_the_preset_and_one_for_grey_images_are_planned(capsys):
    assert plan.plan_line(find("looking/digits/untrained"), "colab", "t4").endswith("trains nothing")
    without = next(row.name for row in experiments().values() if "paper" not in row.presets)
    assert cli.main(["plan", without, "--gpu", "t4", "--preset", "paper"]) == 2
    assert capsys.readouterr().err.startswith(f"xai-course: {without} has the presets")
    assert "about" in plan.plan_line(find("amc/fig4/ce"), "colab", "t4")


@pytest.mark.parametrize("name", ["t5", "L40"])
def test_an_unknown_gpu_is_one_line(capsys, name):
    assert cli.main(["plan", "amc/digits/ce", "--gpu", name]) == 2
    assert capsys.readouterr().err == f"xai-course: unknown GPU {name!r}: known are t4, l4, a100, h100, h200\n"


def test_a_plan_asks_for_no_weights_to_be_downloaded():
    made = []
    trunk = partial(made.append, weights="DEFAULT")
    net = plan._net(partial(dict, trunk, pretrained=True, of=trunk, classes=3))
    assert net.keywords["pretrained"] is False and net.keywords["classes"] == 3
    assert [part.keywords for part in (net.args[0], net.keywords["of"])] == [{"weights": None}] * 2
    assert plan._net(dict) is dict
