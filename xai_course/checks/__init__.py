"""Checks of graded questions: ``xai_course.checks.check_<question>(your_function)`` says which case fails and why."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
