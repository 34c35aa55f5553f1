"""Kill a run of one nano trial at every operation on its files, resume it, and compare.

    python -m tests.faults              every point, some minutes on one core
    python -m tests.faults --every 31   every 31st, as the tests do
    python -m tests.faults --at training:17 report:3
    python -m tests.faults --list       list the points

A point is an operation on a file of the run (checkpoint, record, result, curve, status page, plan, table, plot, lock):
the process is killed before it, or in the middle of a write. A second process then resumes the run and completes it.
The result must equal that of an uninterrupted run: every metric, curve, result, row and file, each epoch once. The
resume must train exactly the epochs that are in no complete checkpoint; at most one of them was trained before.
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

from tests.faults.killed_runs import Case, KilledRuns


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit code: 0 if every resume left what an uninterrupted run leaves, else 1."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only every Nth point (default 1)")
    parser.add_argument("--at", nargs="+", metavar="PHASE:K", help="only these points, named as in the output")
    parser.add_argument("--list", action="store_true", help="list the points and exit")
    arguments = parser.parse_args(argv)
    if arguments.every < 1:
        parser.error(f"--every {arguments.every} is too low; give 1 or more")
    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it warns of truncated curves
    with tempfile.TemporaryDirectory(prefix="faults-") as directory:
        runs = KilledRuns(Path(directory))
        cases = runs.cases[:: arguments.every]
        if arguments.at:
            cases = [case for case in runs.cases if f"{case.phase}:{case.at}" in arguments.at]
            if not cases:
                parser.error(f"--at {' '.join(arguments.at)} matches no point; --list lists all")
        if arguments.list:
            print(*cases, sep="\n")
            return 0
        found = {}
        # Without a refreshing thread: this process forks.
        with Progress(console=Console(stderr=True), auto_refresh=False) as progress:
            for case in progress.track(cases, description=f"{len(cases)} points"):
                found[case] = runs.faults(case)
                progress.refresh()
    return report(runs.cases, found)


def report(cases: Sequence[Case], found: dict[Case, list[str]]) -> int:
    """Print the number of points by kind and the faults; return the exit code."""
    for kind, count in Counter(case.kind for case in found).items():
        print(f"{kind:<11} {count:5} of {sum(case.kind == kind for case in cases)}")
    bad = {case: faults for case, faults in found.items() if faults}
    for case, faults in bad.items():
        print(f"\n{case}", *faults, sep="\n    ")
    print(f"\n{len(found) - len(bad)} of {len(found)} resumed runs equal the uninterrupted run")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
