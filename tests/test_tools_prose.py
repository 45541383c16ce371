"""The gate on running text counts what a reader must hold in mind, and nothing else."""

from __future__ import annotations

import pytest

from tools import ROOT
from tools.gates import prose, sources

ROLE, SEEDED = "{record}`a/b accuracy bare`", "{record}`a/b accuracy`"


@pytest.mark.parametrize(
    "page",
    [
        "It rose from 0.1 to 0.3. Then it fell to 0.2.",
        f"It goes from {ROLE} to {ROLE}: A colon before a capital ends a sentence, so {ROLE} is another's.",
        "See Eq. 3, Fig. 4, Table 5 and Sections 6 and 7 of the paper of 2019, 9 × 9 pixels, `x = 1`, $a = 3, 4, 5$.",
        "| a | 1 | 2 | 3 |\n| b | 4 | 5 | 6 |",
        "- 1 and 2\n- 3 and 4\n\n1. first 5\n2. second 6",
        "$$\n1 + 2 + 3\n$$\n\n```{math}\n1 + 2 + 3\n```\n\n```python\nf(1, 2, 3)\n```",
        "````{dropdown} More\n```{prf:proof}\n1, 2, 3 and 4.\n```\n````\n\n```{exercise} A\nGiven 1, 2, 3 and 4.\n```",
        f"{SEEDED}.\n\n" * 5,
    ],
)
def test_what_can_be_read_passes(page):
    assert prose.check("a.md", page) == []


@pytest.mark.parametrize(
    ("page", "why"),
    [
        ("It rose from 0.1 to 0.3 and fell to 0.2.", "a.md: 3 numbers in a sentence, at most 2: It rose from"),
        (f"It rose from {ROLE}\nto {ROLE} and fell\nto 0.2.", "3 numbers in a sentence"),
        (f"{ROLE}, {{claim}}`a/b` and 7 %.", "3 numbers in a sentence"),
        ("````{dropdown} More\n```{prf:remark} A\nOf 1, 2 and 4.\n```\n````", "3 numbers in a sentence"),
        ("```{picture} a.b\n:name: fig-a\nFrom 1 and 2 to 3.\n```", "3 numbers in a sentence"),
        ("- from 1, 2 and 3\n- to 4", "3 numbers in a sentence"),
        (f"{SEEDED}.\n\n" * 5 + "As said (3 seeds).", "a.md: says 6 times how many seeds, at most 5"),
    ],
)
def test_a_wall_of_numbers_is_stopped(page, why):
    assert why in "\n".join(prose.check("a.md", page))


def test_a_chapter_says_how_long_its_lab_takes_with_its_exercises():
    page = "The [lab](../notebooks/2_amc.ipynb) takes about {} minutes."
    assert sources.lab_time("book/amc.md", page.format(80), ROOT) == []
    (said,) = sources.lab_time("book/amc.md", page.format(45), ROOT)
    assert said.startswith("book/amc.md: says lab about 45 minutes, counted are ")
    assert "no '[lab]" in sources.lab_time("book/amc.md", "A lab.", ROOT)[0]
