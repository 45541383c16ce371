"""The labs in a hurry: a few small images and one epoch, for tests that ask whether cells run and not what they say."""

from __future__ import annotations

import importlib
import json
from dataclasses import replace
from pathlib import Path

from tools.run_notebooks import code_cells, text

SIZES = {"train": 200, "validation": 60, "test": 300}  # some cells look at the first 300 test images


def hurry() -> None:
    """From now on, in this process, data sets are small and labs train one epoch on 64 images. Before anything else."""
    import xai_course.data

    digits = importlib.import_module("xai_course.data.textured_digits")
    rendered = digits.textured_digits

    def few(preset: str = "smoke", **knobs):
        return rendered("smoke", **knobs | {name: min(knobs.get(name) or most, most) for name, most in SIZES.items()})

    digits.textured_digits = xai_course.data.textured_digits = few
    from xai_course import train
    from xai_course.runs import lab

    def fit(method, data, preset, *, seed=0, augment=None, resume=True):
        return train.fit(method, data, replace(preset, epochs=1, limit=64), seed=seed, augment=augment)

    lab.fit = fit
    annotator = importlib.import_module("xai_course.methods.pseudo_annotator")
    drawn = annotator.annotator_for
    annotator.annotator_for = lambda data, which, plan: drawn(data, which, replace(plan, iterations=2))
    slider = importlib.import_module("xai_course.show.slider")
    slider.slider = lambda figure, stops, label, alt, start=0: figure(stops[start])  # one frame of each


def cells(path: Path, profile: str = "smoke") -> list[str]:
    """The sources of a lab's code cells without the one that installs, at a profile."""
    sources = [text(cell) for cell in code_cells(json.loads(path.read_text("utf-8")))][1:]
    return [sources[0].replace('"auto"', repr(profile), 1), *sources[1:]]
