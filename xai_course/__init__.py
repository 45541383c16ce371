"""Explanations as a training signal: five papers, taught and fully implemented."""

__version__ = "0.1.0"
