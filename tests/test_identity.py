"""What decides a run: plain data for anything that has a lasting name, and the files behind a call."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from xai_course import identity as module
from xai_course.data.textured_digits import textured_digits
from xai_course.identity import code_of, identity, sources
from xai_course.methods.erasing import Erasing
from xai_course.methods.hnc import HNC
from xai_course.nets.convnets import small_cnn
from xai_course.runs.catalogue import find

ROOT = Path(module.__file__).parent


def names(*values) -> set[str]:
    return {path.relative_to(ROOT).as_posix() for path in sources(*values) if path.is_relative_to(ROOT)}


def test_a_call_says_what_is_called_and_with_what():
    found = identity(partial(HNC, "kd", layers=(1, 2), erasing=Erasing(2), loss=partial(torch.add, alpha=2.0)))
    assert found["call"] == "xai_course.methods.hnc.HNC" and found["0"] == "kd" and found["layers"] == [1, 2]
    assert found["erasing"]["call"].endswith("Erasing") and found["erasing"]["depth"] == 2
    assert found["loss"]["alpha"] == 2.0


def test_tensors_count_by_content_and_modules_by_what_they_hold():
    net = small_cnn(3, width=2, seed=0)
    same, other = small_cnn(3, width=2, seed=0), small_cnn(3, width=2, seed=1)
    assert identity(net) == identity(same) != identity(other)
    assert identity(torch.zeros(2)) != identity(torch.zeros(2, 1)) != identity(torch.zeros(2, 1).double())
    same.body[1][1].momentum = 0.5  # a setting that no weight shows
    assert identity(net) != identity(same)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (lambda x: x, "experiments are data: name .*<lambda>"),
        ([1, {"a": partial(max, key=lambda x: x)}], "experiments are data"),
        (object(), "a object has no lasting name"),
        (type("Own", (nn.Module,), {"__module__": "__main__"})(), "Own is written in this notebook"),
    ],
)
def test_what_has_no_lasting_name_is_refused(value, said):
    with pytest.raises(ValueError, match=said):
        identity(value)


def test_sources_follow_imports_into_functions_and_out_of_rooms():
    assert {"data/textured_digits.py", "data/textures.py", "data/batch.py"} <= names(textured_digits)
    assert "methods/hnc.py" in names([None, {"not": "called"}, partial(textured_digits, p=HNC)])
    assert {"nets/convnets.py", "methods/hnc.py"} <= names(HNC(small_cnn(3, width=2)))
    assert "methods/hnc.py" not in names(textured_digits)


def test_every_row_stands_apart_from_the_methods_of_other_papers():
    """A row's code is not that of the folder in which its parts happen to stand."""
    assert not {"methods/amc.py", "methods/minmax.py", "methods/loss_attention.py"} & names(*calls("hnc/digits/mse_1"))
    assert not {"methods/hnc.py", "methods/minmax.py"} & names(*calls("loss_attention/digits/loss_attention"))


def calls(name: str) -> tuple:
    row = find(name)
    return row.data, row.net, row.method, *row.measures


def test_imports_for_type_checkers_alone_do_not_count(tmp_path, monkeypatch):
    (tmp_path / "a.py").write_text("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from . import b\nimport c")
    for name in ("b", "c"):
        (tmp_path / f"{name}.py").write_text("")
    monkeypatch.setattr(module, "HERE", tmp_path)
    assert module.imported.__wrapped__(tmp_path / "a.py") == frozenset()
    (tmp_path / "a.py").write_text("def later():\n    from . import b")
    assert module.imported.__wrapped__(tmp_path / "a.py") == {tmp_path / "b.py"}


def test_code_changes_with_a_file_that_is_run_through(monkeypatch):
    before, read = code_of(HNC), Path.read_bytes
    for file, counts in (("methods/hnc.py", True), ("methods/base.py", True), ("methods/amc.py", False)):
        changed = ROOT / file
        monkeypatch.setattr(Path, "read_bytes", lambda p, changed=changed: read(p) + b"\nX = 1\n" * (p == changed))
        assert (code_of(HNC) != before) == counts, file


SOURCE = '"""Doc."""\n\n\ndef twice(x: int) -> int:\n    """Doubles."""\n    return 2 * x  # two\n'


@pytest.mark.parametrize(
    ("old", "new", "counts"),
    [
        ("Doubles.", "Gives twice the number.", False),
        ('    """Doubles."""\n', "", False),
        ("  # two", "", False),
        ("\n\n\ndef", "\ndef", False),
        ("(x: int) -> int", "(x)", False),
        ("2 * x", "2*x", False),
        ("2 * x", "3 * x", True),
        ("2 * x", '"2" * x', True),
        ("twice(x: int)", "twice(x: int = 1)", True),
        ("return", "y =", True),
    ],
)
def test_wording_and_layout_do_not_count_and_statements_do(old, new, counts):
    assert old in SOURCE
    changed = module._what_runs(SOURCE.replace(old, new).encode())
    assert (changed != module._what_runs(SOURCE.encode())) == counts
