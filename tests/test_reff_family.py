"""The page of the family prints what the criteria compute."""

from __future__ import annotations

import math
import re
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from xai_course.methods import guidance

PAGE = (Path(__file__).parents[1] / "book" / "reff_family.md").read_text("utf-8")
ROWS = re.findall(r"^\| `([\w=()]+)`(, of \$v/12\$)? \|((?: [\w/ -]+ \|){5})$", PAGE, re.M)
CRITERIA = {"RRR", "RRR(peak=True)", "Energy", "RelevantFocus", "MatchingL1", "MatchingL2", "L1", "PPCE"}


def criterion(name: str):
    return guidance.RRR(peak=True) if name == "RRR(peak=True)" else getattr(guidance, name)()


def gradient(name: str, cells: list[float]) -> tuple[float, list[float]]:
    v = torch.tensor(cells, dtype=torch.float64).view(1, 2, 2).requires_grad_()
    loss = criterion(name)(v, torch.tensor([[[0, 1], [0, 0]]]))
    return loss.item(), torch.autograd.grad(loss, v)[0].flatten().tolist()


def test_every_loss_has_a_row():
    assert {name for name, *_ in ROWS} == CRITERIA | {"AttentionDistance"}


@pytest.mark.parametrize(("name", "scaled", "numbers"), ROWS, ids=[row[0] for row in ROWS])
def test_the_table_of_values_and_gradients(name, scaled, numbers):
    value, *printed = numbers.strip(" |").split(" | ")
    loss, found = gradient(name, [x / (12 if scaled else 1) for x in (1.0, 4.0, 6.0, 1.0)])
    expected = math.log(Fraction(value[4:])) if value.startswith("log ") else float(Fraction(value))
    assert loss == pytest.approx(expected, rel=1e-12)
    assert found == pytest.approx([float(Fraction(x)) for x in printed], rel=1e-12, abs=1e-15)


def test_the_exercise():
    assert gradient("PPCE", [1, 6, 4, 1]) == (0, [0] * 4)
    loss, found = gradient("RRR(peak=True)", [1, 6, 4, 1])
    assert loss == pytest.approx(1 / 2) and found == pytest.approx([2 / 36, -1 / 6, 8 / 36, 2 / 36])


def test_cells_times_gradients_vanish_where_the_scale_is_divided_away():
    for name in CRITERIA:
        total = sum(c * g for c, g in zip((1, 4, 6, 1), gradient(name, [1, 4, 6, 1])[1]))
        assert total == pytest.approx(76 if name == "RRR" else 0, abs=1e-12)


def test_the_code_on_the_page_runs():
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    net = torch.nn.Sequential()
    net.layer4 = torch.nn.Conv2d(3, 8, 3)
    net.tail = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    net.fc = torch.nn.Linear(8, 2)
    images = torch.rand(4, 3, 6, 6)
    batch, out = (images, torch.tensor([0, 1, 0, 1]), images[:, 0] > 0.5), []
    exec(code, {"net": net, "batch": batch, "print": out.append})
    assert len(out) == 1 and "parameters that it should" in str(out[0])
