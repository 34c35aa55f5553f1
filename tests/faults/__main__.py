"""Kill a run of one nano trial at every point of its way through the file system, resume it, and compare.

    python -m tests.faults              every point, some minutes on one core
    python -m tests.faults --every 23   every 23rd, as the tests do
    python -m tests.faults --at training:17 report:3
    python -m tests.faults --list       name the points

A point is an operation on a file of the run (checkpoint, record, result, curve, status page, plan, table, plot, lock):
the process is killed before it, or in the middle of a write. Then a second process resumes the run to its end. It must
leave what a run that was never killed leaves: every metric, curve, result, row and file, each epoch once; and it must
have trained just the epochs that were in no whole checkpoint, of which at most one had been trained before.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from tests.faults.lives import Case, Lives


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 if every death was survived, 1 if not."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--every", type=int, default=1, metavar="N", help="every Nth point only (default 1)")
    parser.add_argument("--at", nargs="+", metavar="PHASE:K", help="these points only, named as the output names them")
    parser.add_argument("--list", action="store_true", help="name the points; nothing dies")
    arguments = parser.parse_args(argv)
    if arguments.every < 1:
        parser.error(f"--every {arguments.every} is too low; give 1 or more")
    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it warns of curves that were cut
    with tempfile.TemporaryDirectory(prefix="faults-") as directory:
        lives = Lives(Path(directory))
        cases = lives.cases[:: arguments.every]
        if arguments.at:
            cases = [case for case in lives.cases if f"{case.phase}:{case.at}" in arguments.at]
            if not cases:
                parser.error(f"--at {' '.join(arguments.at)} names no point; --list names all")
        if arguments.list:
            print(*cases, sep="\n")
            return 0
        found = {}
        # No thread that refreshes by itself: this process forks.
        with Progress(console=Console(stderr=True), auto_refresh=False) as progress:
            for case in progress.track(cases, description=f"{len(cases)} deaths"):
                found[case] = lives.faults(case)
                progress.refresh()
    return report(lives.cases, found)


def report(cases: Sequence[Case], found: dict[Case, list[str]]) -> int:
    """Say how many points there were and which deaths were not survived; returns the exit code."""
    for kind, count in Counter(case.kind for case in found).items():
        print(f"{kind:<11} {count:5} of {sum(case.kind == kind for case in cases)}")
    bad = {case: faults for case, faults in found.items() if faults}
    for case, faults in bad.items():
        print(f"\n{case}", *faults, sep="\n    ")
    print(f"\n{len(found) - len(bad)} of {len(found)} deaths left nothing that a resume did not make good")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
