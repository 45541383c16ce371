"""Claims of the pages: each is judged on the committed records; planted ones, and the gate on sentences without one.

A record that is made anew and contradicts a claim fails here, and the page has to change. Sentences that no claim can
carry stand as tests at the end.
"""

from __future__ import annotations

import dataclasses
import re
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from tools import claims as pages
from tools import fences
from xai_course import cli
from xai_course.measure.statistics import detectable
from xai_course.methods.loss_attention import loss_attention
from xai_course.runs import claims, records
from xai_course.runs.claims import Claim
from xai_course.runs.records import Metric, Record


@pytest.mark.parametrize("name", claims.claims())
def test_what_the_pages_claim_is_what_the_records_bear(name):
    found = claims.judge(claims.claims()[name])
    assert found.holds, found.why


NEAR = (0.80, 0.82, 0.81, 0.79, 0.80, 0.81)
WILD = (0.9, 0.7, 0.95, 0.68, 0.9, 0.75)


def shifted(by: float) -> tuple[float, ...]:
    """Six values above `NEAR` by about ``by``."""
    return tuple(v + by + e for v, e in zip(NEAR, (0.002, -0.001, 0.0, 0.001, -0.002, 0.0)))


@pytest.fixture
def planted(tmp_path, monkeypatch):
    """Records of a few rows with known values, and a page of claims about them."""
    monkeypatch.setenv("XAI_COURSE_RESULTS", str(tmp_path))
    model = Record("", "smoke", (), {}, {}, {}, {}, "", {}, "", "", (), 0.0, "")
    rows = {"ce": NEAR, "up": shifted(0.1), "down": shifted(-0.1), "same": shifted(0.0)}
    rows |= {"wild": WILD, "short": NEAR[:2]}
    for name, values in rows.items():
        metrics = {"accuracy": Metric(values)}
        seeds = tuple(range(len(values)))
        records.save(dataclasses.replace(model, experiment=f"toy/t/{name}", seeds=seeds, metrics=metrics))
    monkeypatch.setattr(claims, "claims", lambda: {})

    def judged(row: str, direction: str, **others) -> claims.Verdict:
        than, metric = others.pop("than", "ce"), others.pop("metric", "accuracy")
        return claims.judge(Claim("toy/x", f"toy/t/{row}", f"toy/t/{than}", metric, direction, **others))

    return judged


@pytest.mark.parametrize(
    ("row", "bears"),
    [
        ("up", {"higher", "always"}),
        ("down", {"lower"}),
        ("same", {"equal", "open", "mixed"}),
        ("wild", {"open", "mixed"}),  # neither shown to differ nor to be equal
    ],
)
def test_each_direction_holds_where_it_should_and_nowhere_else(planted, row, bears):
    for direction in ("higher", "lower", "equal", "open", "always", "mixed"):
        margin = {"margin": 0.01} if direction == "equal" else {}
        found = planted(row, direction, **margin)
        assert found.holds == (direction in bears), (direction, found)
        assert bool(found.why) != found.holds


def test_numbers_are_printed_without_zeros_and_an_open_claim_says_what_would_have_shown(planted):
    assert planted("up", "higher").text == "+.100 [.099, .101], 6 seeds"
    assert planted("same", "equal", margin=0.01).text == "+.000 [-.001, .001], equal within .010, 6 seeds"
    gaps = torch.tensor((0.9, 0.7, 0.95, 0.68, 0.9, 0.75), dtype=torch.float64) - torch.tensor(
        NEAR, dtype=torch.float64
    )
    least = detectable(gaps.std().item(), 6)  # the paired differences' own spread, with n - 1 below
    assert planted("wild", "open").text == f"+.01, effects above {f'{least:.2f}'[1:]} would have shown"
    assert planted("wild", "mixed").text == "+.01, higher on 3 of 6 seeds"


@pytest.mark.parametrize(
    ("row", "others", "said"),
    [
        ("none", {}, "no record of toy/t/none: run `xai-course run"),
        ("short", {}, "share 2 seeds, the claim asks for 5"),
        ("up", {"seeds": 20}, "share 6 seeds, the claim asks for 20"),
        ("up", {"metric": "mAP"}, "has no metric 'mAP'"),
    ],
)
def test_what_cannot_be_compared_does_not_hold(planted, row, others, said):
    found = planted(row, "higher", **others)
    assert not found.holds and said in found.why


def test_a_family_makes_a_claim_harder_and_every_row_of_a_table_belongs_to_it(planted, monkeypatch):
    ours = (0.83, 0.825, 0.83, 0.785, 0.82, 0.84)
    record = dataclasses.replace(records.load("toy/t/up"), experiment="toy/t/some", metrics={"accuracy": Metric(ours)})
    records.save(record)
    alone = planted("some", "higher")
    assert alone.holds
    others = {f"toy/{i}": Claim(f"toy/{i}", f"toy/t/{i}", "toy/t/ce", "accuracy", "open", "toy/t") for i in range(3)}
    for i in range(3):
        values = tuple(v + e for v, e in zip(NEAR, (0.01, -0.02, 0.01 * i, -0.01, 0.02, -0.01)))
        records.save(dataclasses.replace(record, experiment=f"toy/t/{i}", metrics={"accuracy": Metric(values)}))
    monkeypatch.setattr(claims, "claims", lambda: others)
    assert "among 4" in planted("some", "higher", family="toy/t").why
    monkeypatch.setattr(claims, "claims", lambda: {})
    rows = {f"toy/t/{i}": SimpleNamespace(name=f"toy/t/{i}", twin="toy/t/ce") for i in range(5)}  # two never run
    monkeypatch.setattr(claims, "experiments", lambda: rows)
    assert "among 4" in planted("some", "higher", family="toy/t").why


