"""The page on masks: figures and sentences of what has been run, whatever that is."""

from __future__ import annotations

import dataclasses
import re

import pytest

from tools import masks_page, tuning
from tools.figures import masks as figures
from xai_course.runs import records
from xai_course.runs.records import Metric, Record
from xai_course.show.style import CYCLE

EMPTY = Record("", "smoke", (), {}, {}, {}, {}, "", {}, "", "", (), 0.0, "")
DRAWN = (*masks_page.SETS, "answers", "counts", "errors", "weak", "inside", "frontier", "cost")


def save(name: str, level: float, seeds: int = 6) -> None:
    values = tuple(level + 0.01 * ((7 * k + len(name)) % 5 - 2) for k in range(seeds))
    metrics = {"accuracy": Metric(values), "accuracy_seen": Metric(values), "accuracy_broken": Metric(values)}
    times = (1.0 + level,) * seeds
    records.save(
        dataclasses.replace(EMPTY, experiment=name, seeds=tuple(range(seeds)), metrics=metrics, cpu_seconds=times)
    )


@pytest.fixture
def planted(tmp_path, monkeypatch):
    """No records but those that the test saves."""
    monkeypatch.setenv("XAI_COURSE_RESULTS", str(tmp_path))
    return save


def test_without_records_every_figure_says_so_and_every_part_has_a_sentence(planted):
    for name in DRAWN:
        figure = getattr(figures, name)()
        assert [text.get_text() for axis in figure.axes for text in axis.texts] == ["not run yet"], name
    assert masks_page.missing() == "**Not run yet:** digits; garments; MNIST on textures; photographs."
    for part in ("answers", "numbers", "sets"):
        assert masks_page.masks_markdown(part) == "No final row has been run yet."
    assert masks_page.masks_markdown("tuned") == "No trial has been run yet."
    with pytest.raises(ValueError, match="parts are missing, answers, .*got 'nothing'"):
        masks_page.masks_markdown("nothing")


def test_rows_that_are_missing_are_left_out_and_named(planted):
    for way, level in (("ce", 0.3), ("pasted", 0.8), ("rrr", 0.6), ("reff", 0.31)):
        planted(f"masks/digits/full/{way}", level)
    planted("masks/digits/few1/pasted", 0.4)  # cross-entropy's row is that of all masks
    planted("masks/digits/bound/ce", 0.8)
    planted("masks/garments/full/pasted", 0.5)  # nothing to compare it with
    assert list(masks_page.gaps("digits/full")) == ["pasted", "rrr", "reff"] and masks_page.gaps("garments/full") == {}
    assert masks_page.lost("digits/few1") == pytest.approx(0.5, abs=0.03) and masks_page.lost("garments/full") is None

    labels = [label.get_text() for label in figures.digits().axes[0].get_yticklabels()]
    assert labels == ["Pasted objects", "RRR", "ReFF"]
    rows = [label.get_text() for label in figures.answers().axes[0].get_yticklabels()]
    assert [row.replace("\n", " ") for row in rows] == [
        "digits, one mask for each class",
        "digits, a mask for every image",
    ]
    assert len(figures.counts().axes) == 1 and figures.weak().axes[0].texts[0].get_text() == "not run yet"

    said = masks_page.missing()
    assert "**Run in full:** digits: no cue in training." in said
    assert "**Run but for some rows:** digits: all exact masks (without Label smoothing, Masked input, CDEP," in said
    assert "**Not run yet:** digits: ten masks for each class, boxes for masks," in said and "photographs." in said
    answer = masks_page.answers().replace("\xa0", " ")
    assert re.search(r"\| digits, a mask for every image \| 0\.\d+ \| Pasted objects: \+0\.[45]\d \(", answer)
    assert (
        masks_page.sets().count("{picture}") == 1
        and "for 3 ways; the highest mean: Pasted objects." in masks_page.sets()
    )


def test_everything_run_is_one_sentence_and_colours_follow_the_verdict(planted):
    for setting in masks_page.declared()["setting"]:
        for way in tuning.ways(masks_page.declared(), setting):
            planted(f"masks/{setting}/{way}", {"pasted": 0.8, "energy": 0.1}.get(way, 0.3 + 0.4 * ("bound" in setting)))
    assert masks_page.missing() == "Every declared row has been run."
    said = masks_page.verdicts("digits/full")
    assert (said["pasted"], said["energy"], said["l1"]) == ("higher", "lower", "open")
    means = {line.get_color() for line in figures.digits().axes[0].lines if line.get_marker() == "o"}
    assert means == {CYCLE[0], CYCLE[1], "0.55"}
    assert len(figures.errors().axes) == 2 and masks_page.sets().count("{picture}") == 4


def test_chosen_values_are_printed_where_the_rule_has_come_to_its_end(planted):
    for value in masks_page.declared()["tuned"]["pasted"]["grid"]:
        level = 0.3 + 0.2 * (value == masks_page.declared()["tuned"]["pasted"]["chosen"]["digits/few1"])
        planted(f"masks/trial/digits/few1/pasted_{value:g}", level, 2)
    for value in masks_page.declared()["tuned"]["masked"]["grid"]:  # the first is best: more must be tried
        planted(f"masks/trial/digits/few1/masked_{value:g}", 0.5 - 0.2 * value, 2)
    lines = masks_page.tuned().replace("\xa0", " ").splitlines()
    assert len(lines) == 3 and "| digits, one mask for each class | Pasted objects | share | 0.0625 … 1 |" in lines[2]
    planted("masks/trial/digits/full/energy_0.03", 0.3, 2)
    panel = figures.frontier().axes[0]
    assert panel.get_title() == "digits" and len(panel.lines) == 2


def test_along_the_masks_stands_what_was_run_and_one_condition_alone_is_no_row(planted):
    for way in ("ce", "pasted"):
        planted(f"masks/digits/full/{way}", 0.3)
    assert figures.counts().axes[0].texts[0].get_text() == "not run yet"
    planted("masks/digits/few10/pasted", 0.6)
    assert [label.get_text() for label in figures.counts().axes[0].get_xticklabels()] == ["10 a class", "all"]
