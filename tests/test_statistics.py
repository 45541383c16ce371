"""Paired differences, Holm's correction, and the bench page's tables that are made of them."""

from __future__ import annotations

import pytest

from tools.bench_page import bench_markdown
from xai_course.measure.statistics import holm, paired
from xai_course.runs import comparison


def test_paired_interval_is_scipys():
    from scipy import stats

    ours, theirs = [0.5, 0.7, 0.6, 0.8, 0.7], [0.4, 0.5, 0.6, 0.6, 0.5]
    found, test = paired(ours, theirs), stats.ttest_rel(ours, theirs)
    interval = test.confidence_interval(0.95)
    assert found.p == pytest.approx(test.pvalue)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.mean == pytest.approx(0.14)
    assert paired([1.0, 1.0], [1.0, 1.0]).p == 1.0
    with pytest.raises(ValueError, match="one length >= 2, got 1 and 1"):
        paired([1.0], [1.0])


def test_holm_by_hand():
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06})


def test_unknown_tables_are_named():
    with pytest.raises(ValueError, match="tables are verdict, scores, differences, maps of plain, .*got nothing plain"):
        bench_markdown("nothing", "plain")


def test_a_table_shows_the_records_and_a_control_is_no_row():
    text = bench_markdown("scores", "plain")
    accuracy = str(comparison.records.load("bench/plain/ce").metrics["accuracy"]).replace(" ", "\u00a0")
    assert f"| Cross-entropy | {accuracy} |" in text and "shuffled" not in text
    difference = comparison.differences("plain", "accuracy")["energy"]
    assert f"| Energy loss (Rao et al.) | Cross-entropy | {difference.mean:+.3f} |" in bench_markdown(
        "differences", "plain"
    )
    assert comparison.primary("multi") == ("mAP", "energy_in_mask") and comparison.primary("clothes") == ("accuracy",)
