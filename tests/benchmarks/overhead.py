"""The overhead of a sweep: its wall time against the time that its trials train."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sousaphone.backbones.registry import REGISTRY
from sousaphone.data.cache.build import build_caches
from sousaphone.data.prepare import read_subset

from .startup import launch


@dataclass(frozen=True)
class Overhead:
    """Seconds.

    Attributes:
        total: of the command, report included.
        before: until the first trial starts; `trials` from then until the last trial ends; `after` is the rest.
        trained: of all trials' epochs, evaluation included, divided by the number of concurrent trials.
    """

    total: float
    before: float
    trials: float
    trained: float
    count: int
    at_once: int

    @property
    def after(self) -> float:
        return self.total - self.before - self.trials

    @property
    def of_command(self) -> float:
        """Time of the command besides training, as a fraction of training time."""
        return self.total / self.trained - 1

    @property
    def of_trials(self) -> float:
        """The same from the first trial's start to the last one's end: starting workers, checkpoints, idle cores."""
        return self.trials / self.trained - 1


def of_records(total: float, began: float, records: Sequence[Mapping[str, Any]], at_once: int) -> Overhead:
    """
    Args:
        total: seconds of the command.
        began: its start, in seconds since 1970.
        records: of the trials, as in trial.json.
    """
    first = min(datetime.fromisoformat(record["started"]).timestamp() for record in records)
    last = max(datetime.fromisoformat(record["ended"]).timestamp() for record in records)
    trained = sum(row["wall_seconds"] for record in records for row in record["history"]) / at_once
    return Overhead(total, first - began, last - first, trained, len(records), at_once)


def measure(scratch: Path, epochs: int, log: Callable[[str], None]) -> Overhead:
    """Run a sweep over the tiny data set by launch.py, without baselines and timing; data and waveform caches exist."""
    from sousaphone.data.synthetic.generate import builtin_dataset

    cache = scratch / "builtin"
    root = builtin_dataset(cache, "tiny")
    build_caches(read_subset(root, "tiny"), {spec.sample_rate for spec in REGISTRY.values()}, cache, progress=False)
    log(f"sweep over tiny, {epochs} epochs per trial")
    began = datetime.now().timestamp()
    options = ["--dataset", "tiny", "--epochs", str(epochs), "--no-timing", "--no-baselines", "--name", "sweep"]
    total, _ = launch([*options, "--storage", str(scratch / "sweeps")], scratch)
    run = scratch / "sweeps" / "sweep"
    records = [json.loads(path.read_text()) for path in sorted(run.glob("trials/*/trial.json"))]
    found = of_records(total, began, records, json.loads((run / "run.json").read_text())["at_once"])
    log(f"sweep: {found.total:.0f} s, {found.trained:.0f} s of them training ({found.of_command:.1%} overhead)")
    return found
