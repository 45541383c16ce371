"""Experiments as data: what a file of declarations becomes, and what the reader says of a wrong one."""

from __future__ import annotations

import copy
import functools
import tomllib

import pytest

from xai_course.methods.amc import AmcLoss
from xai_course.methods.base import CrossEntropy
from xai_course.methods.minmax import MinMax
from xai_course.runs import catalogue
from xai_course.runs.declared import document, experiments

TOY = """
[data]
digits = { call = "textured_digits", p = 1.0, title = "Digits" }
hard = { base = "digits", digit_size = [12, 14] }

[net]
small = { call = "small_cnn", width = 4 }

[method]
ce = { call = "CrossEntropy", title = "Cross-entropy" }
amc = { call = "AmcLoss", balance = 0.1, title = "AMC, λ = {balance:g}" }
deep = { title = "Deep", call = "MinMax", erasing = { call = "Erasing", depth = 4, start_epoch = 1 } }
label = { base = "deep", erasing = { rule = "label" } }

[preset.ramped]
lr = 0.01
schedule = "gaussian_ramps"
ramp_up = "80/300"
smoke = { epochs = 3 }
paper = { epochs = 30, lr = "{rate}" }

[setting.loud]
title = "not the row's"
data = "hard"
words = "from the section"

[row.toy]
title = "{words}"
net = "small"
rate = 0.02
presets = "ramped"
measures = ["accuracy", "{also}"]
also = ""

[[table]]
base = "toy"
name = "digits/{data}/{method}"
title = "{data.title}: {method.title}"
each.data = ["digits", "hard"]
each.method = ["ce", "amc"]
twin = "ce"
reported.accuracy = [["99", ""], ["98", "97"]]

[[table]]
base = "toy"
name = "sweep/{row}_{value:g}"
each.row.ce = { method = "ce", knob = "label_smoothing", also = "clusters" }
each.row.amc = { method = "amc", knob = "balance" }
each.value = [0.5, 1.0]
setting = "loud"
needs = "{value} {knob}"
"""


def rows(change: tuple[str, str] = ("", "")) -> dict:
    assert change[0] in TOY
    return {e.name: e for e in experiments("amc", tomllib.loads(TOY.replace(*change) if change[0] else TOY))}


def test_rows_are_the_product_in_order_with_the_numbers_in_order():
    found = rows()
    assert list(found)[:4] == [f"amc/digits/{d}/{m}" for d in ("digits", "hard") for m in ("ce", "amc")]
    assert [e.reported.get("accuracy") for e in found.values()][:4] == ["99", None, "98", "97"]
    last = found["amc/digits/hard/amc"]
    assert last.title == "Digits: AMC, λ = 0.1"  # the part's title, with the part's own value in it
    assert last.twin == "amc/digits/hard/ce" and found["amc/digits/hard/ce"].twin == ""  # nobody is his own twin
    assert last.data.keywords == {"p": 1.0, "digit_size": (12, 14)} and last.net.keywords == {"width": 4}
    assert last.method.func is AmcLoss and found["amc/digits/digits/ce"].method is CrossEntropy
    assert last.preset("smoke").ramp_up == 80 / 300 and (last.preset("smoke").lr, last.preset("paper").lr) == (
        0.01,
        0.02,
    )


def test_the_last_of_several_values_wins():
    found = rows()
    row = found["amc/sweep/amc_0.5"]
    assert row.title == "from the section" and row.data.keywords["digit_size"] == (12, 14)
    assert row.needs == "0.5 balance" and [len(e.measures) for e in found.values()][4:] == [2, 2, 1, 1]


def test_a_part_of_a_part_is_changed_in_place_and_a_data_class_is_a_value():
    method = rows(('each.method = ["ce", "amc"]', 'each.method = ["ce", "label"]'))
    erasing = method["amc/digits/hard/label"].method.keywords["erasing"]
    assert (erasing.depth, erasing.rule, erasing.start_epoch) == (4, "label", 1)
    assert method["amc/digits/hard/label"].method.func is MinMax


WRONG = {
    (
        'method = ["ce", "amc"]',
        'method = ["ce", "amk"]',
    ): "row digits/digits/amk: unknown method 'amk': did you mean 'amc'",
    ("width = 4", "widht = 4"): "small_cnn has no argument 'widht': did you mean 'width'",
    ('title = "{words}"', ""): "table sweep/.*row sweep/ce_0.5: a row must have .*got none for title",
    ("depth = 4", "debth = 4"): None,  # no row uses it
    ('call = "AmcLoss"', 'call = "AmcLos"'): "unknown function 'AmcLos': did you mean 'AmcLoss'",
    ('presets = "ramped"', 'preset = "ramped"'): "table digits/.*unknown key 'preset': did you mean 'presets'",
    ("smoke = { epochs = 3 }", "smoke = { epoch = 3 }"): "unknown setting of a preset 'epoch': did you mean 'epochs'",
    ('[["99", ""], ["98", "97"]]', '["99", ""]'): "reported.accuracy must have 4 values, one per row, got 2",
    ('twin = "ce"', 'twin = "cee"'): "row amc/digits/digits/ce: unknown twin",
    ('setting = "loud"', 'setting = "lout"'): "table sweep/.*unknown setting 'lout': did you mean 'loud'",
    ("{data.title}", "{data.titel}"): "{data.titel}: unknown name 'titel': did you mean 'title'",
    ('base = "toy"', 'base = "toi"'): "unknown row 'toi': did you mean 'toy'",
}


@pytest.mark.parametrize(("change", "said"), WRONG.items(), ids=lambda value: str(value)[:40])
def test_a_wrong_declaration_is_named_with_file_table_and_the_nearest_name(change, said):
    if said is None:
        assert rows(change)
        return
    with pytest.raises(ValueError, match=f"data/experiments/amc.toml, .*{said}"):
        rows(change)


def test_a_value_of_one_row_does_not_stay_in_the_next():
    """Two settings with other chosen values share the part that quotes them, also deep inside a combination."""
    bench = {e.name: e for e in experiments("bench")}
    tuned = document("bench")["tuned"]
    for setting in ("shifted", "textures"):
        first, second = bench[f"bench/{setting}/hnc_energy"].method.keywords["parts"]
        assert first.keywords["balance"] == tuned["hnc_mse"]["chosen"][setting]
        assert second.keywords["balance"] == tuned["energy"]["chosen"][setting]
    assert tuned["energy"]["chosen"]["shifted"] != tuned["energy"]["chosen"]["textures"]


def test_a_longer_grid_is_one_more_trial():
    """What an edit of one line does: nothing else has to follow."""
    text = copy.deepcopy(document("bench"))
    text["tuned"]["amc"]["grid"].append(2.0)
    more = {e.name for e in experiments("bench", text)} - {e.name for e in experiments("bench")}
    assert more == {f"bench/tuning/{s}_amc_2" for s in ("plain", "shifted", "noisy", "clothes", "cifar10", "textures")}


def test_all_papers_are_declared():
    found = catalogue.experiments()
    assert {e.paper for e in found.values()} == set(catalogue.PAPERS)
    assert len(found) >= 847
    for experiment in found.values():
        assert experiment.twin == "" or found[experiment.twin].item == experiment.item
        assert not isinstance(experiment.data, functools.partial) or experiment.data.func
