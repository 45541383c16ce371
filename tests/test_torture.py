"""Every fault at every system call of everything that writes: afterwards the old state or the new one, whole.

No sample: the calls of a save are counted, then each in turn meets each fault. ``make torture`` is the long form.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import re
import signal
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from faults import FAULTS, faults, in_child

from tools import write_if_changed
from tools.stage import sync
from xai_course.data.files import locked, save_whole, write_atomically
from xai_course.runs import records
from xai_course.runs.records import Metric, Record

LONG = os.environ.get("XAI_COURSE_TORTURE") == "long"
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
OLD, NEW = 0, 1
RECORD = Record(
    "amc/toy/x", "smoke", (0, 1), {"accuracy": Metric((0.5, 0.25))}, {}, {}, {}, "CPU", {}, "", "", (1.0, 1.0), 1.0, ""
)


class Writer(NamedTuple):
    """Something that writes: ``save`` puts version 0 or 1 into a folder, ``read`` says which lies there."""

    save: Callable[[Path, int], object]
    read: Callable[[Path], int]


def _record(folder: Path, version: int) -> None:
    records.save(dataclasses.replace(RECORD, memory_mb=float(version)))


def _stage(folder: Path, version: int) -> None:
    sync({"page.md": f"# {version}".encode() * 5000, "sub/other.md": b"same"}, folder)


WRITERS = {
    "bytes": Writer(
        lambda folder, version: write_atomically(folder / "x.bin", lambda f: [f.write(bytes([version]) * 9000)] * 3),
        lambda folder: {bytes([v]) * 9000: v for v in (OLD, NEW)}[(folder / "x.bin").read_bytes()],
    ),
    "checkpoint": Writer(
        lambda folder, version: save_whole(folder / "x.pt", {"w": torch.full((5000,), version)}, "make room"),
        lambda folder: int(torch.load(folder / "x.pt", weights_only=True)["w"].unique()),
    ),
    "record": Writer(_record, lambda folder: int(records.load(RECORD.experiment).memory_mb)),
    "staged page": Writer(_stage, lambda folder: int((folder / "page.md").read_bytes().strip(b"# ")[:1])),
    "page": Writer(
        lambda folder, version: write_if_changed(folder / "page.ipynb", json.dumps([version] * 9999).encode()),
        lambda folder: json.loads((folder / "page.ipynb").read_text())[-1],
    ),
}


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XAI_COURSE_RESULTS", str(tmp_path / "there"))
    (tmp_path / "there").mkdir()
    return tmp_path / "there"


def calls_of(writer: Writer, folder: Path) -> list[str]:
    """The names of the system calls of one save over an earlier one."""
    writer.save(folder, OLD)
    with faults(folder) as layer:
        writer.save(folder, NEW)
    writer.save(folder, OLD)
    assert {"open", "write", "fsync", "chmod", "replace"} <= set(layer.calls)
    return layer.calls


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("name", WRITERS)
def test_a_fault_at_every_call_leaves_old_or_new_whole_names_the_file_and_no_litter(folder, name):
    writer = WRITERS[name]
    calls, met = calls_of(writer, folder), 0
    before = files(folder)
    for at in range(len(calls)):
        for kind in (*FAULTS, "short"):
            try:
                with faults(folder, at, kind):
                    writer.save(folder, NEW)
            except OSError as error:
                assert kind != "short" and error.errno == FAULTS[kind], (at, calls[at], kind, error)
                assert str(folder) in str(error) and "): " in str(error), (calls[at], str(error))
                assert writer.read(folder) == OLD, (at, calls[at], kind)
            else:  # a short or an interrupted write is finished, and the folder is there already
                assert writer.read(folder) == NEW, (at, calls[at], kind)
                assert kind == "short" or calls[at] == "mkdir" or (kind, calls[at]) == ("interrupted", "write")
            assert files(folder) == before, (at, calls[at], kind)
            writer.save(folder, OLD)
            met += 1
    assert met == 5 * len(calls) >= 25


@pytest.mark.parametrize("name", WRITERS)
def test_a_kill_at_every_call_leaves_old_or_new_and_the_next_save_cleans_up(folder, name):
    writer = WRITERS[name]
    calls, found = calls_of(writer, folder), []
    before = files(folder)

    def save(at: int) -> None:
        with faults(folder, at, "kill"):
            writer.save(folder, NEW)

    for at in range(len(calls)):
        assert in_child(lambda at=at: save(at)) == -signal.SIGKILL
        found.append(writer.read(folder))
        writer.save(folder, NEW)
        assert writer.read(folder) == NEW
        left = [path for path in set(files(folder)) - set(before) if (folder / path).stat().st_size]
        assert left == [], (at, calls[at])
        writer.save(folder, OLD)
    assert in_child(lambda: save(len(calls))) == 0 and writer.read(folder) == NEW
    assert found == [OLD] * (calls.index("replace") + 1) + [NEW] * (len(calls) - calls.index("replace") - 1)


def test_a_folder_that_vanishes_at_any_call_is_named_or_made_again(folder):
    writer = WRITERS["checkpoint"]
    for at in range(len(calls_of(writer, folder))):
        try:
            with faults(folder, at, "vanish"):
                writer.save(folder, NEW)
        except OSError as error:
            assert error.errno == errno.ENOENT and str(folder) in str(error) and "make room" in str(error)
            assert not folder.exists() or files(folder) == []
        writer.save(folder, NEW)
        assert writer.read(folder) == NEW and files(folder) == ["x.pt"]


@pytest.fixture
def outside() -> Iterator[Path]:
    """A folder that another user can reach; pytest's own are its user's alone."""
    with tempfile.TemporaryDirectory() as there:
        os.chmod(there, 0o755)
        (Path(there) / "out").mkdir()
        yield Path(there) / "out"


def test_a_folder_that_may_not_be_written_is_named_with_the_cure(outside):
    """For real: without the superuser's rights, which know no read-only folder."""
    folder = outside
    WRITERS["checkpoint"].save(folder, OLD)
    said = folder.parent / "said"
    said.touch()
    said.chmod(0o666)
    folder.chmod(0o555)

    def save() -> None:
        if os.getuid() == 0:
            os.setuid(65534)
        try:
            WRITERS["checkpoint"].save(folder, NEW)
        except OSError as error:
            said.write_text(f"{error.errno} {error}")

    assert in_child(save) == 0
    folder.chmod(0o755)
    assert said.read_text().startswith(str(errno.EACCES)), said.read_text()
    assert str(folder) in said.read_text() and said.read_text().endswith("make room")
    assert WRITERS["checkpoint"].read(folder) == OLD and files(folder) == ["x.pt"]


