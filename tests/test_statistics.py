"""What a handful of seeds can say, against scipy, published tables and simulation."""

from __future__ import annotations

import numpy as np
import pytest

from xai_course.measure.statistics import detectable, equivalence, holm, paired


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


def test_equivalence_is_the_90_percent_interval():
    """Two one-sided tests at 5 % say the same as the 90 % interval within the margin."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        ours, theirs = rng.normal(0.0, 1.0, (2, 6)).tolist()
        found = paired(ours, theirs, confidence=0.9)
        assert (equivalence(ours, theirs, 1.0) < 0.05) == (found.low > -1.0 and found.high < 1.0)


def test_equivalence_by_hand():
    """Gaps 1, 2, 3: mean 2, error 1/sqrt(3), t = (2 - 4) sqrt(3) against the upper margin, two degrees of freedom."""
    t = 2 * 3**0.5
    p = 0.5 - 0.5 * t / (t * t + 2) ** 0.5  # Student's distribution with two degrees of freedom
    assert equivalence([1.0, 2.0, 3.0], [0.0, 0.0, 0.0], 4.0) == pytest.approx(p)
    assert equivalence([1.0, 1.0], [1.0, 1.0], 0.1) == 0.0 and equivalence([2.0, 2.0], [1.0, 1.0], 0.5) == 1.0
    with pytest.raises(ValueError, match="margin must be positive, got 0"):
        equivalence([1.0, 2.0], [1.0, 2.0], 0.0)
    with pytest.raises(ValueError, match="one length"):
        equivalence([1.0, 2.0], [1.0], 0.1)


@pytest.mark.parametrize(("runs", "effect"), [(33.36713, 0.5), (199, 0.2), (15, 0.78)])
def test_detectable_is_cohens_table(runs, effect):
    """Cohen 1988: 33.37 pairs for a medium effect (R's pwr.t.test), 199 for a small one, 15 for 0.78."""
    assert detectable(1.0, runs) == pytest.approx(effect, abs=2e-3)


def test_detectable_is_found_as_often_as_promised():
    rng = np.random.default_rng(1)
    effect = detectable(0.02, 5)
    samples = rng.normal(effect, 0.02, (2000, 5))
    found = [paired(row, [0.0] * 5).p < 0.05 for row in samples.tolist()]
    assert np.mean(found) == pytest.approx(0.8, abs=0.03)
    assert detectable(0.0, 5) == 0.0 and detectable(0.02, 5, power=0.9) > effect > detectable(0.02, 5, level=0.1)
    for arguments in ((-1.0, 5), (1.0, 1)):
        with pytest.raises(ValueError, match="sd must be at least 0 and runs at least 2"):
            detectable(*arguments)
