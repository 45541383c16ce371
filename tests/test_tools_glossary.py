"""Terms are linked once per page, in plain text only."""

from __future__ import annotations

import pytest

from tools import ROOT
from tools.glossary import link_terms, meanings, terms

KNOWN = ["class activation map", "shortcut", "map"]
LINKED = "{term}`shortcut <shortcut>`"


def test_the_first_mention_is_linked_and_later_ones_are_not():
    text = "A shortcut here,\na shortcut there."
    assert link_terms("book/amc.md", text, KNOWN) == f"A {LINKED} here,\na shortcut there."


def test_plural_capital_and_longest_term():
    text = "Shortcuts show in class activation maps."
    expected = "{term}`Shortcuts <shortcut>` show in {term}`class activation maps <class activation map>`."
    assert link_terms("book/amc.md", text, KNOWN) == expected


def test_an_abbreviation_is_not_found_in_a_word():
    assert link_terms("book/amc.md", "two gaps behind GAP", ["GAP"]) == "two gaps behind {term}`GAP <GAP>`"


@pytest.mark.parametrize(
    "special",
    [
        "# A shortcut", "`shortcut`", "{ref}`a shortcut <x>`", "$shortcut$", "$$\na shortcut\n$$", "[shortcut](x.md)",
        "```python\nshortcut = 1\n```", "````{note}\n```\nshortcut\n```\n````", ":::{dropdown} shortcut",
        ":label: shortcut", "| shortcut | b |", "<a title='shortcut'>", "https://example.org/shortcut", "(shortcut)=",
        "\\begin{align}\n shortcut\n\\end{align}", "![shortcut](a.png)", "shortcut-like", "[^shortcut]",
    ],
)  # fmt: skip
def test_everything_but_plain_text_stays(special):
    assert link_terms("book/amc.md", f"{special}\n\nthen a shortcut", KNOWN) == f"{special}\n\nthen a {LINKED}"


def test_reference_pages_stay():
    assert link_terms("book/glossary.md", "a shortcut", KNOWN) == "a shortcut"


def test_the_glossary_is_in_alphabetical_order_and_read_whole():
    text = (ROOT / "book" / "glossary.md").read_text("utf-8")
    found = terms(text)
    assert {"class activation map", "CAM", "Textured Digits", "weakly supervised"} <= set(found)
    entries = [line for line in text.split("```{glossary}\n")[1].splitlines() if line and line[0] not in " `"]
    firsts = [e for e, before in zip(entries, ["", *entries], strict=False) if f"{before}\n{e}\n" not in text]
    assert firsts == sorted(firsts, key=str.lower)


def test_meanings_are_plain_text_under_the_anchors_of_the_page():
    found = meanings(
        "```{glossary}\nclass activation map\nCAM\n  The map of a {term}`class <c>` of $K$.\n\nb\n  Two.\n```\n"
    )
    assert found["term-CAM"] == ("CAM", "The map of a class of K.") and found["term-b"] == ("b", "Two.")
    assert found["term-class-activation-map"][1] == found["term-CAM"][1]
    with pytest.raises(ValueError, match="a tip shows no formulas"):
        meanings("```{glossary}\na\n  Is $\\sqrt 2$.\n```\n")
    assert set(terms((ROOT / "book" / "glossary.md").read_text("utf-8"))) <= {
        name for name, _ in meanings((ROOT / "book" / "glossary.md").read_text("utf-8")).values()
    }
