"""Figures of the AMC-Loss chapter."""

from __future__ import annotations

from xai_course.show import amc as show


def hinge():
    """What a pair costs by its angle."""
    return show.hinge()


def sphere():
    """A pair on the sphere and the forces on it."""
    return show.pair_on_sphere(40.0)


def cliff():
    """The arccos in float32 and its gradient."""
    return show.arccos_cliff()
