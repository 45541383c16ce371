"""Training under kills, full disks and crowds: what goes on afterwards ends bit for bit as if nothing had happened.

Each scene runs in processes of its own. ``make torture`` does all calls and 1, 2 and 4 processes.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from faults import FAULTS, faults, in_child
from test_train import CrossEntropy, fit, net, shift, toy, weights

from tools import HOLDS, ROOT, building
from tools import run_notebooks as runner
from xai_course.preset import Preset

LONG = os.environ.get("XAI_COURSE_TORTURE") == "long"
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
PRESET = Preset(epochs=2, batch_size=16, schedule="one_cycle", lr=0.01, ema=0.9, checkpoint_seconds=0.0)
SHARED = Preset(epochs=2, batch_size=16, lr=0.01)
HERE = Path(__file__)


def start(*arguments: object, launcher: tuple[str, ...] = (), **environment: str) -> subprocess.Popen:
    """One of the scenes below, in a process of its own or in several."""
    own = {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "PYTHONPATH": f"{ROOT}{os.pathsep}{HERE.parent}"}
    command = [sys.executable, *launcher, str(HERE), *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env={**os.environ, **own, **environment}, **pipes)


def ended(process: subprocess.Popen, seconds: float = 240) -> str:
    out, err = process.communicate(timeout=seconds)
    assert process.returncode == 0, err[-3000:]
    return out


def trained(out: Path, kept: Path | None = None) -> None:
    method = CrossEntropy(net())
    fit(method, toy(), PRESET, out=out, augment=shift)
    if kept is not None:
        torch.save(weights(method), kept)


def scene_calls(out: Path) -> None:
    """A kill, then a fault of each kind, at every chosen call of a run that saves after each step."""
    with faults(out / "whole") as layer:
        trained(out / "whole", out / "expected.pt")
    expected, ends = torch.load(out / "expected.pt"), [i for i, name in enumerate(layer.calls) if name == "replace"]
    assert len(ends) == 6
    chosen = range(len(layer.calls)) if LONG else range(ends[0], ends[2] + 1)  # short: two saves
    for kind in ("kill", *FAULTS, "short") if LONG else ("kill", "full"):
        for at in chosen:
            folder, said = out / f"{kind}{at}", out / f"{kind}{at}.txt"

            def struck(folder=folder, said=said, at=at, kind=kind) -> None:
                try:
                    with faults(folder, at, kind):
                        trained(folder)
                except OSError as error:
                    said.write_text(str(error))

            status = in_child(struck)
            assert status == (-signal.SIGKILL if kind == "kill" else 0), (kind, layer.calls[at], status)
            if said.exists():
                message = said.read_text()
                assert str(folder) in message and "the same call goes on from the last whole" in message, message
            else:
                harmless = layer.calls[at] == "mkdir" or (kind, layer.calls[at]) == ("interrupted", "write")
                assert kind in ("kill", "short") or harmless, (kind, layer.calls[at])
            assert in_child(lambda folder=folder: trained(folder, out / "again.pt")) == 0
            assert torch.equal(torch.load(out / "again.pt"), expected), (kind, at, layer.calls[at])
            assert {p.name for p in folder.iterdir() if p.stat().st_size} == {"checkpoint.pt"}
            shutil.rmtree(folder)
            (out / "again.pt").unlink()
    print(len(chosen))


def scene_seed(out: Path) -> None:
    from toys import one

    print(json.dumps(one(("amc/toy/first", "smoke", 0, True, True))["metrics"]))


class Stop(Exception):
    pass


class Stopped(CrossEntropy):
    """Breaks off in the second epoch, in all processes."""

    def losses(self, batch, clock):
        if clock.epoch == 1:
            raise Stop
        yield from super().losses(batch, clock)


Stopped.__name__ = "CrossEntropy"


def scene_share(out: Path) -> None:
    """What these processes make of the checkpoints of others, and of their own."""
    world, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    refused = {}
    for other in sorted(out.glob("of*")):
        try:
            fit(CrossEntropy(net()), toy(), SHARED, out=other)
            refused[other.name] = "continued"
        except ValueError as error:
            refused[other.name] = str(error)
    with contextlib.suppress(Stop):
        fit(Stopped(net()), toy(), SHARED, out=out / f"of{world}")
    again, whole = CrossEntropy(net()), CrossEntropy(net())
    fit(again, toy(), SHARED, out=out / f"of{world}")
    fit(whole, toy(), SHARED)
    same = torch.equal(weights(again), weights(whole))
    (out / f"said{world}-{rank}.json").write_text(json.dumps({"refused": refused, "same": same}))


def test_a_run_killed_or_refused_at_every_call_ends_bit_for_bit_as_an_uninterrupted_one(tmp_path):
    calls = int(ended(start("calls", tmp_path), 900))
    assert calls >= (36 if LONG else 13)


@pytest.mark.parametrize("worlds", [(1, 2, 4, 2, 1) if LONG else (1, 2, 1)])
def test_a_checkpoint_of_another_number_of_processes_is_refused_in_words_by_all(tmp_path, worlds):
    made: set[int] = set()
    for world in worlds:
        launcher = ("-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={world}") if world > 1 else ()
        ended(start("share", tmp_path, launcher=launcher))
        for rank in range(world):
            said = json.loads((tmp_path / f"said{world}-{rank}.json").read_text())
            assert said["same"] and set(said["refused"]) == {f"of{n}" for n in made}
            for other in made - {world}:
                assert f"processes: {other} there, {world} here" in said["refused"][f"of{other}"]
                assert "choose another out, or resume=False to start over" in said["refused"][f"of{other}"]
            if world in made:
                assert said["refused"][f"of{world}"] == "continued"
        made.add(world)


def test_two_runs_of_one_seed_on_one_cache_give_one_result(tmp_path):
    places = {"XAI_COURSE_CACHE": str(tmp_path / "cache"), "XAI_COURSE_TOY_LOG": str(tmp_path / "log")}
    both = [start("seed", tmp_path, **places) for _ in range(2)]
    first, second = (ended(process) for process in both)
    assert first == second and json.loads(first)["loss"] > 0
    assert [path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()] == ["result.json"]


def test_two_builds_take_turns_and_what_a_build_starts_does_not_wait_for_it(tmp_path):
    log, build = tmp_path / "log", tmp_path / "_build"
    code = f"""
