"""What a handful of seeds can say: paired differences, many at once, equivalence, and what would have gone unseen."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from .._require import require


class Difference(NamedTuple):
    """A method minus its twin: mean over seeds, ends of the 95 % interval, two-sided p-value, and each seed's value."""

    mean: float
    low: float
    high: float
    p: float
    values: tuple[float, ...]


def paired(ours: Sequence[float], theirs: Sequence[float], confidence: float = 0.95) -> Difference:
    """Mean of the differences with Student's interval, n - 1 degrees of freedom.

    Raises:
        ValueError: fewer than two pairs, or lengths that differ.

    Example:
        >>> found = paired([0.5, 0.7, 0.6], [0.4, 0.5, 0.6])
        >>> round(found.mean, 3), round(found.low, 3), round(found.high, 3)
        (0.1, -0.148, 0.348)
    """
    from scipy import stats

    gaps = _gaps(ours, theirs)
    n, mean = len(gaps), sum(gaps) / len(gaps)
    error = (sum((g - mean) ** 2 for g in gaps) / (n - 1) / n) ** 0.5
    reach = float(stats.t.ppf(0.5 + confidence / 2, n - 1)) * error
    p = 2 * float(stats.t.sf(abs(mean) / error, n - 1)) if error else float(mean == 0)
    return Difference(mean, mean - reach, mean + reach, p, gaps)


def holm(p: Mapping[str, float]) -> dict[str, float]:
    """Holm's step-down adjusted p-values: calling those below 0.05 real errs anywhere in at most 5 of 100 cases.

    Example:
        >>> holm({"a": 0.01, "b": 0.04, "c": 0.03})
        {'a': 0.03, 'b': 0.06, 'c': 0.06}
    """
    adjusted, worst = {}, 0.0
    for rank, key in enumerate(sorted(p, key=lambda key: p[key])):
        worst = max(worst, min(1.0, (len(p) - rank) * p[key]))
        adjusted[key] = worst
    return {key: adjusted[key] for key in p}


def equivalence(ours: Sequence[float], theirs: Sequence[float], margin: float) -> float:
    r"""p-value of "the mean difference is at least ``margin`` in size": two one-sided paired t-tests (Schuirmann 1987).

    Below 0.05 the two are shown to be equal up to the margin. A difference that is not significant shows nothing of the
    kind. The same as: the 90 % interval lies inside :math:`(-m, m)`.

    Raises:
        ValueError: fewer than two pairs, lengths that differ, or a margin that is not positive.

    Example:
        >>> ours, theirs = [0.91, 0.90, 0.92, 0.91, 0.90], [0.90, 0.91, 0.91, 0.91, 0.91]
        >>> equivalence(ours, theirs, 0.02) < 0.05 < equivalence(ours, theirs, 0.005)
        True
    """
    from scipy import stats

    require(margin > 0, "margin must be positive", margin)
    gaps = _gaps(ours, theirs)
    if len(set(gaps)) == 1:
        return float(abs(gaps[0]) >= margin)
    sides = {"greater": -margin, "less": margin}
    return max(float(stats.ttest_1samp(gaps, sides[side], alternative=side).pvalue) for side in sides)


def detectable(sd: float, runs: float, *, power: float = 0.8, level: float = 0.05) -> float:
    """The smallest true mean difference that a paired two-sided t-test would have found with this power.

    Args:
        sd: standard deviation of the differences. runs: number of pairs, more than one.
        power: chance to find it. level: of the test; divide it by the number of comparisons for Bonferroni's.

    Raises:
        ValueError: a negative deviation or fewer than two runs.

    Example:
        >>> round(detectable(0.01, 5), 4), round(detectable(0.01, 20), 4)
        (0.0168, 0.0066)
    """
    from scipy import optimize, stats

    require(sd >= 0 and runs >= 2, "sd must be at least 0 and runs at least 2", sd, runs)
    quantile = stats.t.ppf(1 - level / 2, runs - 1)

    def missing(shift: float) -> float:  # the other tail holds less than 1e-5 at any useful power
        return float(stats.nct.sf(quantile, runs - 1, shift)) - power

    return sd * float(optimize.brentq(missing, 0.0, 3 * quantile + 10)) / runs**0.5


def _gaps(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, ...]:
    require(len(ours) == len(theirs) >= 2, "ours and theirs must be of one length >= 2", len(ours), len(theirs))
    return tuple(a - b for a, b in zip(ours, theirs))
