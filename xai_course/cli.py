"""The command ``xai-course``: list and run experiments, print tables and the ledger."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence


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
    parser = argparse.ArgumentParser(
        prog="xai-course", description="Explanations as a training signal: run and report."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    listing = commands.add_parser("list", help="experiments, and which of them have records")
    listing.add_argument("pattern", nargs="?", default="*", help="shell pattern, for example 'hnc/table1/*'")
    listing.set_defaults(act=_list)

    run = commands.add_parser("run", help="train, measure and write run records")
    run.add_argument("pattern", help="name of an experiment, or a shell pattern")
    run.add_argument("--preset", default="smoke", choices=["smoke", "colab", "paper"])
    run.add_argument("--seeds", default=3, type=int, metavar="N", help="seeds 0 .. N-1 (default 3)")
    run.add_argument("--workers", default=1, type=int, help="processes on this machine, one seed each")
    run.add_argument("--fresh", action="store_true", help="forget finished and interrupted seeds")
    run.add_argument("--progress", action="store_true", help="show a progress bar per epoch (one worker only)")
    run.set_defaults(act=_run)

    report = commands.add_parser("report", help="tables of one paper: its numbers and ours")
    report.add_argument("paper")
    report.add_argument("item", nargs="?", help="one table or figure, for example table1")
    report.set_defaults(act=_report)

    ledger = commands.add_parser("ledger", help="one line per entry; ends non-zero where code or test is missing")
    ledger.set_defaults(act=_ledger)
    return parser


def _list(options: argparse.Namespace) -> int:
    from .runs import records
    from .runs.catalogue import matching

    for experiment in matching(options.pattern):
        found = ", ".join(f"{p} ({r.seeds_text})" for p, r in records.available(experiment.name).items())
        print(f"{experiment.name:<48} {experiment.title}  [{found or 'no record'}]")
    return 0


def _run(options: argparse.Namespace) -> int:
    from .runs.catalogue import matching
    from .runs.sweep import sweep

    if options.seeds < 1:
        raise ValueError(f"--seeds must be at least 1, got {options.seeds}")
    chosen = [experiment.name for experiment in matching(options.pattern)]
    settings = {"resume": not options.fresh, "quiet": not options.progress, "workers": options.workers}
    for record in sweep(chosen, options.preset, range(options.seeds), **settings):
        shown = "  ".join(f"{name} {metric}" for name, metric in record.metrics.items())
        print(f"{record.experiment} [{record.preset}, {record.seeds_text}]  {shown}", flush=True)
    return 0


def _report(options: argparse.Namespace) -> int:
    from .runs.report import report_markdown

    print(report_markdown(options.paper, options.item))
    return 0


def _ledger(options: argparse.Namespace) -> int:
    from .runs.ledger import entries, gaps, summary

    bad = 0
    for entry in entries():
        missing = gaps(entry)
        bad += bool(missing)
        print(f"{entry.status if not missing else 'GAP':<9} {entry.paper:<15} {entry.kind} {entry.where}: {entry.what}")
        for line in missing:
            print(f"          {line}")
    print(", ".join(f"{count} {status}" for status, count in sorted(summary().items())) + f", {bad} with a gap")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
