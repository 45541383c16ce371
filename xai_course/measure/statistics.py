"""Paired comparison over seeds: differences with Student's interval, and Holm's correction over several of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Difference(NamedTuple):
    """A method minus its twin: mean over seeds, ends of the interval, two-sided p-value, and each seed's value."""

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
        >>> found = paired([0.5, 0.7, 0.6], [0.4, 0.5, 0.3])
        >>> f"{found.mean:.2f} in {found.low:.2f} … {found.high:.2f}"
        '0.20 in -0.05 … 0.45'
    """
    from scipy import stats

    if len(ours) != len(theirs) or len(ours) < 2:
        raise ValueError(f"ours and theirs must be of one length >= 2, got {len(ours)} and {len(theirs)}")
    gaps = [a - b for a, b in zip(ours, theirs)]
    n, mean = len(gaps), sum(gaps) / len(gaps)
    error = (sum((g - mean) ** 2 for g in gaps) / (n - 1) / n) ** 0.5
    reach = float(stats.t.ppf(0.5 + confidence / 2, n - 1)) * error
    p = 2 * float(stats.t.sf(abs(mean) / error, n - 1)) if error else float(mean == 0)
    return Difference(mean, mean - reach, mean + reach, p, tuple(gaps))


def holm(p: Mapping[str, float]) -> dict[str, float]:
    """Holm's step-down adjusted p-values: calling those below 0.05 real errs anywhere in at most 5 of 100 cases.

    Example:
        >>> holm({"a": 0.01, "b": 0.2})
        {'a': 0.02, 'b': 0.2}
    """
    adjusted, worst = {}, 0.0
    for rank, key in enumerate(sorted(p, key=lambda key: p[key])):
        worst = max(worst, min(1.0, (len(p) - rank) * p[key]))
        adjusted[key] = worst
    return {key: adjusted[key] for key in p}
