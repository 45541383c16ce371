"""Losses that use explanations, and what they are compared with: functions, criteria and methods of five papers.

A *criterion* goes into anybody's training loop; a *method* is a criterion with a network and a place in this course's.
`__init__.pyi` lists the names, paper by paper; a file is loaded when one of its names is used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
