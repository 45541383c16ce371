"""Many runs on several processes or a cluster: every record exactly once, killed runs resumed and not restarted."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
import toys

from xai_course.runs import sweep


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """Toy experiments that worker processes find too: they import the module named by the catalogue."""
    monkeypatch.setenv("XAI_COURSE_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("XAI_COURSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    monkeypatch.setenv("XAI_COURSE_TOY_LOG", str(tmp_path / "log"))
    monkeypatch.setattr(sweep, "find", toys.find)
    monkeypatch.setattr(sweep, "_one", toys.one)
    return tmp_path


def steps(folder: Path) -> dict[str, list[int]]:
    """Per run, the optimiser steps that were ever begun, in order."""
    return {p.name: [int(line) for line in p.read_text().split()] for p in sorted((folder / "log").iterdir())}


def test_a_process_pool_gives_what_one_process_gives(lab, monkeypatch):
    one = {r.experiment: r for r in sweep.sweep(list(toys.TOYS), seeds=(0, 1))}
    monkeypatch.setenv("XAI_COURSE_CACHE", str(lab / "other cache"))
    two = {r.experiment: r for r in sweep.sweep(list(toys.TOYS), seeds=(0, 1), workers=2)}
    assert one.keys() == two.keys() == set(toys.TOYS)
    assert all(one[name].metrics == two[name].metrics for name in one)


def test_a_cluster_worker_killed_in_mid_run_is_resumed_and_every_record_comes_once(lab):
    pytest.importorskip("ray", reason="Ray is not installed (pip install ray)")
    found, killed = [], []

    def kill_the_first_worker():
        deadline = time.monotonic() + 100
        while time.monotonic() < deadline and not killed:
            for path in (lab / "log").glob("*.pid") if (lab / "log").exists() else ():
                run = path.with_suffix("")
                if run.exists() and len(run.read_text().split()) >= 3:
                    os.kill(int(path.read_text()), signal.SIGKILL)
                    killed.append(run.name)
                    return
            time.sleep(0.02)

    import threading

    hunter = threading.Thread(target=kill_the_first_worker)
    hunter.start()
    for record in sweep.sweep(list(toys.TOYS), seeds=(0, 1), workers=2, cluster="local"):
        found.append(record.experiment)
    hunter.join()
    assert sorted(found) == sorted(toys.TOYS) and killed
    assert {p.parent.name for p in (lab / "results").rglob("*.json")} == {n.split("/")[-1] for n in toys.TOYS}
    begun = {name: s for name, s in steps(lab).items() if not name.endswith(".pid")}
    assert len(begun) == 4 and all(set(s) == set(range(toys.STEPS)) for s in begun.values())
    again = begun[killed[0]]
    assert again.count(0) == 1 and len(again) <= toys.STEPS + 1  # it went on where it was: at most one step twice


def test_a_missing_ray_is_one_clear_message(lab, monkeypatch):
    import builtins

    real = builtins.__import__
    monkeypatch.setattr(
        builtins, "__import__", lambda name, *a, **k: _refuse() if name == "ray" else real(name, *a, **k)
    )
    with pytest.raises(RuntimeError, match=r"needs Ray: pip install ray"):
        list(sweep.sweep(list(toys.TOYS), cluster="local"))


def _refuse():
    raise ImportError("ray")


def test_no_worker_is_refused(lab):
    with pytest.raises(ValueError, match="workers must be at least 1, got 0"):
        next(sweep.sweep(list(toys.TOYS), workers=0))
