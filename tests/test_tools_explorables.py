"""The fence of an explorable: figure, caption, scripts, and each way in which it can be wrong."""

from __future__ import annotations

import pytest

from tools import explorables

CAPTION = "Drag the four points and watch the bars below them follow."


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "still").mkdir()
    for name in ("one", "two", "bare"):
        (tmp_path / f"{name}.js").write_text("")
    for name in ("one", "two"):
        (tmp_path / "still" / f"{name}.svg").write_text("<svg></svg>\n")
    (tmp_path / "core.js").write_text("")
    return tmp_path


def page(name: str, caption: str = CAPTION) -> str:
    return f"# Title\n\n```{{explorable}} {name}\n{caption}\n```\n\nText.\n"


def test_a_fence_becomes_a_figure_with_its_caption_and_one_core(folder):
    text, problems = explorables.expand("book/a.md", page("one") + page("two"), folder)
    assert not problems and text.count("<figure") == text.count("</figure>") == text.count("<svg></svg>") == 2
    assert text.count("core.js") == 1 and text.index("core.js") < text.index("one.js") < text.index("two.js")
    assert f"\n\n**Try it.** {CAPTION}\n\n" in text and text.endswith("Text.\n")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (page("three"), "book/a.md:3: explorables are bare, one, two, got 'three'"),
        (page("one", "Too short."), "book/a.md:3: explorable one needs a caption of at least eight words"),
        (page("bare"), "book/a.md:3: explorable bare has no picture for readers without scripts"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(folder, text, why):
    same, problems = explorables.expand("book/a.md", text, folder)
    assert same == text and len(problems) == 1 and problems[0].startswith(why)


@pytest.mark.parametrize("lab", sorted(path.stem for path in (explorables.ROOT / "notebooks").glob("[1-7]_*.ipynb")))
def test_every_lab_shows_its_chapters_explorable_again(lab, monkeypatch):
    monkeypatch.setattr(explorables, "data", lambda name: None)  # what a build writes into the page
    cell = explorables.again(lab.partition("_")[2])
    assert cell.count("<figure") == 1 and cell.count("</script>") == 2 and "```" not in cell
    blocks = cell.split("\n\n")  # an empty line ends HTML in Markdown, so only the caption may stand between two
    assert len(blocks) == 3 and blocks[1].startswith("**Try it.**") and blocks[0].endswith("<figcaption>")


def test_every_explorable_of_the_book_has_a_still_picture_and_a_page():
    pages = {path: path.read_text("utf-8") for path in (explorables.ROOT / "book").glob("*.md")}
    for name in explorables.names():
        assert (explorables.FOLDER / "still" / f"{name}.svg").is_file(), name
        assert any(match["name"] == name for text in pages.values() for match in explorables.FENCE.finditer(text)), name
