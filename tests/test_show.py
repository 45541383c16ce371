"""The slider and the figure style every chapter uses."""

from __future__ import annotations

import re
import subprocess
import sys

import matplotlib
import pytest
import torch

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from xai_course.show.slider import slider
from xai_course.show.style import image_grid, style

ALT = "A line that rises with the chosen slope from left to right."


def line(slope):
    figure, axis = plt.subplots(figsize=(1, 1))
    axis.plot([0, slope])
    return figure


def test_slider_holds_one_described_frame_per_value_and_needs_nothing_from_outside():
    before = plt.get_fignums()
    page = slider(line, [1, 2, 5], "slope <m>", ALT, start=1).data
    images = re.findall(r"<img [^>]*>", page)
    assert len(images) == 3 and len({re.search(r"base64,([^\"]+)", i)[1] for i in images}) == 3
    assert [" hidden" in i for i in images] == [True, False, True]
    assert all(ALT in i and "slope &lt;m&gt;: " in i for i in images)
    assert not re.search(r"https?://", page) and 'value="1"' in page and 'aria-label="slope &lt;m&gt;"' in page
    assert plt.get_fignums() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(([], "m", ALT), "0 values"), (([1], "m", ALT, 1), "got 1 for 1 values"), (([1], "m", "short"), "30 characters")],
)
def test_slider_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        slider(line, *arguments)


def test_image_grid_draws_images_and_maps_and_leaves_no_open_figure():
    before = plt.get_fignums()
    rows = [[torch.rand(3, 4, 4), torch.rand(4, 4)], [torch.rand(1, 4, 4), torch.zeros(4, 4)]]
    figure = image_grid(rows, ["image", "map"], ["one", "two"])
    assert plt.get_fignums() == before
    titles = [axis.get_title() for axis in figure.axes]
    assert titles[:2] == ["image", "map"] and len(figure.axes) == 5  # four panels and one colour bar


def test_style_is_put_back():
    before = dict(plt.rcParams)
    with style():
        assert plt.rcParams["axes.spines.top"] is False
    assert dict(plt.rcParams) == before


def test_import_is_light():
    code = """
import sys, xai_course, xai_course.methods.base, xai_course.train, xai_course.runs.experiment, xai_course.cli
heavy = set("matplotlib torchvision sklearn skimage ipywidgets IPython accelerate papermill nbgrader".split())
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
