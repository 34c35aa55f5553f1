"""Attack a run directory as a stranger might, and read it with every command.

    python -m tests.fuzz_runs                       2,000 mutations of JSON in this process, 40 by whole launches
    python -m tests.fuzz_runs --seed 7 --launches 0
    python -m tests.fuzz_runs --plants              code, links, pipes, ... in the place of every file, by launches too

A mutation changes one value of a JSON file of a small real run. Reading must give a result or one line: no traceback,
no file outside the run, and bounded time and memory.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from analysis.report import read_run
from tests.fuzz_runs.mutations import mutated
from tests.fuzz_runs.plants import ADDED, PLANTS, plant
from tests.fuzz_runs.runs import ROOT, Readers, copied, fault, files_below, json_files, launch_fault, small_run

_FIGURES_EVERY = 20


class Attack:
    """A run that is spoiled and read again and again; each failure is printed and in `faults`."""

    def __init__(self, root: Path) -> None:
        self.root, self.faults = root, list[str]()
        self.intact = small_run(root)
        self.other = read_run(copied(self.intact, root / "others" / "other").path)
        self.run = copied(self.intact, root / "mine" / "run")
        self.target = root / "target"
        self.target.mkdir()
        for name in ("accounts.json", "holiday.png"):
            (self.target / name).write_text("{}")
        self._outside = self._foreign()

    def _foreign(self) -> dict[str, bytes]:
        return files_below(self.target) | files_below(self.root / "data") | files_below(self.root / "others")

    def read(self, what: str, figures: bool = False) -> None:
        """Read the run in this process."""
        for name, reader in Readers(self.run, self.other).named(figures):
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                found = fault(reader)
            self._note(f"{what}: {name}", found)

    def launch(self, what: str) -> None:
        """Read the run by whole processes, and train what is left of it."""
        for words in (
            ["-m", "analysis", str(self.run.path)],
            [str(ROOT / "launch.py"), "--resume", "--no-timing", "--storage", str(self.run.path.parent)],
        ):
            self._note(f"{what}: {' '.join(words)}", launch_fault(self.root, [sys.executable, *words]))

    def _note(self, what: str, found: str | None) -> None:
        problems = [] if found is None else [found]
        if (self.root / "executed").exists():
            problems.append("code was executed")
            (self.root / "executed").rmdir()
        if self._foreign() != self._outside:
            problems.append("files outside the run have changed")
            self._outside = self._foreign()
        for problem in problems:
            print(what, problem, sep="\n", end="\n\n", flush=True)
        self.faults += problems

    def mutate(self, rng: random.Random, launches: bool, figures: bool) -> None:
        self.run = copied(self.intact, self.run.path)
        path = rng.choice(json_files(self.run))
        content = mutated(json.loads(path.read_text()), rng)
        path.write_text(json.dumps(content))
        what = f"{path.relative_to(self.run.path)} {json.dumps(content)[:6000]}"
        self.launch(what) if launches else self.read(what, figures)

    def plants(self, launches: bool) -> Iterator[None]:
        """Put every kind of plant in the place of every file and directory, and of files that libraries look for."""
        (trial,) = (path.name for path in (self.intact.path / "trials").iterdir())
        there = [path.relative_to(self.intact.path) for path in sorted(self.intact.path.rglob("*"))]
        added = [Path(name.replace("TRIAL", trial)) for name in ADDED]
        for place in dict.fromkeys((*there, *added)):
            for kind in PLANTS:
                self.run = copied(self.intact, self.run.path)
                with contextlib.suppress(OSError):  # no device without privileges
                    plant(kind, self.run.path / place, self.root / "executed", self.target)
                    self.launch(f"{place} is a {kind}") if launches else self.read(f"{place} is a {kind}")
                yield


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
                for launches in (False, True)[: 1 + bool(arguments.launches)]:
                    for _ in progress.track(attack.plants(launches), description="plants"):
                        pass
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
