"""sousaphone benchmark RUN: deploy cards of a run's models."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sousaphone.cli.command import EXIT_OK, Parser, prepare_process, require_torchaudio, run_command
from sousaphone.cli.predict import table_text
from sousaphone.errors import printable
from sousaphone.runs.directory import RunDirectory
from sousaphone.text import tracked

if TYPE_CHECKING:
    from sousaphone.runs.deployment import DeployCard

_DESCRIPTION = """\
Measure the best trial of each arm on the CPU of this machine: the time of one window with one thread and with all, load
time, size on disk and in memory, and the accuracy on the run's test clips; with PyTorch and, if the extra [deploy] is
installed, as an ONNX graph in float32 and with int8 weights. The results are printed, written to RUN/deployment.json,
and shown in the report, which is written again. It takes about half a minute per arm at nano scale, and one to
three minutes at base; other programs on the machine disturb it.
"""
_EPILOG = """\
examples:
  %(prog)s results/first

exit codes: 0 measured; 2 wrong argument or input; 130 interrupted
"""


def main(argv: Sequence[str] | None = None, prog: str = "sousaphone benchmark") -> int:
    """Run the command line and return the exit code."""
    prepare_process()
    parser = Parser(prog=prog, description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument("run", metavar="RUN", type=Path, help="directory of a run, with its run.json")
    options = parser.parse_args(argv)

    def run() -> int:
        require_torchaudio()
        from analysis.report import write_report
        from sousaphone.deploy.export import measure_trial
        from sousaphone.deploy.trained_trials import finished_arms
        from sousaphone.runs.deployment import Deployment, explanation

        directory = RunDirectory(options.run)
        best = [trials[0] for trials in finished_arms(directory)]
        cards = []
        for trial in tracked(best, f"{len(best)} models", len(best)):
            with tempfile.TemporaryDirectory(prefix="sousaphone-") as temporary:
                cards.append(measure_trial(trial, Path(temporary, "model")))
        print(table_text(_table(cards)), end="")
        for line in dict.fromkeys([explanation(cards[0]), *(card.remark for card in cards)]):
            print(printable(line))
        Deployment(tuple(cards)).write(directory.path)
        print(printable(f"report: {write_report(directory.path)}"))
        return EXIT_OK

    return run_command(prog, run)


def _table(cards: Sequence[DeployCard]) -> Any:
    from rich.table import Column, Table

    from sousaphone.runs.deployment import COLUMNS, row

    table = Table("trial", COLUMNS[0], *(Column(name, justify="right") for name in COLUMNS[1:]), box=None)
    for card in cards:
        for cost in card.costs:
            table.add_row(card.trial, *row(card, cost))
    return table
