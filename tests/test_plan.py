"""What a row costs on a GPU, estimated without one."""

from __future__ import annotations

import re
from functools import partial

import pytest

from xai_course import cli
from xai_course.runs import plan
from xai_course.runs.catalogue import experiments, find


def test_every_row_has_images_of_a_known_size():
    for row in experiments().values():
        side, classes, images = plan._images(row)
        assert 28 <= side <= 512 and 2 <= classes <= 1000 and images >= 50, row.name
    assert plan._images(find("hnc/table1/focal/resnet56")) == (32, 100, 45000)


def test_a_card_is_found_within_a_drivers_name():
    assert plan.known("NVIDIA H100 80GB HBM3") == "h100" and plan.known("Tesla T4") == "t4"
    assert plan.known("NVIDIA L40S") == plan.known("") == ""


def test_a_plan_is_one_line_and_a_batch_that_does_not_fit_is_smaller(capsys, monkeypatch):
    assert cli.main(["plan", "amc/digits/ce", "--gpu", "t4", "--preset", "smoke"]) == 0
    assert re.fullmatch(r"amc/digits/ce: about .* per seed, .* GB, batch 64, float32\n", capsys.readouterr().out)
    monkeypatch.setattr(plan, "_one_step", lambda *_: (1e9, 1.0, 1.0))
    assert "batch 8 (not 64, which need 66 GB)" in plan.plan_line(find("amc/digits/ce"), "smoke", "t4")
    monkeypatch.setattr(plan, "_one_step", lambda *_: (1e9, 10.0, 1.0))
    assert "fits no batch on t4" in plan.plan_line(find("amc/digits/ce"), "smoke", "t4")


def test_a_row_beyond_the_promise_of_colab_is_marked_and_says_so(capsys, monkeypatch):
    names = plan._known()["promise"]["none"]
    assert len(names) == len(set(names)) and all("colab" in find(name).presets for name in names)
    for name in ("amc/digits/ce", "hnc/digits/mse_1", "amc/table1/mnist/ce"):
        assert plan.keeps_promise(plan.estimated(find(name), "colab", "t4")) and plan.promised(find(name)), name
    monkeypatch.setattr(plan, "_one_step", lambda *_: (1e9, 0.1, 1.0))  # 0.1 GB an image
    row = find(names[0])
    assert not plan.keeps_promise(plan.estimated(row, "colab", "t4")) and not plan.promised(row)
    assert plan.plan_line(row, "colab", "t4").endswith("! more than colab's 30 min, 8 GB")
    assert "!" not in plan.plan_line(row, "colab", "h200") + plan.plan_line(row, "paper", "t4")
    assert cli.main(["run", row.name, "--preset", "colab", "--dry-run"]) == 0
    assert f"1 rows keep no promise of colab, such as {row.name}" in capsys.readouterr().err


def test_a_row_that_trains_nothing_and_one_for_grey_images_are_planned():
    assert plan.plan_line(find("looking/digits/untrained"), "colab", "t4").endswith("trains nothing")
    assert "about" in plan.plan_line(find("amc/fig4/ce"), "colab", "t4")


@pytest.mark.parametrize("name", ["t5", "L40"])
def test_an_unknown_gpu_is_one_line(capsys, name):
    assert cli.main(["plan", "amc/digits/ce", "--gpu", name]) == 2
    assert capsys.readouterr().err == f"xai-course: unknown GPU {name!r}: known are t4, l4, a100, h100, h200\n"


def test_a_row_that_was_never_estimated_is_unknown_and_counted(capsys):
    row = find("reff/table1a/p0.0/baseline")
    assert plan.promised(row) is None and plan.promised(find("amc/digits/ce")) is True
    assert cli.main(["run", row.name, "--preset", "colab", "--dry-run"]) == 0
    assert capsys.readouterr().err == f"1 rows were never estimated for colab, such as {row.name}\n"


def test_a_plan_asks_for_no_weights_to_be_downloaded():
    made = []
    trunk = partial(made.append, weights="DEFAULT")
    net = plan._without_download(partial(dict, trunk, pretrained=True, of=trunk, classes=3))
    assert net.keywords["pretrained"] is False and net.keywords["classes"] == 3
    assert [part.keywords for part in (net.args[0], net.keywords["of"])] == [{"weights": None}] * 2
    assert plan._without_download(dict) is dict