import subprocess, sys, time
from pathlib import Path
from tools import building
with building(Path({str(build)!r})), open({str(log)!r}, "a", buffering=1) as log:
    log.write("in\\n")
    inner = "from pathlib import Path; from tools import building as b\\nwith b(Path({str(build)!r})): print(1)"
    time.sleep(0.5)
    assert subprocess.run([sys.executable, "-c", inner], capture_output=True, timeout=100, check=True).stdout
    log.write("out\\n")
"""
    env = {key: value for key, value in os.environ.items() if key != HOLDS} | {"PYTHONPATH": str(ROOT)}
    options = {"env": env, "cwd": ROOT, "stderr": subprocess.PIPE, "text": True}
    both = [subprocess.Popen([sys.executable, "-c", code], **options) for _ in range(2)]
    said = [process.communicate(timeout=200)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert log.read_text().split() == ["in", "out", "in", "out"]
    assert sum("another build is at work in" in text for text in said) <= 1
    with building(build):
        assert os.environ[HOLDS] == str(build)
    assert HOLDS not in os.environ and list(build.iterdir()) == []
    assert "-m tools.lock $(MAKE)" in (ROOT / "Makefile").read_text()


def test_a_clock_that_runs_backwards_changes_nothing(tmp_path, monkeypatch):
    """Checkpoints from the future are continued, and a stored page that looks old is not thrown away for others."""
    ticks = iter(range(10**9, 0, -1000))
    monkeypatch.setattr(time, "time", lambda: float(next(ticks)))
    first, second = CrossEntropy(net()), CrossEntropy(net())
    with contextlib.suppress(Stop):
        fit(Stopped(net()), toy(), SHARED, out=tmp_path / "run")
    os.utime(tmp_path / "run" / "checkpoint.pt", (2**32, 2**32))
    history = fit(first, toy(), SHARED, out=tmp_path / "run")
    fit(second, toy(), SHARED)
    assert torch.equal(weights(first), weights(second)) and all(epoch["seconds"] >= 0 for epoch in history)
    lab = {"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    (tmp_path / "lab.ipynb").write_text(json.dumps(lab))
    cache = tmp_path / "cache"
    cache.mkdir()
    own = cache / f"lab-{runner.notebook_digest(lab, {}, 's')}.ipynb"
    for path, when in ((own, 0), *((cache / f"lab-{i}.ipynb", 2**32 + i) for i in range(5))):
        path.write_text(json.dumps(lab))
        os.utime(path, (when, when))
    job = runner.Job(str(tmp_path / "lab.ipynb"), str(tmp_path / "out"), str(cache), {}, "s", 10)
    assert runner.run_one(job).state == "cached" and own.exists() and len(list(cache.iterdir())) == 4


def test_an_output_folder_that_vanishes_is_made_again(tmp_path):
    class Vanishes(CrossEntropy):
        def losses(self, batch, clock):
            shutil.rmtree(tmp_path / "run", ignore_errors=True)
            yield from super().losses(batch, clock)

    Vanishes.__name__ = "CrossEntropy"
    method, whole = Vanishes(net()), CrossEntropy(net())
    fit(method, toy(), PRESET, out=tmp_path / "run", augment=shift)
    fit(whole, toy(), PRESET, augment=shift)
    assert torch.equal(weights(method), weights(whole)) and (tmp_path / "run" / "checkpoint.pt").exists()


def test_a_file_where_the_folder_should_be_is_named(tmp_path):
    (tmp_path / "run").write_text("mine")
    with pytest.raises(OSError, match=r"checkpoint\.pt cannot be written to .*run .*choose another out") as told:
        fit(CrossEntropy(net()), toy(), PRESET, out=tmp_path / "run")
    assert told.value.errno in (errno.EEXIST, errno.ENOTDIR) and (tmp_path / "run").read_text() == "mine"


if __name__ == "__main__":
    torch.set_num_threads(1)
    globals()[f"scene_{sys.argv[1]}"](Path(sys.argv[2]))
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
