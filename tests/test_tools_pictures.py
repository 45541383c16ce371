"""The fence of a drawn figure: two inks, a number, an alternative text; and each way in which it can be wrong."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tools import pictures

ALT = "A curve that falls until the margin and is flat beyond it."


def fence(
    what: str = "amc.hinge",
    name: str = "fig-hinge",
    alt: str = ALT,
    caption: str = "What a pair of images costs by angle.",
) -> str:
    return f"# Title\n\n```{{picture}} {what}\n:name: {name}\n:alt: {alt}\n{caption}\n```\n\nText.\n"


def test_a_fence_becomes_a_numbered_figure_with_two_files():
    text, files, problems = pictures.expand("book/a.md", fence(), lambda what: (b"light", b"dark"))
    assert not problems
    assert files == {"book/_pictures/amc-hinge.svg": b"light", "book/_static/pictures/amc-hinge.svg": b"dark"}
    assert "```{figure} _pictures/amc-hinge.svg\n:name: fig-hinge\n:alt: A curve" in text
    assert ":figclass: drawn\n\nWhat a pair of images costs by angle.\n```" in text and text.endswith("\n\nText.\n")


@pytest.mark.parametrize(
    ("page", "why"),
    [
        (fence(what="amc.nothing"), "there is no function 'nothing' in tools/figures/amc.py"),
        (fence(what="nobody.hinge"), "there is no function 'hinge' in tools/figures/nobody.py"),
        (fence(alt="A curve."), "needs an alt of at least 30 letters"),
        (fence(caption="A curve."), "and a caption of six words"),
        (fence(name="hinge"), "the name begins with fig-"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(page, why, tmp_path):
    same, files, problems = pictures.expand("book/a.md", page, lambda what: pictures.picture(what, tmp_path))
    assert same == page and not files and len(problems) == 1
    assert problems[0].startswith("book/a.md:3: ") and why in problems[0]


def test_a_figure_is_drawn_once_alike_and_in_two_inks(tmp_path, monkeypatch):
    light, dark = pictures.picture("amc.hinge", tmp_path)
    assert b"<svg" in light and b"#000000" in light and b"#000000" not in dark and b"#0072b2" not in dark
    assert b'<svg fill="#ced6dd" ' in dark  # letters, which are drawn without a colour of their own
    assert (
        pictures.drawn("amc.hinge").encode() == light
    )  # the same bytes again, so that an unchanged page stays unchanged
    monkeypatch.setattr(pictures, "drawn", lambda what: pytest.fail("drawn twice"))
    assert pictures.picture("amc.hinge", tmp_path) == (light, dark)
    (tmp_path / "old").mkdir()
    pictures.forget_old(tmp_path)
    assert [folder.name for folder in tmp_path.iterdir()] == [pictures.state()]


def test_every_way_of_the_page_on_masks_can_be_seen_on_a_dark_page():
    def light(colour):  # relative luminance, WCAG 2
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        return sum(
            w * (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4)
            for w, p in zip((0.2126, 0.7152, 0.0722), parts)
        )

    from matplotlib.colors import to_hex

    from tools.figures.masks import LOOK

    for way, (colour, _) in LOOK.items():
        inked = pictures.DARK.get(to_hex(colour), to_hex(colour))
        assert (light(inked) + 0.05) / (light("#121212") + 0.05) >= 3, way


def test_dots_are_differences_to_the_twin_and_coloured_where_the_interval_leaves_out_zero(monkeypatch):
    from tools.figures import common
    from xai_course.runs.records import Metric
    from xai_course.show.style import CYCLE

    seeds = {"a/up": (0.9, 0.81, 0.72), "a/down": (0.5, 0.41, 0.32), "a/same": (0.8, 0.6, 0.7), "a/ce": (0.8, 0.7, 0.6)}
    found = {name: SimpleNamespace(metrics={"accuracy": Metric(values)}) for name, values in seeds.items()}
    monkeypatch.setattr(common.records, "load", found.__getitem__)
    rows = {name: "{}/" + name for name in ("up", "down", "same")}
    figure = common.dots(rows, {"a:accuracy": "accuracy"}, twin="{}/ce")
    means = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert [line.get_xdata()[0] for line in means] == pytest.approx([0.11, -0.29, 0.0])
    assert [line.get_color() for line in means] == [CYCLE[0], CYCLE[1], "0.55"]
    assert figure.axes[0].get_title() == "accuracy\n(without: 0.700)"


def test_the_running_image_is_one_digit_in_both_worlds():
    from tools.figures.common import running_image

    silent, telling = running_image(), running_image(0.0)
    assert silent.images.shape == (1, 3, 32, 32) and silent.masks.equal(telling.masks)
    assert silent.labels.equal(telling.labels) and not silent.images.equal(telling.images)
