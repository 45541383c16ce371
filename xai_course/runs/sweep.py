"""Many runs: every experiment with every seed, on a pool of local processes; what is finished is never run again."""

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence

from .catalogue import find
from .experiment import collect, run_seed
from .records import Record


def sweep(
    names: Sequence[str],
    preset: str = "smoke",
    seeds: Sequence[int] = (0, 1, 2),
    *,
    workers: int = 1,
    cluster: str | None = None,
    resume: bool = True,
    quiet: bool = True,
    force: bool = False,
) -> Iterator[Record]:
    """Records of all ``names`` as they become complete. A sweep that is stopped goes on where it was when called again.

    Args:
        workers: processes, each training one seed at a time on one thread; 1 trains in this process.
        cluster: address of a Ray cluster ("auto" for the one this machine belongs to, "local" to start one with
            ``workers`` slots here); all machines must share the cache folder. None uses no cluster.
        force: replace records of more seeds too.

    Raises:
        ValueError: an unknown name or preset, before anything is trained; or no worker.
        RuntimeError: some runs failed; raised after all others have ended, naming each.
    """
    if workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    chosen = {name: find(name) for name in names}
    for experiment in chosen.values():
        experiment.preset(preset)
    jobs = [(name, preset, seed, resume, quiet) for name in names for seed in seeds]
    finished: dict[str, dict[int, dict]] = defaultdict(dict)
    failed = []
    engine = work(jobs, workers) if cluster is None else on_cluster(jobs, workers, cluster)
    for (name, _, seed, *_), result in engine:
        if isinstance(result, BaseException):  # one bad run must not cost the others
            failed.append(f"{name} seed {seed}: {type(result).__name__}: {result}")
            continue
        finished[name][seed] = result
        if len(finished[name]) == len(seeds):
            yield collect(chosen[name], preset, seeds, [finished[name][s] for s in seeds], force=force)
    if failed:
        raise RuntimeError(f"{len(failed)} of {len(jobs)} runs failed\n" + "\n".join(failed))


def work(jobs: list[tuple], workers: int) -> Iterator[tuple[tuple, dict | BaseException]]:
    """Every job (name, preset, seed, resume, quiet) with its result, or with what it raised, as they end."""
    if workers == 1:
        for job in jobs:
            try:
                yield job, _one(job)
            except Exception as error:
                yield job, error
        return
    from concurrent.futures import ProcessPoolExecutor, as_completed
    from multiprocessing import get_context

    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_one_thread) as pool:
        futures = {pool.submit(_one, job): job for job in jobs}
        for future in as_completed(futures):
            yield futures[future], future.exception() or future.result()


def on_cluster(jobs: list[tuple], workers: int, address: str) -> Iterator[tuple[tuple, dict | BaseException]]:
    """The same on Ray (extra ``cluster``). A run whose worker dies is started again and goes on from its checkpoint.

    Raises:
        RuntimeError: Ray is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise RuntimeError("a cluster needs Ray: pip install ray") from error
    local = {"num_cpus": workers, "include_dashboard": False} if address == "local" else {}
    ray.init(address=None if address == "local" else address, log_to_driver=False, **local)
    try:
        remote = ray.remote(num_cpus=1, max_retries=5)(_one)
        waiting = {remote.remote(job): job for job in jobs}
        while waiting:
            (ready,), _ = ray.wait(list(waiting), num_returns=1)
            job = waiting.pop(ready)
            try:
                result = ray.get(ready)
            except Exception as error:
                result = error
            yield job, result
    finally:
        ray.shutdown()


def _one(job: tuple) -> dict:
    name, preset, seed, resume, quiet = job
    return run_seed(find(name), preset, seed, resume=resume, quiet=quiet)


def _one_thread() -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch

    torch.set_num_threads(1)
