"""What a sweep costs beside its training: wall time against what its trials train, as many at a time as ran."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sousaphone.backbones.registry import REGISTRY

from .startup import launch


@dataclass(frozen=True)
class Overhead:
    """Seconds.

    Attributes:
        whole: of the command, from its start to its end, its report written.
        before: until the first trial begins to work; `trials` until the last has ended; `after` is the rest.
        trained: of all trials' epochs, their evaluation included, over how many ran at a time.
    """

    whole: float
    before: float
    trials: float
    trained: float
    count: int
    at_once: int

    @property
    def after(self) -> float:
        return self.whole - self.before - self.trials

    @property
    def share(self) -> float:
        """Of the whole command, beside what is trained."""
        return self.whole / self.trained - 1

    @property
    def share_of_trials(self) -> float:
        """Of the trials' own stretch alone: starting workers, checkpoints, what a core waits for at the end."""
        return self.trials / self.trained - 1


def of_records(whole: float, began: float, records: Sequence[Mapping[str, Any]], at_once: int) -> Overhead:
    """
    Args:
        whole: seconds of the command.
        began: when it was started, seconds since 1970.
        records: the trials', as in trial.json.
    """
    first = min(datetime.fromisoformat(record["started"]).timestamp() for record in records)
    last = max(datetime.fromisoformat(record["ended"]).timestamp() for record in records)
    trained = sum(row["wall_seconds"] for record in records for row in record["history"]) / at_once
    return Overhead(whole, first - began, last - first, trained, len(records), at_once)


def measure(scratch: Path, epochs: int, say: Callable[[str], None]) -> Overhead:
    """A whole sweep at tiny, as launch.py runs it; data, waveform caches and what it takes to read them are there.
    Neither baselines nor a timing: these are asked for, and say what they take."""
    from sousaphone.data.cache.build import build_caches
    from sousaphone.data.prepare import read_subset
    from sousaphone.data.synthetic.generate import builtin_dataset

    cache = scratch / "builtin"
    root = builtin_dataset(cache, "tiny")
    build_caches(read_subset(root, "tiny"), {spec.sample_rate for spec in REGISTRY.values()}, cache, progress=False)
    say(f"a sweep at tiny of {epochs} epochs")
    began = datetime.now().timestamp()
    words = ["--dataset", "tiny", "--epochs", str(epochs), "--no-timing", "--no-baselines", "--name", "sweep"]
    whole, _ = launch([*words, "--storage", str(scratch / "sweeps")], scratch)
    run = scratch / "sweeps" / "sweep"
    records = [json.loads(path.read_text()) for path in sorted(run.glob("trials/*/trial.json"))]
    found = of_records(whole, began, records, json.loads((run / "run.json").read_text())["at_once"])
    say(f"sweep: {found.whole:.0f} s, of which {found.trained:.0f} s are training ({found.share:.1%} more)")
    return found
