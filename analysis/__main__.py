"""python -m analysis RUN [--output DIR] [--compare OTHER]: write the report of a run, or compare it with another."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from sousaphone.errors import UserError

_DESCRIPTION = """\
Write the report of a run that launch.py began, finished or not: every planned trial is one row, whatever became of it.

  comparison_table.csv   one row a trial, every number
  summary_report.md      the same to read, with what it does not show
  report.html            one self-contained page with interactive charts and learning curves
  plots/                 accuracy_comparison.png, efficiency_scatter.png, training_time.png
"""
_EPILOG = """\
examples:
  python -m analysis results/my_run                    writes results/my_run/report/
  python -m analysis results/my_run --output /tmp/now  while it is still running, somewhere else
  python -m analysis results/my_run --compare results/first   what changed, and by how much; writes comparison.md

exit codes: 0 it is written; 2 wrong argument or input, said in one line
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m analysis",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", metavar="RUN", type=Path, help="the run's directory, which holds run.json")
    parser.add_argument("--output", metavar="DIR", type=Path, help="write straight into DIR (default: RUN/report)")
    parser.add_argument(
        "--compare",
        metavar="OTHER",
        type=Path,
        help="only compare it: with another run, or with a directory of JSON files, one an experiment",
    )
    options = parser.parse_args(arguments)
    # Imports pandas, Matplotlib, plotly and Ray, which --help can do without.
    from analysis.report import write_report

    try:
        if options.compare is not None:
            from analysis.compare import write_comparison

            lines, path = write_comparison(options.run, options.compare, options.output)
            print(*lines, f"comparison: {path}", sep="\n")
            return 0
        directory = write_report(options.run, options.output)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"report: {directory}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
