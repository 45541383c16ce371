"""Figures and sliders of the notebooks: pure functions of their parameters, one module per chapter."""

from .._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
