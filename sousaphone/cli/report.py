"""sousaphone report RUN ... ...: write reports of runs, or compare two."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from sousaphone.cli.command import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_OK,
    Parser,
    existing_directory,
    prepare_process,
    run_command,
)
from sousaphone.config import RATES
from sousaphone.errors import UserError
from sousaphone.planning.job import Job
from sousaphone.runs import learning_rates

_DESCRIPTION = """\
Write the report of a run of launch.py, finished or not. Every planned trial is one row, whatever its status.

  summary_report.md      verdict, table of results, failures, limitations
  report.html            the same on one self-contained page, with interactive charts and audio clips
  comparison_table.csv   one row for each trial, with every number
  epochs.csv             one row for each trial and epoch
  predictions.parquet    one row for each trial and test clip, with the logits
  trials/*.json          one file for each trial
  plots/*.png            accuracy, effect of augmentation, cost, training time, learning curves, F1, confusion matrix,
                         accuracy by group of clips, reliability; of a search: score against steps, parallel coordinates
  search.csv             of a search: one row for each configuration
  importance.csv         of a search: one row for each backbone and setting
"""
_EPILOG = """\
examples:
  %(prog)s results/my_run                    writes results/my_run/report/
  %(prog)s results/my_run --output /tmp/now  writes into another directory, e.g. during the run
  %(prog)s results/*                         writes one report for each run
  %(prog)s results/my_run --compare results/first   writes comparison.md: what changed, and by how much

exit codes: 0 written; 2 wrong argument or input, with a one-line error (reports of other runs are still written);
130 interrupted
"""


def main(argv: Sequence[str] | None = None, prog: str = "python -m analysis") -> int:
    """Run the command and return its exit code."""
    prepare_process()
    parser = Parser(prog=prog, description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument("runs", metavar="RUN", type=Path, nargs="+", help="directory of a run, with its run.json")
    parser.add_argument("--output", metavar="DIR", type=Path, help="write into DIR (default: RUN/report)")
    parser.add_argument(
        "--compare",
        metavar="OTHER",
        type=existing_directory,
        help="compare the run with another run, or with a directory of JSON files, one for each experiment; the report "
        "is not written",
    )
    data = "directory with the audio clips (default: that of the run)"
    parser.add_argument("--data-dir", metavar="DIR", type=existing_directory, help=data)
    parser.add_argument("--no-sounds", action="store_true", help="leave the audio clips out of the report")
    options = parser.parse_args(argv)
    if len(options.runs) > 1 and (options.output or options.compare):
        parser.error(f"--output and --compare take one RUN; {len(options.runs)} are given")
    parser.refuse_with(options, "compare", "data_dir", "no_sounds")
    parser.refuse_with(options, "no_sounds", "data_dir")
    code = EXIT_OK
    for run in options.runs:  # continues after a run that fails
        code = max(code, run_command(prog, partial(_write, run, options)))
        if code == EXIT_INTERRUPTED:
            break
    return code


def _write(run: Path, options: argparse.Namespace) -> int:
    # Imported here because pandas, Matplotlib, plotly and Ray are slow to import.
    if options.compare is not None:
        from analysis.compare.compare_runs import write_comparison

        lines, path = write_comparison(run, options.compare, options.output)
        print(*lines, f"comparison: {path}", sep="\n")
    else:
        from analysis.report import write_report

        print(f"report: {write_report(run, options.output, not options.no_sounds, options.data_dir)}")
    return EXIT_OK


def finish_sweep(job: Job, interrupted: bool) -> int:
    """Write the report of a sweep, print how the sweep ended, and return the exit code."""
    written = _write_results(job)
    if job.tracker == "wandb":
        from sousaphone.sweep.wandb_logger import sync_line

        if line := sync_line(job.directory):
            print(f"Weights & Biases ran offline; to upload: {line}")
    if interrupted:
        print(f"interrupted; to resume: {job.directory.resume_command}")
        return EXIT_INTERRUPTED
    if not job.all_ended_well():
        where = job.directory.status_page if job.config == RATES else "the report"
        print(f"some trials did not finish; {where} lists them with the reason and the command to continue")
        return EXIT_FAILED
    return EXIT_OK if written else EXIT_FAILED


def _write_results(job: Job) -> bool:
    """Write and print the results; return whether that succeeded."""
    try:
        if job.config == RATES:  # its trials are not results to be ranked
            for line in learning_rates.write(job.directory.path, job.trials, job.records()):
                print(line)
        else:
            from analysis.report import write_report

            report = write_report(job.directory.path)
            print(f"report: {report} (summary_report.md, report.html, comparison_table.csv, plots/)")
            if job.has_model:
                print(f"to export the best model: {job.directory.export_command}")
        return True
    except (UserError, OSError) as error:  # for example a full disk; how the run ended is still printed
        print(f"no report: {error}")
        return False
