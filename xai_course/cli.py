"""The command ``xai-course``: list and run experiments, print their tables."""

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
    run.add_argument("--seeds", default=3, type=int, metavar="N", help="how many seeds (default 3)")
    run.add_argument("--from", default=0, type=int, metavar="SEED", dest="first", help="the first seed (default 0)")
    run.add_argument("--workers", default=1, type=int, help="processes on this machine, one seed each")
    run.add_argument("--cluster", metavar="ADDRESS", help='run on Ray: an address, "auto", or "local"')
    run.add_argument("--fresh", action="store_true", help="forget finished and interrupted seeds")
    run.add_argument("--progress", action="store_true", help="show a progress bar per epoch (one worker only)")
    run.set_defaults(act=_run)

    report = commands.add_parser("report", help="tables of one paper: its numbers and ours")
    report.add_argument("paper")
    report.add_argument("items", nargs="*", help="only these tables or figures, for example table1")
    report.set_defaults(act=_report)
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

    if options.seeds < 1 or options.first < 0:
        raise ValueError(f"--seeds must be >= 1 and --from >= 0, got {options.seeds} and {options.first}")
    chosen = [experiment.name for experiment in matching(options.pattern)]
    settings = {"resume": not options.fresh, "quiet": not options.progress, "workers": options.workers}
    settings["cluster"] = options.cluster
    seeds = range(options.first, options.first + options.seeds)
    for record in sweep(chosen, options.preset, seeds, **settings):
        shown = "  ".join(f"{name} {metric}" for name, metric in record.metrics.items())
        print(f"{record.experiment} [{record.preset}, {record.seeds_text}]  {shown}", flush=True)
    return 0


def _report(options: argparse.Namespace) -> int:
    from .runs.report import report_markdown

    print(report_markdown(options.paper, *options.items))
    return 0


if __name__ == "__main__":
    sys.exit(main())
