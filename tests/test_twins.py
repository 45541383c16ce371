"""Twins of the papers' rows: what preset "cpu" means, that every table has one, and what its page says."""

from __future__ import annotations

import copy
import dataclasses
import random
import re
import tomllib

import pytest

from tests.test_declared import TOY
from tools import pictures, twins
from xai_course.runs import declared, experiment, records
from xai_course.runs.catalogue import experiments, find
from xai_course.runs.records import Metric, Record

PAPERS = ("amc", "hnc", "loss_attention", "minmax", "reff")
TWINNED = [e for e in experiments().values() if e.stand_in]
ITEMS = sorted({(e.paper, e.item) for e in experiments().values() if re.match("table|fig", e.item)})
CPU = """
[preset.quick]
cpu = { epochs = 2 }

[[cpu]]
rows = ["digits/*/amc"]
data = "hard"
presets = "quick"

[[cpu]]
rows = ["*"]
net = { base = "small", width = 2 }
"""


def toy(change: tuple[str, str] = ("", "")) -> dict:
    text = TOY + CPU.replace(*change) if change[0] else TOY + CPU
    return {e.name: e for e in declared.experiments("amc", tomllib.loads(text))}


def test_a_stand_in_changes_what_it_names_and_nothing_else():
    before = {e.name: e for e in declared.experiments("amc", tomllib.loads(TOY))}
    rows = toy()
    assert [n for n, e in rows.items() if e.stand_in] == ["amc/digits/digits/amc", "amc/digits/hard/amc"]
    for name, row in rows.items():
        assert row.settings("smoke") == before[name].settings("smoke")
        assert row.code() == before[name].code() and row.at("smoke") is row
    row = rows["amc/digits/digits/amc"]
    mine, its = row.settings("smoke"), row.settings("cpu")
    assert mine["method"] == its["method"] and mine["measures"] == its["measures"]
    assert its["data"]["digit_size"] == ["12", "14"] or its["data"]["digit_size"] == [12, 14]
    assert (mine["net"]["width"], its["net"]["width"], its["preset"]["epochs"]) == (4, 2, 2)
    assert row.at("cpu").name == row.name and row.at("cpu").title == row.title and not row.at("cpu").reported
    assert row.presets.keys() == {"smoke", "paper", "cpu"} and "cpu" not in rows["amc/digits/hard/ce"].presets


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('"digits/*/amc"', '"digits/*/acm"'), "rows 'digits/\\*/acm' names no row"),
        (('data = "hard"', 'datta = "hard"'), "unknown key 'datta': did you mean 'data'"),
        (('data = "hard"', 'data = "herd"'), "unknown data 'herd'"),
        (("cpu = { epochs = 2 }", "smoke = { epochs = 2 }"), "has the presets smoke, got 'cpu'"),
    ],
)
def test_a_wrong_stand_in_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        toy(change)


