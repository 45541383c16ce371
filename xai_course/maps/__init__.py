"""Class activation maps and Grad-CAM as differentiable quantities. Knows no method, no trainer, no data set."""

from .._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
