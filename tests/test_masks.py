"""The rows of "What are masks worth?": what they share, the tuning rule, and what may stand at the edge of a grid."""

from __future__ import annotations

import copy
import re

import pytest

from tools import tuning
from xai_course.data.files import course_file
from xai_course.runs import records
from xai_course.runs.declared import document, experiments

DOC = document("masks")
ROWS = {row.name: row for row in experiments("masks")}
GROUPS = {"groupdro", "reweighted", "dfr", "jtt"}


def test_rows_of_one_condition_differ_in_their_way_alone():
    for setting in DOC["setting"]:
        rows = {way: ROWS[f"masks/{setting}/{way}"].settings("smoke") for way in tuning.ways(DOC, setting)}
        assert len({str(row["data"]) for row in rows.values()}) == 1, setting
        assert len({str(row["measures"]) for row in rows.values()}) == 1
        declared = DOC["setting"][setting]
        rate = DOC["preset"][declared.get("rate", "small")]["lr"]
        if "rate" in declared:  # then it is the one that cross-entropy chose
            assert rate == DOC["tuned"]["ce"]["chosen"][declared.get("tuned_by", setting)]
        for way, row in rows.items():
            assert row["preset"] | {"lr": 0} == next(iter(rows.values()))["preset"] | {"lr": 0}
            assert way == "ce" or row["preset"]["lr"] == rate
            assert "small_cnn" in str(row["net"]) and "'width': 8" in str(row["net"])
        weak = rows and "0.95" in str(next(iter(rows.values()))["data"])
        assert (set(rows) >= GROUPS) == weak, "groups have a minority only where the cue fails"


@pytest.mark.parametrize("setting", [s for s, own in DOC["setting"].items() if "rate" in own and "tuned_by" not in own])
def test_a_penalty_behind_weight_zero_was_tried_with_smaller_weights(setting):
    """At one rate cross-entropy is every penalty at weight zero: a best value behind it is noise."""
    values = {way: v for s, way, v in tuning.tried(DOC) if s == setting}
    plain = max(tuning.accuracies("masks", setting, "ce", values["ce"]).values())
    for way in ("rrr", "energy", "l1", "reff"):
        smaller = [v for v in values[way] if v < DOC["tuned"][way]["grid"][0]]
        best = max(tuning.accuracies("masks", setting, way, values[way]).values())
        assert best >= plain or len(smaller) == DOC["beyond"], (way, best, plain)


def test_every_way_has_as_many_trials_on_the_same_seeds_as_any_other():
    assert {len(tuned["grid"]) for tuned in DOC["tuned"].values()} == {5}
    assert set(DOC["tuned"]) == {way for setting in DOC["setting"] for way in tuning.ways(DOC, setting)}
    seeds = max(DOC["seeds"].values())
    assert min(DOC["tuning_seeds"]) >= seeds
    for way, tuned in DOC["tuned"].items():
        ratios = [b / a for a, b in zip(tuned["grid"], tuned["grid"][1:])]
        assert max(ratios) / min(ratios) < 1.2, f"{way}: the grid must be logarithmic"
    trials = [row for name, row in ROWS.items() if name.startswith("masks/trial/")]
    expected = {f"masks/trial/{s}/{w}_{v:g}" for s, w, values in tuning.tried(DOC) for v in values}
    assert {row.name for row in trials} == expected
    for row in trials:  # none opens the test split
        assert [m.__name__ for m in row.measures] == ["validation_scores"]


def test_conditions_without_trials_take_the_values_of_another():
    for setting, own in DOC["setting"].items():
        source = own.get("tuned_by", setting)
        assert "tuned_by" not in DOC["setting"][source]
        for way in tuning.ways(DOC, setting):
            tuned, row = DOC["tuned"][way], ROWS[f"masks/{setting}/{way}"]
            used = row.presets["smoke"].lr if way == "ce" else None
            if tuned["turn"] == "method":
                used = row.method.keywords[tuned["knob"]]
            elif way == "smoothing_energy":
                used = row.method.keywords["parts"][1].keywords["balance"]
            assert used == tuned["chosen"][source], (setting, way)