def test_a_record_of_more_seeds_is_kept_unless_forced(folder):
    five = dataclasses.replace(RECORD, seeds=(0, 1, 2, 3, 4), metrics={"accuracy": Metric((0.5,) * 5)})
    path = records.save(five)
    with pytest.warns(UserWarning, match=r"smoke\.json keeps its 5 seeds, this run has 2: `--force`"):
        records.save(RECORD)
    assert records.load("amc/toy/x") == five
    records.save(RECORD, force=True)
    assert records.load("amc/toy/x") == RECORD
    path.write_text("{")  # damaged is as good as none
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        records.save(dataclasses.replace(RECORD, seeds=(0,)))


def test_a_lock_makes_the_second_wait_and_dies_with_its_holder(folder, capfd):
    held, go = os.pipe(), os.pipe()

    def hold() -> None:
        with locked(folder):
            os.write(held[1], b"x")
            os.read(go[0], 1)

    child = os.fork()
    if child == 0:
        hold()
        os._exit(0)
    os.read(held[0], 1)
    entered: list[str] = []

    def wait() -> None:
        with locked(folder, "somebody is at it"):
            entered.append("in")

    thread = threading.Thread(target=wait)
    thread.start()
    thread.join(0.3)
    assert entered == []
    os.kill(child, signal.SIGKILL)  # no litter, no lock that outlives its holder
    os.waitpid(child, 0)
    thread.join(20)
    assert entered == ["in"] and capfd.readouterr().err == "somebody is at it\n"
    assert list(folder.iterdir()) == []


def test_no_lock_is_no_fault_where_the_system_has_none(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "fcntl", None)
    with locked(folder), locked(folder):
        pass


def test_every_test_named_on_the_page_of_promises_exists():
    here = Path(__file__).parent
    rows = [line for line in (here.parent / "book" / "what_can_go_wrong.md").read_text().splitlines() if "| " in line]
    named = [re.fullmatch(r"\|.+\|.+\| `(test_\w+\.py)::(test_\w+)` \|", line) for line in rows]
    assert [r for r, m in zip(rows, named) if m is None and not r.startswith("| What happens")] == []
    found = [match.groups() for match in named if match]
    assert len(found) >= 30
    lost = [f"{file}::{test}" for file, test in found if f"def {test}(" not in (here / file).read_text()]
    assert lost == []
