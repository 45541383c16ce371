"""Measures: pure functions of maps and masks, and measures of a trained method, ``(method, splits) -> dict``.

Every number that a measure gives has a name that `metric` explains. Shares lie in [0, 1]; per cent is a way to print.
"""

from .._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
