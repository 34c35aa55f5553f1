"""sousaphone report RUN ... [--output DIR] [--compare OTHER]: write reports of runs, or compare one with another."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from sousaphone.cli.parser import EXIT_OK, Parser, prepare_process, run_command

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
    parser = Parser(
        prog=prog,
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
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
        from analysis.compare.compare import write_comparison

        lines, path = write_comparison(run, options.compare, options.output)
        print(*lines, f"comparison: {path}", sep="\n")
    else:
        from analysis.report import write_report

        print(f"report: {write_report(run, options.output)}")
    return EXIT_OK
