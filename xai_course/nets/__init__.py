"""The networks of the five papers, layer by layer as printed."""

from .._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
