"""The fence of a drawn figure: two inks, a number, an alternative text; and each way in which it can be wrong."""

from __future__ import annotations

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
