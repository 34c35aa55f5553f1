"""Attacks on a small real run: each spoils a copy and reads it with every command."""

from __future__ import annotations

import contextlib
import io
import json
import random
import sys
from pathlib import Path

from analysis.report import read_run
from tests.fuzz_runs.mutations import mutated
from tests.fuzz_runs.plants import ADDED, plant
from tests.fuzz_runs.runs import ROOT, Readers, copied, fault, files_below, json_files, launch_fault, small_run


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

    def places(self, added: bool = True) -> list[Path]:
        """Every file and directory of the run, of several of a kind the first; `added`: what libraries look for."""
        (trial,) = (path.name for path in (self.intact.path / "trials").iterdir())
        by_kind: dict[tuple[Path, str], Path] = {}
        for path in sorted(self.intact.path.rglob("*")):
            place = path.relative_to(self.intact.path)
            alike = path.suffix if path.suffix in (".png", ".parquet") else path.name
            by_kind.setdefault((place.parent, alike), place)
        others = [Path(name.replace("TRIAL", trial)) for name in ADDED if added]
        return list(dict.fromkeys((*by_kind.values(), *others)))

    def write_code(self, place: Path) -> None:
        """Write code into one more file of the present run."""
        plant("code", self.run.path / place, self.root / "executed", self.target)

    def plant_all_code(self) -> None:
        """Write code into all files but the JSON that this program reads."""
        self.run = copied(self.intact, self.run.path)
        known = {path.relative_to(self.run.path) for path in json_files(self.run)}
        for place in self.places():
            if place not in known and not (self.run.path / place).is_dir():
                self.write_code(place)

    def plant(self, kind: str, place: Path, launches: bool = False) -> bool:
        """Put a plant in one place and read the run; return False if it cannot be made here (a device, for a user)."""
        self.run = copied(self.intact, self.run.path)
        try:
            plant(kind, self.run.path / place, self.root / "executed", self.target)
        except PermissionError:
            return False
        self.launch(f"{place} is a {kind}") if launches else self.read(f"{place} is a {kind}")
        return True