def test_the_next_value_goes_on_as_the_grid_does():
    third, half = {"grid": [0.03, 0.1, 0.3, 1.0, 3.0]}, {"grid": [0.25, 0.5, 1.0], "high": 1.0}
    assert tuning.beyond(third["grid"], 3.0, third, 3) == 10.0
    assert tuning.beyond([*third["grid"], 10.0], 10.0, third, 3) == 30.0
    assert tuning.beyond(third["grid"], 0.03, third, 3) == 0.01
    assert tuning.beyond([0.01, *third["grid"]], 0.01, third, 3) == 0.003
    assert tuning.beyond([0.001, 0.003, 0.01, *third["grid"]], 0.001, third, 3) is None  # three beyond is all
    assert tuning.beyond(third["grid"], 1.0, third, 3) is None
    assert tuning.beyond(half["grid"], 1.0, half, 3) is None and tuning.beyond(half["grid"], 0.25, half, 3) == 0.125
    open_ = {
        "grid": [0.05, 0.1, 0.2, 0.4, 0.8],
        "below": 1.0,
    }  # at 1 nothing is taught
    assert tuning.beyond(open_["grid"], 0.8, open_, 3) == 0.9
    assert tuning.beyond([*open_["grid"], 0.9], 0.9, open_, 3) == 0.95
    assert tuning.beyond([*open_["grid"], 0.9, 0.95, 0.975], 0.975, open_, 3) is None
    assert tuning.best({1.0: 0.5, 0.1: 0.5, 0.01: 0.4}) == 0.1


def test_chosen_values_are_written_and_nothing_else(tmp_path, monkeypatch):
    path = course_file("experiments", "masks.toml")
    before, copied = path.read_text("utf-8"), tmp_path / "masks.toml"
    copied.write_text(before, "utf-8")
    monkeypatch.setattr(tuning, "course_file", lambda *_: copied)
    tuning.write("masks", copy.deepcopy(DOC))
    assert copied.read_text("utf-8") == before
    doc = copy.deepcopy(DOC)
    doc["tuned"]["rrr"]["chosen"]["digits/full"] = 77.0
    doc["beyond_grid"]["values"] += [["digits/full", "rrr", 77.0]]
    tuning.write("masks", doc)
    after = copied.read_text("utf-8")
    import tomllib

    assert tomllib.loads(after) == doc
    changed = [line for line in after.splitlines() if line not in before.splitlines()]
    assert len(changed) <= 3 and re.search(r'"digits/full" = 77.0', changed[0])


def ran(setting: str, way: str) -> bool:
    value = DOC["tuned"][way]["grid"][0]
    return bool(records.available(f"masks/trial/{setting}/{way}_{value:g}"))


def test_the_chosen_values_are_what_the_trials_say_and_none_lies_at_an_edge():
    """The gate: an end that is no natural one only where the rule has tried its three further values."""
    assert any(ran(setting, way) for setting, way, _ in tuning.tried(DOC))
    for setting, way, values in tuning.tried(DOC):
        if ran(setting, way):
            tuned = DOC["tuned"][way]
            for name in (f"masks/trial/{setting}/{way}_{value:g}" for value in values):
                assert records.load(name).settings == ROWS[name].settings("smoke"), f"{name}: another run than declared"
            found = tuning.accuracies("masks", setting, way, values)
            assert tuned["chosen"][setting] == tuning.best(found), (setting, way, found)
            assert tuning.beyond(values, tuned["chosen"][setting], tuned, DOC["beyond"]) is None, (setting, way)


def test_final_records_have_the_declared_seeds_and_values():
    for name, row in ROWS.items():
        if not name.startswith("masks/trial/") and records.available(name):
            record = records.load(name)
            assert list(record.seeds) == list(range(DOC["seeds"][row.item])), name
            assert record.settings == row.settings("smoke"), f"{name}: another run than declared"
