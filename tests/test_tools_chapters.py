"""Each gate on a chapter's source is fed a sound page, which it lets pass, and a broken one, which it must stop."""

from __future__ import annotations

import pytest

from tools.gates import chapters

PICTURE = "```{picture} a.b\n:name: fig-a\n:alt: Something.\nA caption that says what is seen.\n```\n"
EXERCISE = "```{exercise} Try\n:label: a-b\n*Easy, 20 minutes.* Do it.\n```\n"
PROOF = "```{dropdown} Proof\n" + "folded " * 6000 + "\n```\n"
SOUND = (
    "# T\n\n**Maps move\nand answers stay.**\n\n```{explorable} a\nDrag the map and see.\n```\n\n"
    "*Theory about 15 minutes, exercises about 20.*\n\n" + "word " * 1000 + "\n\n" + PICTURE * 5
)
SOUND += EXERCISE + PROOF


def test_a_sound_chapter_passes():
    assert chapters.check("book/a.md", SOUND) == []


@pytest.mark.parametrize(
    ("page", "why"),
    [
        (SOUND.replace(PICTURE, "", 1), "book/a.md: 4 figures, at least 5"),
        (SOUND.replace("A caption that says what is seen.\n", "", 1), "book/a.md:14: a picture without a caption"),
        (SOUND.replace(PICTURE, PICTURE + "![seen](a.png)\n", 1), "a picture without a caption: ![seen](a.png)"),
        (SOUND.replace("word ", "word word word word word "), "words of theory, at most 5,000"),
        (SOUND.replace("Theory about 15", "Theory about 60"), "says theory about 60 minutes, counted are 17"),
        (SOUND.replace("exercises about 20", "exercises about 60"), "says exercises about 60 minutes, counted are 20"),
        (SOUND.replace("**Maps", "**Maps " + "word " * 40), "45 words before the first picture, at most 40"),
        (SOUND.replace("```{explorable} a", "```{note}"), "does not begin with a title, a sentence and an explorable"),
        (SOUND.replace("**Maps move\nand answers stay.**\n\n", ""), "does not begin with a title, a sentence"),
        (SOUND.replace("*Theory", "*Reading"), "no line '*Theory about"),
    ],
)
def test_a_fault_is_found(page, why):
    assert any(why in problem for problem in chapters.check("book/a.md", page))


def test_what_is_folded_costs_no_words_and_a_formula_counts_as_one():
    text = "One two $x + y$ three.\n\n````{dropdown} Proof\n```{math}\nz\n```\nmany words\n````\n"
    assert chapters.words(text) == 4
    assert chapters.minutes("$$\nx\n$$\n" * 4 + "```{quiz}\n- [x] a\n```\n") == (2, 2)
