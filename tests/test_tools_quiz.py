"""The quiz fence: what an author writes, what a reader gets, and which mistakes are named."""

from __future__ import annotations

import pytest

from tools import ROOT, bibtex, quiz
from tools.browser import HINT, Browser, find
from tools.gates.sources import chapters, quiz_of

SOUND = """# T

## Quiz

```{quiz}
What has a map of *ones*?

- [ ] Nothing

  It covers
  the object.

  So it scores.

- [x] The share
  of $a$

  By {prf:ref}`ones`.
```

After.
"""


def test_a_quiz_becomes_a_named_group_of_folded_options():
    text, problems = quiz.expand("book/p.md", SOUND)
    assert problems == [] and text.startswith("# T\n\n## Quiz\n\n<div") and text.endswith("</div>\n\nAfter.\n")
    assert '<div class="quiz" role="group" aria-labelledby="quiz-1">\n<div id="quiz-1">\n\n**1.** What has' in text
    assert (
        ":::::{dropdown} A. Nothing\n:class-container: quiz-wrong\n\n**✗ No.** It covers\nthe object.\n\nSo it" in text
    )
    assert (
        ":::::{dropdown} B. The share of $a$\n:class-container: quiz-right\n\n**✓ Right.** By {prf:ref}`ones`.\n"
        in text
    )


def test_questions_are_numbered_and_may_have_several_right_options():
    several = SOUND.replace("{quiz}", "{quiz} choose all").replace("[ ] Nothing", "[x] Nothing")
    text, problems = quiz.expand("p.md", SOUND + several)
    assert problems == [] and "**2.** What has a map of *ones*?\n\n*Choose all that hold.*" in text
    assert [q.choose_all for q in quiz.questions(SOUND + several)] == [False, True]


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("[x]", "[ ]", "expected exactly one right option(s) '- [x] ', got 0"),
        ("[ ]", "[x]", "expected exactly one right option(s) '- [x] ', got 2"),
        ("{quiz}", "{quiz} choose all", "expected two or more right option(s) '- [x] ', got 1"),
        ("{quiz}", "{quiz} pick", "expected nothing or 'choose all' behind {quiz}, got 'pick'"),
        ("  By {prf:ref}`ones`.\n", "", "option 'The share of $a$' has no reason"),
        ("- [x] The", "- [X] The", "'- [X] The share': an option begins with"),
        ("  By {prf", "By {prf", "'By {prf:ref}`ones`.': an option begins with"),
        ("Nothing", "Nothing, see {prf:ref}`ones`", "holds a link or a role"),
        ("Nothing", "[Nothing](x.md)", "holds a link or a role"),
        ("What has a map of *ones*?", "", "expected a text and 2 to 6 options"),
    ],
)
def test_a_malformed_question_is_named_with_page_and_number(old, new, why):
    text, problems = quiz.expand("book/p.md", SOUND + SOUND.replace(old, new))
    assert len(problems) == 1 and problems[0].startswith("book/p.md, question 2 (") and why in problems[0]
    assert "**1.**" in text and "```{quiz}" in text  # the sound one is shown, the other left as it was


def test_every_chapter_has_a_sound_quiz():
    import yaml

    pages = chapters(yaml.safe_load((ROOT / "_toc.yml").read_text("utf-8")))
    assert len(pages) == 7
    for name in pages:
        page = (ROOT / name).read_text("utf-8")
        assert quiz_of(name, page) == [] and "\n## Quiz\n" in page
        assert {len(question.options) for question in quiz.questions(page)} <= {3, 4}


def test_the_gate_stops_a_short_quiz_and_one_with_a_favourite_place():
    assert quiz_of("p.md", "# T\n") == ["p.md: 0 quiz questions, not 4"]
    found = quiz_of("p.md", SOUND * 4)
    assert len(found) == 1 and "stand at one place: [1, 1, 1, 1]" in found[0]
    assert "question 1" in quiz_of("p.md", SOUND.replace("[x]", "[ ]"))[0]


