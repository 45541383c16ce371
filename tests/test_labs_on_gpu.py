"""The labs at profile colab on a GPU that is rehearsed: every code cell, with a few small images, on `stand_in_cuda`.

Three of them by default, a minute of computing; labs 1 to 7, three minutes, where ``XAI_COURSE_TORTURE=long`` asks. Lab
8 is left out: its networks are large, and its recipes run on the CPU wherever they are opened.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tools import notebook_paths

HERE = Path(__file__)
CHOSEN = "1234567" if os.environ.get("XAI_COURSE_TORTURE") == "long" else "356"
LABS = [path for path in notebook_paths() if path.stem[0] in CHOSEN]


@pytest.mark.parametrize("path", LABS, ids=lambda path: path.stem)
def test_a_lab_runs_on_a_gpu(path):
    here = os.pathsep.join([str(HERE.parents[1]), str(HERE.parent)])
    environment = {**os.environ, "PYTHONPATH": here, "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
    done = subprocess.run(
        [sys.executable, HERE, path], env=environment, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert "cuda" in done.stdout.splitlines()[-1]


def run(path: str) -> None:
    """All cells of one lab in this process, which has the stand-in for a GPU."""
    import small_labs
    import stand_in_cuda

    stand_in_cuda.install()
    small_labs.hurry()
    import xai_course

    names = {"xai_course": xai_course}
    for at, source in enumerate(small_labs.cells(Path(path), "colab")):
        exec(compile(source, f"cell {at} of {path}", "exec"), names)
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(f"{xai_course.setup().device}: {used.ru_utime + used.ru_stime:.0f} s of computing")


if __name__ == "__main__":
    run(sys.argv[1])
