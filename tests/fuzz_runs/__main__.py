"""Attack a run directory as a stranger might, and read it with every command.

    python -m tests.fuzz_runs                       2,000 mutations of JSON in this process, 40 by whole launches
    python -m tests.fuzz_runs --seed 7 --launches 0
    python -m tests.fuzz_runs --plants              code, links, pipes, ... in the place of every file, 40 by launches

A mutation changes one value of a JSON file of a small real run. Reading must give a result or one line: no traceback,
no file outside the run, and bounded time and memory.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from tests.fuzz_runs.attack import Attack
from tests.fuzz_runs.plants import PLANTS

_FIGURES_EVERY = 20


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit code: 0 if nothing was found, else 1."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz_runs", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mutations", type=int, default=2000, metavar="N", help="read in this process (default 2000)")
    parser.add_argument("--launches", type=int, default=40, metavar="N", help="read by launches (default 40)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the mutations (default 0)")
    parser.add_argument("--plants", action="store_true", help="plants instead of mutations")
    arguments = parser.parse_args(argv)
    rng = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as directory:
        root = Path(directory).resolve()
        os.environ |= {"SOUSAPHONE_CACHE": str(root / "cache"), "XDG_CONFIG_HOME": str(root / "config")}
        attack = Attack(root)
        with Progress(console=Console(stderr=True)) as progress:
            if arguments.plants:
                cases = [(kind, place) for place in attack.places() for kind in PLANTS]
                for kind, place in progress.track(cases, description="plants"):
                    attack.plant(kind, place)
                for kind, place in progress.track(rng.sample(cases, arguments.launches), description="launches"):
                    attack.plant(kind, place, launches=True)
            else:
                for number in progress.track(range(arguments.mutations), description="mutations"):
                    attack.mutate(rng, launches=False, figures=number % _FIGURES_EVERY == 0)
                for _ in progress.track(range(arguments.launches), description="launches"):
                    attack.mutate(rng, launches=True, figures=False)
    last_lines = Counter(text.splitlines()[-1] for text in attack.faults)
    print(f"{len(attack.faults)} faults", *(f"{count:5} {line}" for line, count in last_lines.most_common()), sep="\n")
    return 1 if attack.faults else 0


if __name__ == "__main__":
    sys.exit(main())
