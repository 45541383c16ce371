"""What the knobs of made-up data may be."""

from __future__ import annotations

from .._require import require


def in_range(low: float, high: float, **knobs: float) -> None:
    """Refuse a knob, named as the user names it, that is not within ``[low, high]``.

    Raises:
        ValueError: the first such knob.

    Example:
        >>> in_range(0, 1, p=0.5, q=1.5)
        Traceback (most recent call last):
        ValueError: q must be in [0, 1], got 1.5
    """
    for name, value in knobs.items():
        require(low <= value <= high, f"{name} must be in [{low}, {high}]", repr(value))
