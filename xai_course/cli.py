"""The command ``xai-course``: list and run experiments, print their tables."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NoReturn

from . import __version__

if TYPE_CHECKING:
    from .runs.experiment import Experiment
    from .runs.records import Record

__all__ = ["main"]
ASK_ABOVE = 50  # trainings that a run starts without asking


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, as for every other mistake."""
        self.exit(2, f"xai-course: {message} (see {self.prog} --help)\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status. A wrong name or a damaged file is one line on stderr, not a traceback."""
    options = _parser().parse_args(arguments)
    try:
        return options.act(options)
    except BrokenPipeError:  # the reader of a pipe has seen enough
        return 0
    except (ValueError, OSError, RuntimeError) as error:
        print(f"xai-course: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("xai-course: stopped; finished seeds are kept, run the same command again to go on", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="xai-course", description="Explanations as a training signal: run and report.")
    parser.add_argument("--version", action="version", version=f"xai-course {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, act: Callable[[argparse.Namespace], int], what: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=what)
        made.set_defaults(act=act)
        return made

    presets = ["smoke", "cpu", "colab", "paper"]
    rows = "a paper (amc), a table (amc/table1), a row, or a shell pattern ('hnc/table1/*')"

    listing = command("list", _list, "experiments, and which of them have records")
    listing.add_argument("pattern", nargs="?", default="*", help=rows)
    listing.add_argument("--preset", choices=presets, help="only rows declared at it; --missing looks at it alone")
    listing.add_argument("--missing", action="store_true", help="only rows without a record")
    listing.add_argument("--data", metavar="NAME", help="only rows on this data set, for example cifar10")
    listing.add_argument("--json", action="store_true", help="as JSON, with printed numbers and needs")

    run = command("run", _run, "train, measure and write run records")
    run.add_argument("pattern", help=rows)
    run.add_argument("--preset", default="smoke", choices=presets)
    run.add_argument("--seeds", default=3, type=int, metavar="N", help="how many seeds (default 3)")
    run.add_argument("--from", default=0, type=int, metavar="SEED", dest="first", help="the first seed (default 0)")
    run.add_argument("--workers", default=1, type=int, help="processes on this machine, one seed each")
    run.add_argument("--cluster", metavar="ADDRESS", help='run on Ray: an address, "auto", or "local"')
    run.add_argument("--fresh", action="store_true", help="forget finished and interrupted seeds")
    run.add_argument("--force", action="store_true", help="replace a record of more seeds by this run's")
    run.add_argument("--progress", action="store_true", help="show a progress bar per epoch (one worker only)")
    run.add_argument("--dry-run", action="store_true", help="only say how many trainings it is and their time")
    run.add_argument("--yes", action="store_true", help=f"do not ask before more than {ASK_ABOVE} trainings")

    plan = command("plan", _plan, "hours, memory and batch of rows on a GPU, estimated without one")
    plan.add_argument("pattern", help=rows)
    plan.add_argument("--gpu", required=True, metavar="NAME", help="t4, l4, a100, h100 or h200")
    plan.add_argument("--preset", default="colab", choices=presets)

    report = command("report", _report, "tables of one paper: its numbers and ours")
    report.add_argument("paper")
    report.add_argument("items", nargs="*", help="only these tables or figures, for example table1")

    kept = command("records", _records, "what the records took, by paper, or which of them are stale")
    kept.add_argument("--stale", action="store_true", help="those of other code or settings; exit status 1 if any")
    kept.add_argument("--recheck", metavar="PATTERN", help="train one seed of each stale one again and compare")
    said = command("claims", _claims, "comparisons that the book makes, judged; exit status 1 if one fails")
    said.add_argument("pattern", nargs="?", default="*", help="a page (bench) or a shell pattern ('bench/shifted_*')")

    completion = command("completion", _completion, "print what makes a shell complete this command")
    completion.add_argument("shell", choices=["bash", "zsh"])
    return parser


def _list(options: argparse.Namespace) -> int:
    from .runs import records
    from .runs.catalogue import matching
    from .runs.plan import beyond, promised

    rows = matching(options.pattern)
    if options.data:
        rows = _on(options.data.lower(), rows)
    about = []
    for experiment in rows:
        found = records.available(experiment.name)
        there = options.preset in found if options.preset else found
        if (not options.preset or options.preset in experiment.presets) and not (options.missing and there):
            about.append((experiment, found))
    if options.json:
        print(json.dumps([_as_data(*row) for row in about], indent=1, ensure_ascii=False))
        return 0
    for experiment, found in about:
        seeds = ", ".join(f"{preset} ({record.seeds_text})" for preset, record in found.items())
        broken = f"  ! {beyond()}" if options.preset == "colab" and not promised(experiment) else ""
        print(f"{experiment.name:<48} {experiment.title}  [{seeds or 'no record'}]{broken}")
    return 0


def _on(data: str, rows: list[Experiment]) -> list[Experiment]:
    """The rows whose data come from functions that name ``data``, such as ``noisy_cifar100`` for cifar100."""
    from .identity import identity
    from .runs.catalogue import experiments, unknown

    def sources(experiment: Experiment) -> list[str]:
        return re.findall(r"xai_course\.[\w.]*\.(\w+)", str(identity(experiment.data)))

    known = {name for experiment in experiments().values() for name in sources(experiment)}
    named = {name for name in known if re.search(rf"(?<![a-z0-9]){re.escape(data)}(?![a-z0-9])", name)}
    if not named:
        raise ValueError(unknown("data set", data, known))
    return [experiment for experiment in rows if named & set(sources(experiment))]


def _as_data(experiment: Experiment, found: dict[str, Record]) -> dict:
    seeds = {preset: list(record.seeds) for preset, record in found.items()}
    parts = {"name": experiment.name, "title": experiment.title, "presets": list(experiment.presets), "records": seeds}
    return {**parts, "needs": experiment.needs, "reported": dict(experiment.reported)}


def _run(options: argparse.Namespace) -> int:
    from .runs.estimate import plan_text
    from .runs.plan import beyond, promised
    from .runs.sweep import sweep

    if options.seeds < 1 or options.first < 0:
        raise ValueError(f"--seeds must be >= 1 and --from >= 0, got {options.seeds} and {options.first}")
    runnable = _runnable(options)
    if options.preset == "colab" and (there := [row.name for row in runnable if not promised(row)]):
        named = ", ".join(there[:3]) + ", ..." * (len(there) > 3)
        say = f"xai-course plan '{options.pattern}' --gpu t4 says how much"
        print(f"{len(there)} of {len(runnable)} rows may take {beyond()} on a T4: {named}; {say}", file=sys.stderr)
    many = len(runnable) * options.seeds > ASK_ABOVE
    if options.dry_run or many:
        plan = plan_text(runnable, options.preset, options.seeds)
        print(plan, file=sys.stdout if options.dry_run else sys.stderr)
    if options.dry_run:
        return 0
    if many and not options.yes and sys.stdin.isatty() and input("Start them? [y/N] ").lower() not in ("y", "yes"):
        raise ValueError("nothing was started")
    for line in _on_this_gpu(runnable, options):
        print(line, file=sys.stderr)
    names, seeds = [experiment.name for experiment in runnable], range(options.first, options.first + options.seeds)
    settings = {"resume": not options.fresh, "force": options.force}
    settings |= {"quiet": not options.progress, "cluster": options.cluster}
    for record in sweep(names, options.preset, seeds, workers=options.workers, **settings):
        shown = "  ".join(f"{name} {metric}" for name, metric in record.metrics.items())
        print(f"{record.experiment} [{record.preset}, {record.seeds_text}]  {shown}", flush=True)
    return 0


def _runnable(options: argparse.Namespace) -> list[Experiment]:
    """The rows that the pattern and the preset name; says how many lack the preset, raises where all do."""
    from .runs.catalogue import matching

    rows = matching(options.pattern)
    runnable = [experiment for experiment in rows if options.preset in experiment.presets]
    if not runnable:
        rows[0].preset(options.preset)  # says which presets there are
    if len(runnable) < len(rows):
        print(f"{len(rows) - len(runnable)} rows are left out: they have no preset {options.preset}", file=sys.stderr)
    return runnable


def _on_this_gpu(rows: list[Experiment], options: argparse.Namespace) -> list[str]:
    """The lines of ``plan`` for the first rows on the GPU that is here; none on a CPU or another card."""
    import torch

    from .runs.plan import known, plan_line

    name = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    if not known(name):
        return []
    others = f"{len(rows) - 3} more: xai-course plan '{options.pattern}' --gpu {known(name)} --preset {options.preset}"
    return [*(plan_line(row, options.preset, name) for row in rows[:3]), *[others] * (len(rows) > 3)]


def _plan(options: argparse.Namespace) -> int:
    from .runs.plan import card, plan_line

    card(options.gpu)
    for row in _runnable(options):
        print(plan_line(row, options.preset, options.gpu), flush=True)
    return 0


def _report(options: argparse.Namespace) -> int:
    from .runs.report import report_markdown

    print(report_markdown(options.paper, *options.items))
    return 0


def _records(options: argparse.Namespace) -> int:
    from .runs.provenance import recheck, spent_lines, stale_lines

    if options.recheck:
        other = 0
        for line in recheck(options.recheck):
            print(line, flush=True)
            other += not line.endswith("as recorded")
        return int(other > 0)
    lines = stale_lines() if options.stale else spent_lines()
    print("\n".join(lines or ["no stale record" if options.stale else "no records"]))
    return int(options.stale and bool(lines))


def _claims(options: argparse.Namespace) -> int:
    from .runs.claims import judge, matching

    verdicts = {claim.id: judge(claim) for claim in matching(options.pattern)}
    for name, found in verdicts.items():
        print(f"{'holds' if found.holds else 'FAILS'}  {name:<50} {found.why or found.text}")
    return int(not all(found.holds for found in verdicts.values()))


def _completion(options: argparse.Namespace) -> int:
    try:
        import shtab
    except ImportError:
        raise RuntimeError("completion needs shtab: pip install shtab") from None
    print(shtab.complete(_parser(), options.shell))
    return 0


if __name__ == "__main__":
    sys.exit(main())
