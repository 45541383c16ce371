"""Measures: pure functions of maps and masks, and measures of a trained method, ``(method, splits) -> dict``."""
