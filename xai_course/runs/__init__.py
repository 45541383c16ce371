"""Experiments as data, the runs they lead to, their records, and the tables made from these."""

from .._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
