"""sousaphone report RUN ... [--output DIR] [--compare OTHER]: write reports of runs, or compare one with another."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from sousaphone.cli.command import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, Parser, prepare_process, run_command
from sousaphone.config import SEARCH
from sousaphone.errors import UserError
from sousaphone.planning.job import Job
from sousaphone.runs import learning_rates

_DESCRIPTION = """\
Write the report of a run that launch.py began, finished or not: every planned trial is one row, whatever became of it.

  summary_report.md      the verdict, the table, what failed, what it does not show
  report.html            the same on one self-contained page, with interactive charts and clips to listen to
  comparison_table.csv   one row a trial, every number
  epochs.csv             one row a trial and epoch
  predictions.parquet    one row a trial and test clip, with the logits
  trials/*.json          one file a trial
  plots/*.png            accuracy, effect of augmentation, costs, time, learning curves, F1, confusion, kinds of clip
"""
_EPILOG = """\
examples:
  %(prog)s results/my_run                    writes results/my_run/report/
  %(prog)s results/my_run --output /tmp/now  while it is still running, somewhere else
  %(prog)s results/*                         one report each
  %(prog)s results/my_run --compare results/first   what changed, and by how much; writes comparison.md

exit codes: 0 it is written; 2 wrong argument or input, said in one line (other runs get their reports all the same)
"""


def main(argv: Sequence[str] | None = None, prog: str = "python -m analysis") -> int:
    """Run the command line; returns the exit code."""
    prepare_process()
    parser = Parser(prog=prog, description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument("runs", metavar="RUN", type=Path, nargs="+", help="a run's directory, which holds run.json")
    parser.add_argument("--output", metavar="DIR", type=Path, help="write straight into DIR (default: RUN/report)")
    parser.add_argument(
        "--compare",
        metavar="OTHER",
        type=Path,
        help="only compare it, and leave the report as it is: with another run, or with a directory of JSON files, "
        "one an experiment",
    )
    options = parser.parse_args(argv)
    if len(options.runs) > 1 and (options.output or options.compare):
        parser.error(f"--output and --compare take one RUN, and {len(options.runs)} are given")
    # A run without a report keeps none of the others from theirs.
    return max(run_command(prog, partial(_write, run, options)) for run in options.runs)


def _write(run: Path, options: argparse.Namespace) -> int:
    # Imports pandas, Matplotlib, plotly and Ray, which --help can do without.
    if options.compare is not None:
        from analysis.compare.compare_runs import write_comparison

        lines, path = write_comparison(run, options.compare, options.output)
        print(*lines, f"comparison: {path}", sep="\n")
    else:
        from analysis.report import write_report

        print(f"report: {write_report(run, options.output)}")
    return EXIT_OK


def finish_sweep(job: Job, interrupted: bool) -> int:
    """Write the report of a sweep's run and say how it ended; returns the exit code."""
    written = _write_results(job)
    if job.tracker == "wandb":
        from sousaphone.sweep.wandb_logger import sync_line

        if line := sync_line(job.directory):
            print(f"Weights & Biases, kept offline; to send it: {line}")
    if interrupted:
        print(f"interrupted; to resume: {job.directory.resume_command}")
        return EXIT_INTERRUPTED
    if not job.all_ended_well():
        where = job.directory.status_page if job.config == SEARCH else "the report"
        print(f"some trials did not end well; {where} says which, why, and what to type")
        return EXIT_FAILED
    return EXIT_OK if written else EXIT_FAILED


def _write_results(job: Job) -> bool:
    """Whether they could be written; why not, is said."""
    try:
        if job.config == SEARCH:  # its trials are no results, and a table that ranks them would say they are
            for line in learning_rates.write(job.directory.path, job.trials, job.records()):
                print(line)
            return True
        from analysis.report import write_report

        report = write_report(job.directory.path)
        print(f"report: {report} (summary_report.md, report.html, comparison_table.csv, plots/)")
        return True
    except (UserError, OSError) as error:  # a full disk; how the run ended is still to be said
        print(f"no report: {error}")
        return False
