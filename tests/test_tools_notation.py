"""One meaning per letter within a chapter, and every letter that a chapter keeps using is in its table."""

from __future__ import annotations

import pytest

from tools import ROOT, notation

CHAPTERS = [name for name in notation.source() if name != "common"]
OFTEN = 5  # a letter used less often is said where it is used


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_letter_has_one_meaning_in_a_chapter_and_is_declared_there(chapter):
    meanings = notation.declared(chapter)
    assert [letter for letter, found in meanings.items() if len(found) > 1] == []
    used = notation.letters((ROOT / "book" / f"{chapter}.md").read_text("utf-8"))
    assert sorted(letter for letter, times in used.items() if times >= OFTEN and letter not in meanings) == []


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_no_letter_is_declared_and_unused(chapter):
    used = notation.letters((ROOT / "book" / f"{chapter}.md").read_text("utf-8")) | notation.letters(
        notation.table(chapter)
    )
    own = [letter for row in notation.source()[chapter]["rows"] for letter in row[0].split()]
    assert [letter for letter in own if letter not in used] == []


def test_letters_are_read_out_of_formulas_and_names_are_not():
    text = r"Let $\alpha_m$ and $\mathcal L = \sum_m \operatorname{softmax}(x_m)$, not `y`;"
    text += r" $\mathrm{HNC}_{mse} \in \mathbb R$."
    assert notation.letters(text) == {"alpha": 1, "m": 3, "calL": 1, "x": 1}
    assert notation.letters("```{math}\n:label: a-b\nz = 2z\n```\n") == {"z": 2}


def test_a_doubled_letter_would_be_seen(monkeypatch):
    rows = [["m", "$m$", "", "margin"], ["m", "$m$", "", "mask"]]
    monkeypatch.setattr(notation, "source", lambda: {"common": {"rows": []}, "amc": {"title": "AMC", "rows": rows}})
    assert notation.declared("amc") == {"m": ["margin", "mask"]}


def test_fences_become_tables_and_an_unknown_chapter_names_its_line():
    text, problems = notation.expand("book/a.md", "# T\n\n```{notation} hnc\n```\n")
    assert not problems and text.startswith("# T\n\n| symbol | in the code | meaning |\n| --- |")
    assert text.count("\n| ") == len(notation.source()["hnc"]["rows"]) + 2
    assert notation.expand("book/a.md", "\n```{notation} nn\n```\n")[1][0].startswith(
        "book/a.md:2: notation is known of"
    )
    several = notation.table("several")
    assert "| $s$ | all chapters |" in several and "|  | HNC | $s_o$ |" in several
