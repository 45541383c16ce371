"""Execute notebooks/*.ipynb with papermill into _build/executed, reusing what nothing has changed.

A stored result is reused while everything that can alter its outputs is the same: the code cells with their tags, the
parameters, the package, its data and the versions of what computes. An edit of the prose is merged into the stored
result without running anything. One notebook that fails does not stop the others; the exit status says so at the end.
"""

from __future__ import annotations

import argparse
import ast
import concurrent.futures
import copy
import datetime
import hashlib
import json
import multiprocessing
import os
import platform
import re
import resource
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from tools import BUILD, ROOT, building, notebook_paths, write_if_changed

VERSIONS = ("torch", "torchvision", "numpy", "scikit-learn", "scikit-image", "matplotlib", "ipywidgets", "ipykernel")
NOT_IMPORTED = {"xai_course/cli.py", "xai_course/runs/estimate.py"}  # a notebook cannot reach these
KEPT_RESULTS = 3  # stored results per notebook
BUDGET = re.compile(r"profile: (\w+) \| time and memory: (.+)")  # the line of xai_course.setup()


class Job(NamedTuple):
    """One notebook to execute; paths as text so that a worker process gets plain data."""

    path: str
    out: str
    cache: str
    parameters: dict
    shared: str
    timeout: int


class Outcome(NamedTuple):
    name: str
    state: str  # "cached" | "ran" | "FAILED: why"
    seconds: float

    @property
    def failed(self) -> bool:
        return self.state.startswith("FAILED")


