"""Every row at preset "paper" does what `data/settings` says; what departs says why and is on the page."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from tools import ROOT, fences, settings
from xai_course.data.archives import Archive
from xai_course.data.batch import ArrayData, Splits
from xai_course.data.folders import FolderData, Item
from xai_course.measure.robustness import clean_accuracy
from xai_course.methods.base import CrossEntropy
from xai_course.nets.convnets import small_cnn
from xai_course.preset import Preset
from xai_course.runs.parts import common


@pytest.mark.parametrize("paper", settings.PAPERS)
def test_every_row_is_as_stated(paper):
    assert not settings.problems(paper)


def test_all_rows_of_the_papers_are_compared():
    """Rows that HNC copied from others have no preset, and nothing to compare."""
    assert {paper: len(settings.rows(paper)) for paper in settings.PAPERS} == {
        **{"amc": 47, "hnc": 130, "loss_attention": 129},
        **{"minmax": 30, "reff": 91},
    }


def test_every_value_has_its_source_and_every_departure_its_reason():
    for paper in settings.PAPERS:
        for group in settings.document(paper)["group"]:
            for key, entry in group["settings"].items():
                assert "swept" in entry or ("paper" in entry) >= ("here" not in entry), (paper, group["rows"], key)
                assert all(entry[word].strip() for word in ("at", "why", "swept") if word in entry)


PLANTED = {
    "another schedule": ("minmax", "table1/glas/wildcat", "milestones", [40, 80, 120]),
    "another rate": ("loss_attention", "table2/cifar10/vgg11_plain", "lr", 0.2),
    "a clipped gradient": ("reff", "table1a/p0.0/reff", "clip_norm", 5.0),
    "an averaged network": ("hnc", "table1/ce/resnet56", "ema", 0.999),
    "another batch": ("amc", "fig7/lambda_0", "batch_size", 64),
}


@pytest.mark.parametrize("fault", PLANTED)
def test_a_planted_departure_is_found(fault, monkeypatch):
    paper, row, key, value = PLANTED[fault]
    every = settings.rows(paper)
    experiment = every[row]
    preset = replace(experiment.preset("paper"), **{key: tuple(value) if isinstance(value, list) else value})
    assert isinstance(preset, Preset)
    changed = replace(experiment, presets={"paper": preset})
    monkeypatch.setattr(settings, "rows", lambda _: every | {row: changed})
    (problem,) = settings.problems(paper)
    assert problem.startswith(f"{row}: ") and key in problem


@pytest.mark.parametrize(
    ("paper", "row", "part", "other"),
    [
        ("amc", "table1/cifar10/amc", "method", "table1/cifar10/amc_w100"),
        ("minmax", "table1/cub5/wildcat", "augment", "table1/cub5/u4"),
        ("hnc", "table1/ce/resnet56", "net", "table1/ce/resnet110"),
        ("hnc", "table1/ce/resnet56", "data", "fig4/mse_1"),
        ("loss_attention", "table2/svhn/resnet18_mean", "augment", "table2/cifar10/resnet18_mean"),
    ],
)
def test_a_part_of_another_row_is_found(paper, row, part, other, monkeypatch):
    every = settings.rows(paper)
    changed = replace(every[row], **{part: getattr(every[other], part)})
    monkeypatch.setattr(settings, "rows", lambda _: every | {row: changed})
    found = settings.problems(paper)
    assert found and all(problem.startswith(f"{row}: ") for problem in found)


def test_a_needless_departure_a_missing_reason_and_an_idle_pattern_are_found(monkeypatch):
    said = copy.deepcopy(settings.document("reff"))
    said["group"][0]["settings"]["epochs"] = {"paper": 50, "at": "Table 4a", "here": 50, "why": "?"}
    said["group"][0]["settings"]["lr"] = {"paper": 0.01}
    said["group"].append({"rows": ["table9/*"], "settings": {"epochs": {"paper": 1, "at": "nowhere"}}})
    monkeypatch.setattr(settings, "document", lambda _: said)
    assert settings.problems("reff") == [
        "*: epochs departs from nothing",
        "*: lr: a value needs its source, a departure its reason",
        "no row is called table9/*",
    ]


@pytest.mark.parametrize("paper", settings.PAPERS)
def test_the_page_of_differences_has_the_departures_by_itself(paper):
    page = (ROOT / "book" / f"{paper}_differences.md").read_text("utf-8")
    assert f"```{{departures}} {paper}\n```" in page
    text, problems = fences.expand(f"{paper}_differences.md", f"```{{departures}} {paper}\n```\n")
    assert not problems
    departing = sum("here" in e for g in settings.document(paper)["group"] for e in g["settings"].values())
    assert text.count("\n| ") == departing + len(settings.document(paper).get("beside", ()))


def test_rows_declared_alike_are_trained_once():
    """Figs. 2, 5 and 6 of AMC-Loss look at the networks of its Table 1; Min-Max's Table 3 times those of Table 2."""
    amc, minmax = settings.rows("amc"), settings.rows("minmax")
    pairs = [
        (f"fig{n}/{m}", f"table1/{d}/{m}")
        for n, d in ((2, "cifar10"), (6, "cifar10"), (5, "svhn"))
        for m in ("ce", "amc")
    ]
    for figure, table in pairs:
        assert amc[figure].settings("paper") == amc[table].settings("paper")
    for data in ("glas", "cub5"):
        assert minmax[f"table3/{data}/u4"].settings("paper") == minmax[f"table2/{data}/u4"].settings("paper")
        assert minmax[f"table2/{data}/u4"].settings("paper") == minmax[f"table1/{data}/u4"].settings("paper")


def test_at_preset_paper_every_training_image_trains_and_none_is_left_to_choose_by():
    images = torch.arange(10).view(10, 1, 1, 1).expand(10, 1, 2, 2).to(torch.uint8)

    def load(preset, *, seed):
        train, held = (ArrayData(images[rows], torch.arange(10)[rows]) for rows in (slice(3, 10), slice(0, 3)))
        return Splits("ten", train, held, held, ("a",), "0")

    whole = common.whole(load, "paper", seed=0)
    assert sorted(whole.train.__getitems__(range(10)).labels.tolist()) == list(range(10)) and not len(whole.validation)
    assert len(load("paper", seed=0).train) == 7 and common.whole(load, "colab", seed=0).fingerprint == "0"
    items = [Item(f"{i}.png", i % 2) for i in range(6)]
    train, held = (FolderData(Archive("toys", "GlaS", ""), part, 8, 2) for part in (items[:4], items[4:]))
    whole = common.whole(lambda preset, seed: Splits("six", train, held, held, ("a", "b"), "0"), "paper", seed=0)
    assert whole.train.items == items and not len(whole.validation) and len(held) == 2
    method = CrossEntropy(small_cnn(2, width=2))
    test = ArrayData(torch.rand(4, 3, 16, 16), torch.arange(4) % 2)
    assert "validation_accuracy" not in clean_accuracy(method, whole._replace(test=test))
