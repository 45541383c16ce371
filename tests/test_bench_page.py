"""The bench page's tables: made from the records, controls left out, a wrong name named."""

from __future__ import annotations

import pytest

from tools.bench_page import bench_markdown
from xai_course.runs import comparison


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