def shared_digest(root: Path = ROOT) -> str:
    """A hash of what all notebooks depend on: Python, the computing packages, xai_course and its data."""
    digest = hashlib.sha256(platform.python_version().encode())
    for name in VERSIONS:
        try:
            digest.update(f"{name}=={metadata.version(name)}".encode())
        except metadata.PackageNotFoundError:
            digest.update(f"{name} absent".encode())
    files = [*(root / "xai_course").rglob("*.py"), *(root / "xai_course").rglob("*.pyi"), *(root / "data").rglob("*")]
    for path in sorted(files):
        name = path.relative_to(root).as_posix()
        if path.is_file() and name not in NOT_IMPORTED and not name.startswith("data/ledger/"):
            digest.update(name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def notebook_digest(notebook: dict, parameters: dict, shared: str) -> str:
    """The key of a stored result: code and tags, parameters, and everything in ``shared``."""
    code = [(text(cell), cell["metadata"].get("tags", [])) for cell in code_cells(notebook)]
    return hashlib.sha256(json.dumps([code, parameters, shared], sort_keys=True).encode()).hexdigest()[:24]


def text(cell: dict) -> str:
    """A cell's source; the format allows a string or a list of lines."""
    return cell["source"] if isinstance(cell["source"], str) else "".join(cell["source"])


def code_cells(notebook: dict) -> list[dict]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def merge(source: dict, done: dict) -> dict:
    """The source's cells with the outputs of the stored run; the cell that papermill injected is left out."""
    stored = [c for c in code_cells(done) if "injected-parameters" not in c["metadata"].get("tags", [])]
    for cell, run in zip(code_cells(source), stored, strict=True):
        cell["outputs"], cell["execution_count"] = run["outputs"], run["execution_count"]
    for key in ("widgets", "xai_course", "language_info"):
        if key in done["metadata"]:
            source["metadata"][key] = done["metadata"][key]
    return source


def check_source(notebook: dict, parameters: dict) -> str:
    """Why this notebook should not be run, or ''. papermill itself only warns about a parameter it does not find."""
    if any(cell.get("outputs") for cell in code_cells(notebook)):
        return "the committed notebook has outputs; run nbstripout on it"
    known = set()
    for cell in code_cells(notebook):
        if "parameters" in cell["metadata"].get("tags", []):
            known = {n.id for n in ast.walk(ast.parse(text(cell))) if isinstance(n, ast.Name)}
    unknown = sorted(set(parameters) - known)
    return f"unknown parameters {unknown}, this notebook has {sorted(known)}" if unknown else ""


def execute(job: Job, target: Path) -> None:
    """Run one notebook into ``target``; on an error the half-executed copy lies in ``failed`` beside the results."""
    import papermill  # costs over a second: only where something is to be run

    labs = tempfile.TemporaryDirectory(prefix="labs-")  # a page shows what training gave and took, so it must train
    os.environ.update(OMP_NUM_THREADS="1", PYTHONHASHSEED="0", XAI_COURSE_LABS=labs.name, XAI_COURSE_PAGE="1")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    source, target_dir = Path(job.path), target.parent
    target_dir.mkdir(parents=True, exist_ok=True)
    part = target.with_suffix(".part.ipynb")
    began = time.time()
    options = {"kernel_name": "python3", "cwd": str(source.parent), "progress_bar": False, "log_output": False}
    limits = {"execution_timeout": job.timeout, "start_timeout": 300}
    try:
        papermill.execute_notebook(str(source), str(part), parameters=job.parameters, **options, **limits)
    except BaseException:
        failed = target_dir / "failed" / source.name
        failed.parent.mkdir(exist_ok=True)
        if part.exists():
            part.replace(failed)
        raise
    finally:
        labs.cleanup()
    done = json.loads(part.read_text("utf-8"))
    done["metadata"]["xai_course"] = {
        "executed": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "seconds": round(time.time() - began),
        **cost(),
        **budget(done),
        "python": platform.python_version(),
        "torch": metadata.version("torch"),
    }
    part.write_text(json.dumps(done, ensure_ascii=False), "utf-8")
    part.replace(target)


def cost() -> dict[str, int]:
    """What the kernel took that this process has run and waited for (each notebook has a process of its own)."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    unit = 2**20 if platform.system() == "Darwin" else 2**10
    return {"cpu_seconds": round(used.ru_utime + used.ru_stime), "memory_mb": round(used.ru_maxrss / unit)}


def budget(notebook: dict) -> dict[str, str]:
    """Profile and budget as the notebook's cells have said them; the last word counts."""
    streams = [o for cell in code_cells(notebook) for o in cell["outputs"] if o["output_type"] == "stream"]
    said = [match for o in streams for match in BUDGET.findall("".join(o["text"]))]
    return {"profile": said[-1][0], "budget": said[-1][1]} if said else {}


def run_one(job: Job) -> Outcome:
    """Bring one notebook up to date in the output folder."""
    began, path, cache = time.time(), Path(job.path), Path(job.cache)
    source = json.loads(path.read_text("utf-8"))
    if problem := check_source(source, job.parameters):
        return Outcome(path.name, f"FAILED: {problem}", 0.0)
    stored = cache / f"{path.stem}-{notebook_digest(source, job.parameters, job.shared)}.ipynb"
    merged, state = reused(source, stored), "cached"
    if merged is None:
        try:
            execute(job, stored)
            merged, state = merge(source, json.loads(stored.read_text("utf-8"))), "ran"
        except Exception as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            return Outcome(path.name, "FAILED: " + "\n  ".join(lines[-12:]), time.time() - began)
    body = json.dumps(merged, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    write_if_changed(Path(job.out) / path.name, body.encode())
    older = sorted(cache.glob(f"{path.stem}-*.ipynb"), key=lambda p: p.stat().st_mtime, reverse=True)
    for old in older[KEPT_RESULTS:]:
        if old != stored:
            old.unlink()
    return Outcome(path.name, state, time.time() - began)


def reused(source: dict, stored: Path) -> dict | None:
    """The source with the stored outputs; None where nothing is stored, or it is damaged, which is the same."""
    try:
        return merge(copy.deepcopy(source), json.loads(stored.read_text("utf-8")))
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


def quiet_kernels(log: str) -> None:
    """Give a worker, and the kernels it starts, a file for its stderr: each kernel greets with a warning of its own."""
    Path(log).parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab") as file:
        os.dup2(file.fileno(), 2)


def run_all(jobs: list[Job], workers: int) -> list[Outcome]:
    """All notebooks, ``workers`` at a time; a worker that dies counts as a failure of its notebook."""
    outcomes = []
    context = multiprocessing.get_context("spawn")
    log = (str(Path(jobs[0].cache) / "kernels.log"),)
    with concurrent.futures.ProcessPoolExecutor(workers, context, quiet_kernels, log, max_tasks_per_child=1) as pool:
        futures = {pool.submit(run_one, job): job for job in jobs}
        for future in concurrent.futures.as_completed(futures):
            try:
                outcome = future.result()
            except Exception as error:
                outcome = Outcome(Path(futures[future].path).name, f"FAILED: {type(error).__name__}: {error}", 0.0)
            print(f"{outcome.name}: {outcome.state} ({outcome.seconds:.1f} s)", flush=True)
            outcomes.append(outcome)
    return outcomes


def literal(value: str) -> object:
    """A parameter from the command line: a Python literal where it reads as one, else text."""
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return value


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: all under notebooks/")
    parser.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="set a parameter")
    parser.add_argument("-j", type=int, default=min(2, os.cpu_count() or 1), metavar="WORKERS")
    parser.add_argument("--timeout", type=int, default=900, help="seconds per cell")
    parser.add_argument("--out", type=Path, default=BUILD / "executed")
    parser.add_argument("--cache", type=Path, default=BUILD / "nbcache")
    given = parser.parse_args(arguments)
    paths = [path.resolve() for path in given.notebooks] or notebook_paths()
    parameters, shared = {name: literal(value) for name, value in given.p}, shared_digest()
    jobs = [Job(str(p), str(given.out), str(given.cache), parameters, shared, given.timeout) for p in paths]
    if not given.notebooks:  # a result whose notebook has gone must not reach the book
        for stale in {p.name for p in given.out.glob("*.ipynb")} - {p.name for p in paths}:
            (given.out / stale).unlink()
    outcomes = run_all(jobs, given.j) if jobs else []
    bad = sum(outcome.failed for outcome in outcomes)
    print(f"notebooks: {len(outcomes) - bad} passed, {bad} failed")
    return 1 if bad else 0


if __name__ == "__main__":
    with building():
        sys.exit(main())
