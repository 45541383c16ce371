"""What the bench's records and its page say: chosen values, seeds and settings, tables, verdicts."""

from __future__ import annotations

import json

from xai_course.measure.statistics import paired
from xai_course.runs import comparison, records
from xai_course.runs.choices import choose
from xai_course.runs.declared import document, experiments

BENCH = document("bench")
TUNED = BENCH["tuned"]


def test_the_chosen_values_are_what_the_trials_say():
    """The rule of `choose`, on the committed trials."""
    for key, name in {"ce": "small", "mean": "patches", "wildcat": "localiser"}.items():
        body = BENCH["body"][name]
        reached = {r: records.load(f"bench/rate/{key}_{r:g}") for r in body["rates"]}
        assert all(r.seeds == (BENCH["tuning_seed"],) for r in reached.values())
        accuracies = {r: record.metrics["validation_accuracy"].mean for r, record in reached.items()}
        assert body["rate"] == choose(accuracies, 300, strongest=False), key
    for setting in comparison.measured():
        for key in (k for k in comparison.rows_run(setting) if k in TUNED):
            trials = {v: records.load(f"bench/tuning/{setting}_{key}_{v:g}") for v in TUNED[key]["grid"]}
            assert all(r.seeds == (BENCH["tuning_seed"],) for r in trials.values())
            accuracies = {v: r.metrics["validation_accuracy"].mean for v, r in trials.items()}
            images = 1000 if setting == "clothes" else 300
            assert TUNED[key]["chosen"][setting] == choose(accuracies, images), (setting, key, accuracies)


def test_final_records_have_the_declared_seeds_and_values():
    for experiment in experiments("bench"):
        if experiment.item in BENCH["setting"] and records.available(experiment.name):
            record = records.load(experiment.name)
            assert list(record.seeds) == BENCH["seeds"], experiment.name
            declared = _as_json(experiment.settings("smoke"))
            assert all(record.settings[part] == declared[part] for part in ("method", "data")), experiment.name
            assert record.settings["preset"].items() <= declared["preset"].items()  # later options have defaults


def _as_json(value):
    return json.loads(json.dumps(value))


def seeds_above(setting: str, key: str, other: str, metric: str = "accuracy") -> list[bool]:
    ours, theirs = (comparison.values(setting, k, metric) for k in (key, other))
    return [ours[seed] > theirs[seed] for seed in ours]


def of(setting: str, key: str, metric: str) -> float:
    return records.load(f"bench/{setting}/{key}").metrics[metric].mean


def test_what_the_prose_says_of_the_verdicts():
    """The sentences of page and lab."""
    said = {s: comparison.verdicts(s, comparison.primary(s)[0]) for s in comparison.measured()}
    decided = {s: {k: v for k, v in found.items() if v != "open"} for s, found in said.items()}
    assert decided["plain"] == dict.fromkeys(("energy", "loss_attention", "minmax_attached", "minmax_shared"), "lower")
    assert decided["shifted"] == dict.fromkeys(("energy", "hnc_energy", "smoothing_energy"), "higher")
    assert not decided["noisy"] and "higher" not in decided["clothes"].values()
    assert decided["multi"] == {"hnc_mse": "lower", "hnc_kd": "lower", "loss_attention": "higher"}
    moved = comparison.verdicts("plain", "energy_in_mask")
    higher = {k for k, v in moved.items() if v == "higher"}
    assert higher == {"smoothing", "hnc_mse", "reff", "energy", "loss_attention"}
    assert all(comparison.differences("noisy", "accuracy")[k].low > 0 for k in ("hnc_mse", "hnc_kd"))
    for key in ("smoothing", "amc", "amc_w100", "hnc_kd"):
        found = comparison.differences("clothes", "accuracy")[key]
        assert -0.01 < found.low < found.high < 0.01


def test_what_the_prose_says_of_maps():
    """Which maps pass those that know nothing."""
    ce = records.load("bench/plain/ce").metrics
    for key in comparison.rows_run("plain"):
        passes = of("plain", key, "iou") > ce["iou_gaussian"].mean
        assert passes == (key in ("energy", "loss_attention"))
        assert (of("plain", key, "energy_in_mask") > ce["energy_in_mask_centre"].mean) == (key == "loss_attention")
    left = ce["energy_in_mask"].mean - ce["energy_in_mask_untrained"].mean
    assert 0 < left < ce["energy_in_mask_untrained_sd"].mean
    for key in comparison.rows_run("shifted"):
        assert of("shifted", key, "energy_in_mask") < of("shifted", "ce", "energy_in_mask_centre")
        assert of("multi", "ce", "energy_in_mask_centre") < 1.1 * of("multi", "ce", "energy_in_mask_whole")
    edges = of("multi", "ce", "energy_in_mask_edges")
    rows = comparison.rows_run("multi")
    assert {k for k in rows if of("multi", k, "energy_in_mask") > edges} == {"loss_attention"}


def test_what_the_prose_says_of_combinations_and_heads():
    assert all(seeds_above("shifted", "smoothing_energy", "energy")) and all(seeds_above("plain", "ce", "energy"))
    assert sum(seeds_above("shifted", "loss_attention_energy", "loss_attention")) == 4
    assert of("shifted", "wildcat", "accuracy") > of("shifted", "smoothing_energy", "accuracy")
    assert not any(seeds_above("multi", "hnc_mse", "ce", "mAP")) and not any(
        seeds_above("multi", "hnc_kd", "ce", "mAP")
    )
    gain = paired(*(list(comparison.values("shifted", k, "accuracy").values()) for k in ("hnc_energy", "energy")))
    assert gain.low < 0 < gain.high
    assert of("noisy", "amc_hnc", "memorised") < of("noisy", "hnc_mse", "memorised")
    assert abs(of("noisy", "amc_hnc", "accuracy") - of("noisy", "hnc_mse", "accuracy")) < 0.01