def test_the_papers_entry_is_offered_beside_its_citation():
    page = "# AMC\n\n*Theory. Paper: {cite:t}`choi2020`. Lab:\n[l](x).*\n\nLater {cite:t}`sun2020`.\n"
    known = bibtex.entries((ROOT / "book" / "references.bib").read_text("utf-8"))
    text, files = bibtex.offer("book/amc.md", page, known)
    assert "{cite:t}`choi2020` ([BibTeX](bibtex/choi2020.bib)). Lab" in text and "Later {cite:t}`sun2020`." in text
    assert list(files) == ["book/bibtex/choi2020.bib"]
    moving = page.replace("*Theory", "**It turns.**\n\n```{explorable} amc\nDrag *it*.\n```\n\n*Theory")
    assert list(bibtex.offer("book/amc.md", moving, known)[1]) == ["book/bibtex/choi2020.bib"]
    assert bibtex.offer("book/x.md", "# T\n\nText {cite:t}`choi2020`.\n\n", known)[1] == {}
    with pytest.raises(ValueError, match=r"book/amc.md is about nobody1999"):
        bibtex.offer("book/amc.md", page.replace("choi2020", "nobody1999"), known)


@pytest.mark.parametrize(
    ("page", "key", "author", "title"),
    [
        ("amc", "choi2020", "Choi", "Angular Margin Contrastive"),
        ("hnc", "sun2020", "Sun", "Fixing Localization Errors"),
        ("loss_attention", "shi2021", "Shi", "Loss-Based Attention"),
        ("minmax", "belharbi2019", "Belharbi", "Min-Max Entropy"),
        ("reff", "adachi2022", "Adachi", "Relevant Feature Focusing"),
    ],
)
def test_each_chapters_download_is_a_valid_entry_of_its_paper(page, key, author, title):
    from pybtex.database import parse_string

    known = bibtex.entries((ROOT / "book" / "references.bib").read_text("utf-8"))
    _, files = bibtex.offer(f"book/{page}.md", (ROOT / "book" / f"{page}.md").read_text("utf-8"), known)
    assert list(files) == [f"book/bibtex/{key}.bib"]
    entries = parse_string(files[f"book/bibtex/{key}.bib"].decode(), "bibtex").entries
    assert list(entries) == [key] and entries[key].persons["author"][0].last_names[0] == author
    assert title.lower() in entries[key].fields["title"].replace("{", "").replace("}", "").lower()


@pytest.mark.skipif(find() is None, reason=HINT)
def test_the_script_counts_questions_decided_without_a_wrong_try(tmp_path):
    def question(kinds: str) -> str:
        options = "".join(f'<details class="quiz-{k}"><summary>o</summary>why</details>' for k in kinds.split())
        return f'<div class="quiz">{options}</div>'

    script = (ROOT / "book" / "_static" / "course.js").read_text("utf-8")
    body = question("wrong right") + question("right right wrong") + question("right wrong")
    (tmp_path / "q.html").write_text(f"<!doctype html><script>{script}</script>{body}")
    click = "document.querySelectorAll('summary')[{}].click(); new Promise(d => setTimeout(d, 60))"
    with Browser(find()) as browser:
        browser.view(800, 600)
        browser.open((tmp_path / "q.html").as_uri())
        said = []
        for at in (0, 1, 2, 3, 5, 5, 5):  # wrong then right; both right ones; right, closed, opened again
            browser.evaluate(click.format(at))
            said.append(browser.evaluate("document.querySelector('[role=status]').textContent"))
    first, both = "1 of 3 questions decided, 0 without a wrong try.", "2 of 3 questions decided, 1 without a wrong try."
    last = "3 of 3 questions decided, 2 without a wrong try."
    assert said == [first, first, first, both, last, last, last]
