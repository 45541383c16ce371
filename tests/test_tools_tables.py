"""A wide table becomes several, each with the first column; narrow ones and everything else stay."""

from __future__ import annotations

from tools import tables

NARROW = "| a | b |\n| --- | --- |\n| 1 | 2 |\n"
WIDE = "| row | " + " | ".join("abcdefgh") + " |\n|" + " --- |" * 9 + "\n| one | " + " | ".join("12345678") + " |\n"


def test_a_narrow_table_and_text_stay():
    text = f"Text | with a bar.\n\n{NARROW}\nText.\n"
    assert tables.narrow(text) == text


def test_a_wide_table_is_split_evenly_and_nothing_is_lost():
    text = tables.narrow(f"Before.\n\n{WIDE}\nAfter.\n")
    parts = [[tables.cells(line) for line in found[0].splitlines()] for found in tables.TABLE.finditer(text)]
    assert [len(part[0]) for part in parts] == [5, 5] and text.startswith("Before.\n\n| row | a |")
    assert [part[0][0] for part in parts] == ["row", "row"] and [part[2][0] for part in parts] == ["one", "one"]
    assert [cell for part in parts for cell in part[2][1:]] == list("12345678") and text.endswith("\nAfter.\n")


def test_a_bar_in_a_formula_is_no_border():
    assert tables.cells(r"| $a \| b$ | c |") == [r"$a \| b$", "c"]
