"""python -m analysis RUN ... [--output DIR] [--compare OTHER]: write reports of runs, or compare one with another."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from sousaphone.cli.parser import EXIT_INPUT, EXIT_OK, Parser, prepare_process
from sousaphone.errors import UserError

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
  python -m analysis results/my_run                    writes results/my_run/report/
  python -m analysis results/my_run --output /tmp/now  while it is still running, somewhere else
  python -m analysis results/*                         one report each
  python -m analysis results/my_run --compare results/first   what changed, and by how much; writes comparison.md

exit codes: 0 it is written; 2 wrong argument or input, said in one line (other runs get their reports all the same)
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    prepare_process()
    parser = Parser(
        prog="python -m analysis",
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
    options = parser.parse_args(arguments)
    if len(options.runs) > 1 and (options.output or options.compare):
        parser.error(f"--output and --compare take one RUN, and {len(options.runs)} are given")
    # Imports pandas, Matplotlib, plotly and Ray, which --help can do without.
    from analysis.report import write_report

    code = EXIT_OK
    for run in options.runs:  # one that has no report keeps none of the others from theirs
        try:
            if options.compare is not None:
                from analysis.compare.compare import write_comparison

                lines, path = write_comparison(run, options.compare, options.output)
                print(*lines, f"comparison: {path}", sep="\n")
            else:
                print(f"report: {write_report(run, options.output)}")
        except UserError as error:
            print(f"python -m analysis: error: {error}", file=sys.stderr)
            code = EXIT_INPUT
    return code


if __name__ == "__main__":
    sys.exit(main())
