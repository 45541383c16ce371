"""What the bench's records and its page say: chosen values, seeds and settings, tables, verdicts."""

from __future__ import annotations

import json

from xai_course.data.files import course_file
from xai_course.runs import bench, bench_page, bench_parts, records
from xai_course.runs.bench_parts import CHOSEN, RATE, ROWS, SETTINGS, TUNING_SEED, choose


def test_the_chosen_values_are_what_the_trials_say():
    """The rule of `choose`, on the committed trials."""
    for key, grid in bench.RATES.items():
        reached = {r: records.load(f"bench/rate/{key}_{r:g}") for r in grid}
        assert all(r.seeds == (TUNING_SEED,) for r in reached.values())
        accuracies = {r: record.metrics["validation_accuracy"].mean for r, record in reached.items()}
        assert RATE[ROWS[key].net] == choose(accuracies, 300, strongest=False), key
    for setting in bench_page.measured():
        for key in (k for k in bench_page.rows_run(setting) if k in ROWS and ROWS[k].grid):
            trials = {v: records.load(f"bench/tuning/{setting}_{key}_{v:g}") for v in ROWS[key].grid}
            assert all(r.seeds == (TUNING_SEED,) for r in trials.values())
            accuracies = {v: r.metrics["validation_accuracy"].mean for v, r in trials.items()}
            assert CHOSEN[setting][key] == choose(accuracies, 300), (setting, key, accuracies)


def test_final_records_have_the_declared_seeds_and_values():
    for experiment in bench.EXPERIMENTS:
        if experiment.item in SETTINGS and records.available(experiment.name):
            record = records.load(experiment.name)
            assert record.seeds == bench_parts.SEEDS, experiment.name
            declared = _as_json(experiment.settings("smoke"))
            assert all(record.settings[part] == declared[part] for part in ("method", "data")), experiment.name
            assert record.settings["preset"].items() <= declared["preset"].items()  # later options have defaults


def _as_json(value):
    return json.loads(json.dumps(value))


def test_tables_of_the_page_follow_from_the_records():
    page = (course_file("results").parents[1] / "book" / "bench.md").read_text("utf-8")
    assert bench_page.BLOCK.search(page)
    assert bench_page.refreshed(page) == page


def test_what_the_prose_says_of_the_verdicts():
    """The sentences of page and lab: only the linear mass has a verdict on accuracy, down in plain, up in shifted."""
    said = {s: bench_page.verdicts(s, "accuracy") for s in ("plain", "shifted", "noisy")}
    assert said["plain"].pop("mass") == "lower" and said["shifted"].pop("mass") == "higher"
    assert all(set(found.values()) == {"open"} for found in said.values())
    moved = bench_page.verdicts("plain", "energy_in_mask")
    assert {k for k, v in moved.items() if v == "higher"} == {"smoothing", "hnc_mse", "reff", "mass"}
    assert bench_page.differences("noisy", "accuracy")["hnc_mse"].low > 0
    for setting in ("plain", "shifted"):
        trivial = records.load(f"bench/{setting}/ce").metrics
        for key in bench_page.rows_run(setting):
            metrics = records.load(f"bench/{setting}/{key}").metrics
            assert (metrics["iou"].mean < trivial["iou_gaussian"].mean) == ((setting, key) != ("plain", "mass"))
            assert metrics["energy_in_mask"].mean < trivial["energy_in_mask_centre"].mean
    shifted = records.load("bench/shifted/mass").metrics
    assert shifted["energy_in_mask"].mean < records.load("bench/shifted/ce").metrics["energy_in_mask_untrained"].mean