def test_a_command_lists_the_claims_and_fails_with_one(capsys, monkeypatch):
    assert cli.main(["claims", "bench/shifted_energy"]) == 0
    assert capsys.readouterr().out.startswith("holds  bench/shifted_energy ")
    wrong = claims.claims()["bench/shifted_energy"]._replace(direction="lower")
    monkeypatch.setattr(claims, "claims", lambda: {"bench/shifted_energy": wrong})
    assert cli.main(["claims"]) == 1 and "FAILS  bench/shifted_energy" in capsys.readouterr().out
    assert cli.main(["claims", "bench/shifted_enrgy"]) == 2
    assert "unknown claim 'bench/shifted_enrgy': did you mean" in capsys.readouterr().err


def test_a_page_prints_a_claim_and_is_not_staged_when_records_no_longer_bear_it(monkeypatch):
    page = "# T\n\nIt gains: {claim}`bench/shifted_energy`.\n"
    text, problems = fences.expand("book/p.md", page)
    assert problems == [] and re.search(r"It gains: \+\.\d\d \[\.\d\d, \.\d\d\], \d+ seeds\.", text)
    assert "unknown claim 'bench/none'" in fences.expand("book/p.md", "{claim}`bench/none`")[1][0]
    wrong = claims.claims()["bench/shifted_energy"]._replace(direction="lower")
    monkeypatch.setattr(claims, "claims", lambda: {"bench/shifted_energy": wrong})
    (problem,) = fences.expand("book/p.md", page)[1]
    assert problem.startswith("book/p.md:3: ") and "the claim does not hold: not lower: +" in problem


PAGE = """# A page

ReFF is better than cross-entropy. Nothing else is said.

ReFF is better than cross-entropy: {claim}`bench/shifted_energy`.

```{note}
HNC gains on every seed.
```

```{quiz}
HNC beats everything.
```

| AMC-Loss | no gain |
"""


def test_sentences_that_compare_are_found_in_text_notes_and_tables():
    found = list(pages.sentences(PAGE))
    assert found == [
        ("ReFF is better than cross-entropy.", False),
        ("ReFF is better than cross-entropy:", True),
        ("HNC gains on every seed.", False),
        ("| AMC-Loss | no gain |", False),
    ]


def test_the_gate_wants_a_claim_or_an_exception_that_is_still_there(tmp_path):
    for folder in ("book", "notebooks", "data"):
        (tmp_path / folder).mkdir()
    (tmp_path / "book" / "p.md").write_text("ReFF beats HNC.\n")
    listed = '[[exception]]\nreason = "before claims"\nsentences = {{ "book/p.md" = ["{}"] }}\n'.format
    (tmp_path / "data" / "unclaimed.toml").write_text(listed("ReFF beats HNC."))
    assert pages.check_all(tmp_path) == []
    (tmp_path / "data" / "unclaimed.toml").write_text(listed("HNC beats ReFF."))
    assert len(pages.check_all(tmp_path)) == 2  # one without a claim, one that is gone
    (tmp_path / "book" / "p.md").write_text("ReFF beats HNC.\n<!-- claim bench/shifted_energy -->\n")
    (problem,) = pages.check_all(tmp_path)
    assert "take out of data/unclaimed.toml" in problem


def test_the_list_of_exceptions_only_shrinks():
    assert sum(len(said) for listed in pages.unclaimed().values() for said in listed.values()) <= 73


def test_the_cam_of_the_telling_network_would_pass_alone():
    telling = records.load("looking/digits/telling").metrics
    assert min(telling["energy_in_mask"].values) > max(telling["energy_in_mask_whole"].values)


def test_random_labels_were_not_learnt_by_heart():
    for curve in records.load("looking/digits/shuffled").curves["total"]:
        assert 0.2 < 1 - curve[-1] / curve[0] < 0.5  # "fallen by about a third"


def test_early_cross_entropy_matches_late_flatness():
    """HNC under label noise: plain cross-entropy of the second regime and mse with lambda 1 of the first."""
    early, late = (records.load(f"hnc/noise/{row}").metrics["accuracy"].mean for row in ("early/ce", "heart/mse_1"))
    assert abs(early - late) < 0.03


def test_the_norm_share_may_shorten_a_right_patch():
    """Loss-based attention: its advantage is negative where the image's logits say the label more loudly already."""
    patches = torch.tensor([[4.0, 0, 0], [0, 1, 0], [2, 0, 0]], dtype=torch.float64, requires_grad=True)
    weights, _ = loss_attention(patches, 0.0)
    loss = F.cross_entropy((weights[:, None] * patches.detach()).sum(0), torch.tensor(0))
    (gradient,) = torch.autograd.grad(loss, patches)  # through the weights only
    assert gradient[2] @ patches[2] > 0 and patches[2].argmax() == 0


def test_a_bare_claim_leaves_out_its_seeds_only():
    assert pages.claim_text("masks/digits_pasted") == pages.claim_text("masks/digits_pasted bare") + ", 20 seeds"
    assert pages.claim_text("masks/digits_reff bare") == pages.claim_text(
        "masks/digits_reff"
    )  # open: it names no seeds
