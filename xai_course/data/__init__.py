"""What an image shows and where: data sets that all yield the same batch."""

from .._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
