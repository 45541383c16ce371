"""Checks of graded questions: ``xai_course.checks.check_<question>(your_function)`` says which case fails and why."""

from .._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
