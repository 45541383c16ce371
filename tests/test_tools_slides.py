"""A deck of slides per chapter, from the page itself."""

from __future__ import annotations

import re

import pytest
import yaml

from tools import ROOT
from tools.classroom.questions import assignments
from tools.slides import CHAPTERS, FORMULAS, LEFT_OUT, MOST, deck, decks, offer

PAGE = """# A title with $x^2$

**After this chapter you can**

- derive *this*,
  on two lines;
- measure `that`.

## One part

```{picture} a.b
:name: fig-a-b
:alt: Two lines & a circle.
A caption {cite:p}`zhou2016` with {numref}`fig-a-b`, {prf:ref}`a-small`, $a < b$ and [a link](x.md).
```

```{math}
:label: amc-loss
a < b
```

```{math}
:label: another
b < a
```

```{prf:lemma} Small is small
:label: a-small
As {prf:ref}`a-small` says.
```

```{picture} amc.pairs
:name: fig-a-pairs
:alt: Left out of the lesson.
A caption.
```

## Summary

It works. $y$ is 3.5 times as large.

## Further reading
"""


def test_aims_figures_formulas_and_summary_come_in_the_order_of_the_page():
    slides = re.findall(r"<section>(.*?)<footer>", deck("a", PAGE), re.S)
    assert slides == [
        r"<h1>A title with \(x^2\)</h1><p>After this lesson you can</p><ul><li>derive <em>this</em>, on two lines;</li>"
        "<li>measure <code>that</code>.</li></ul>",
        '<h2>One part</h2><div class="wide" tabindex="0" role="group" aria-label="figure">'
        '<img src="../pictures/a-b.svg" alt="Two lines &amp; a circle."></div>'
        r"<p>A caption  with the figure, “Small is small”, \(a &lt; b\) and a link.</p>",
        '<h2>One part</h2><div class="wide" tabindex="0" role="group" aria-label="formula">' r"\[a &lt; b\]</div>",
        r"<h2>Summary</h2><ul><li>It works.</li><li>\(y\) is 3.5 times as large.</li></ul>",
    ]
    with pytest.raises(ValueError, match="b: a deck needs a title"):
        deck("b", PAGE.replace("## Summary", "## End"))
    with pytest.raises(ValueError, match="c: a deck has at most 12 slides, this one 13: see LEFT_OUT"):
        deck(
            "c",
            PAGE.replace(
                "## Summary", PAGE[PAGE.index("```{picture} a.b") : PAGE.index("```{math}")] * 9 + "## Summary"
            ),
        )


def test_what_is_left_out_and_what_is_shown_are_there():
    pages = "".join((ROOT / "book" / f"{chapter}.md").read_text("utf-8") for chapter in CHAPTERS)
    assert [figure for figure in LEFT_OUT if f"```{{picture}} {figure}\n" not in pages] == []
    assert [formula for formula in FORMULAS if f"```{{math}}\n:label: {formula}\n" not in pages] == []


def test_every_chapter_of_the_contents_has_a_deck():
    parts = yaml.safe_load((ROOT / "_toc.yml").read_text("utf-8"))["parts"]
    listed = next(part["chapters"] for part in parts if part["caption"] == "Chapters")
    assert [each["file"] for each in listed] == [f"book/{chapter}" for chapter in CHAPTERS]


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_every_chapter_has_a_short_deck_that_needs_no_network(chapter):
    made = decks({f"book/{chapter}.md": (ROOT / "book" / f"{chapter}.md").read_bytes()})
    text = made[f"book/_static/slides/{chapter}.html"].decode()
    assert 6 <= text.count("<section>") <= MOST and text.count("<img") >= 4 and len(text) < 20_000
    assert not re.search(r'(src|href)="https?:', text) and not re.search(r"\{(cite|numref|prf|eq)", text)
    assert all(alt.strip() for alt in re.findall(r'<img [^>]*alt="([^"]*)"', text))


def test_the_teachers_page_links_each_deck_and_each_student_version_of_the_fork():
    page = offer((ROOT / "book" / "teachers.md").read_text("utf-8"), "some/fork", "main")
    assert all(f"_static/slides/{chapter}.html" in page for chapter in CHAPTERS)
    for name in filter(None, CHAPTERS.values()):
        assert f"github/some/fork/blob/main/notebooks/students/{name}.ipynb" in page
        assert (ROOT / "notebooks" / "students" / f"{name}.ipynb").is_file()
    assert not assignments() or sorted(filter(None, CHAPTERS.values())) == assignments()