def test_a_run_at_cpu_is_that_of_the_stand_in(monkeypatch, tmp_path):
    monkeypatch.setenv("XAI_COURSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("XAI_COURSE_RESULTS", str(tmp_path / "results"))
    row = toy()["amc/digits/digits/amc"]
    small = dataclasses.replace(row.presets["cpu"], epochs=1, limit=8, batch_size=4)
    stand_in = dataclasses.replace(row.stand_in, presets={"cpu": small}, data=tiny)
    row = dataclasses.replace(row, stand_in=stand_in, presets={"cpu": small}, data=copy.copy)
    record = experiment.run(row, "cpu", seeds=(0,))
    assert record.settings == row.settings("cpu") and record.settings["data"].endswith("tiny")
    assert (record.preset, record.code) == ("cpu", row.at("cpu").code())
    assert records.load(row.name, "cpu").seeds == (0,)


def tiny(preset: str, seed: int):
    from xai_course.data.textured_digits import textured_digits

    return textured_digits(train=8, validation=4, test=4, seed=seed)


def test_every_table_of_the_papers_has_a_twin_and_a_page():
    assert len(ITEMS) >= 33
    assert sorted({(e.paper, e.item) for e in TWINNED}) == ITEMS
    assert sorted((paper, item) for paper in PAPERS for item in twins.pages(paper)) == ITEMS


@pytest.mark.parametrize("paper", PAPERS)
def test_every_page_draws_rows_that_run_at_cpu(paper):
    for item, page in twins.pages(paper).items():
        found = twins.points(paper, item)
        assert len(found) >= 1 and all(p.row.stand_in for p in found), item
        if "lines" in page:
            assert {p.line for p in found} == set(page["lines"]), item
        assert len({(p.line, p.x) for p in found}) == len(found), item
        assert page["claim"][0].isupper() and page["claim"].endswith(".") and not page["stands"].endswith(".")


@pytest.mark.parametrize("row", TWINNED, ids=lambda row: row.name)
def test_a_twin_is_small_and_says_what_stood_in(row):
    mine, plan = row.settings("cpu"), row.preset("cpu")
    assert plan.epochs <= 16 and plan.precision == "no" and not plan.ema
    assert "at_hand" in str(mine["data"]) or mine["data"] == row.settings("paper")["data"]
    big = "image_sets.(imagenet|coco|glas|cub|pets)|vision.(svhn|cifar10'|cifar100)|torchvision|resnet18|resnet101"
    assert not re.search(big, str(mine["data"]) + str(mine["net"]))


def fake(row, values) -> Record:
    metrics = dict.fromkeys((*row.shown, *NAMES), Metric(values))
    return Record(
        row.name, "cpu", (0, 1, 2), metrics, {}, {}, {"name": "toys", "fingerprints": ["a"]}, "CPU", {}, "0", "0",
        (9.0, 99.0, 9.0), 1.0, "2026-01-01", cpu_seconds=tuple(60 * v for v in values),
    )  # fmt: skip


NAMES = ("accuracy", "mAP", "ap", "precision", "recall", "f", "f1_plus", "map_area", "homogeneity", "fgsm_0.05")
NAMES += ("fgsm_0.1", "fgsm_0.2", "fgsm_0.3", "angle_within", "angle_between")


@pytest.fixture
def as_printed(monkeypatch, tmp_path):
    """Records of all twins: the paper's own numbers with some noise, so that verdicts must agree with the paper."""
    monkeypatch.setenv("XAI_COURSE_RESULTS", str(tmp_path))
    noise = random.Random(0)
    for row in TWINNED:
        told = next((twins.printed(row, n) for n in row.reported if twins.printed(row, n) is not None), 50.0)
        records.save(fake(row, tuple(told / 100 + noise.gauss(0, 1e-3) for _ in range(3))))


def test_the_paper_as_its_own_twin_agrees_with_itself(as_printed):
    said = twins.verdict("hnc", "table1")
    assert said.startswith("**`hnc_mse/resnet110` minus `ce/resnet110`, accuracy: higher, as in the paper.**")
    assert "The paper prints +1.21 (points)." in said and "With 3 seeds" in said
    tau = re.search(r"9 rows, paper against twin: Kendall's τ = \+(\d\.\d\d)", said)
    assert float(tau[1]) > 0.8
    assert "as in the paper" in twins.verdict("reff", "table1b") and "6 columns" in twins.verdict("reff", "table1b")


def test_a_twin_that_turns_the_table_round_is_told(as_printed):
    for row in TWINNED:
        if row.name.startswith("reff/table1b"):
            values = records.load(row.name, "cpu").metrics["accuracy"].values
            records.save(fake(row, tuple(1 - v for v in values)))
    said = twins.verdict("reff", "table1b")
    assert "lower, against the paper" in said and "τ = -1.00" in said


def test_a_difference_within_the_noise_is_open(as_printed):
    for kind, values in (("ce", (0.3, 0.5, 0.4)), ("hnc_mse", (0.5, 0.3, 0.4))):
        records.save(fake(find(f"hnc/table1/{kind}/resnet110"), values))
    assert "accuracy: open.**" in twins.verdict("hnc", "table1")


@pytest.mark.parametrize(("paper", "item", "unit"), [("amc", "fig1", "radians"), ("hnc", "table5", "%")])
def test_an_axis_of_several_metrics_names_their_unit(paper, item, unit, as_printed):
    from tools.figures.twins import beside

    assert {axis.get_ylabel() for axis in beside(paper, item).axes} == {unit}


@pytest.mark.parametrize("paper", PAPERS)
def test_pages_hold_a_picture_for_what_ran(paper, as_printed):
    text = twins.twins_markdown(paper)
    assert text.count("```{picture} twins.") == len(twins.pages(paper)) and "Not run yet" not in text
    for item in twins.pages(paper):
        svg = pictures.drawn(f"twins.{paper}_{item}")
        assert svg.count("<svg") == 1 and "<svg fill" in pictures.darkened(svg)


def test_a_row_without_one_of_the_printed_numbers_has_run_and_one_without_any_has_not(as_printed):
    routing = find("loss_attention/table5/resnet18_routing")
    assert twins.printed(routing, "recall") == 99.99
    record = fake(routing, (0.5, 0.6, 0.7))
    for metrics, ran in (({"mAP": record.metrics["mAP"]}, True), ({"accuracy": record.metrics["accuracy"]}, False)):
        records.save(dataclasses.replace(record, metrics=metrics))
        assert twins.ran("loss_attention", "table5") is ran


@pytest.mark.parametrize("paper", PAPERS)
def test_pages_say_in_one_line_what_did_not_run(paper, monkeypatch, tmp_path):
    monkeypatch.setenv("XAI_COURSE_RESULTS", str(tmp_path))
    text = twins.twins_markdown(paper)
    assert "{picture}" not in text and text.count("Not run yet: `xai-course run") == len(twins.pages(paper))
    assert "not run" not in text


def test_printed_numbers_are_read_as_they_stand():
    assert twins.printed(find("hnc/table1/anchor/resnet110"), "accuracy") == 74.38
    assert twins.printed(find("hnc/table1/anchor/resnet56"), "accuracy") is None
    assert twins.printed(find("minmax/table3/cub5/u4"), "seconds") == 141.0
    assert twins.printed(find("reff/table1a/p0.0/reff"), "accuracy") == 46.68


def test_a_page_with_a_wrong_key_is_refused(monkeypatch):
    monkeypatch.setattr(twins, "document", lambda paper: {"page": {"table1": {"mertic": "accuracy"}}})
    with pytest.raises(ValueError, match=r"\[page.table1\]: unknown key 'mertic': did you mean 'metric'"):
        twins.pages("amc")
