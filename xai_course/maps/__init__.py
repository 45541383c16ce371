"""Class activation maps and Grad-CAM as differentiable quantities. Knows no method, no trainer, no data set."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
