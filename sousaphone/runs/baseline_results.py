"""Baseline results of a run, measured once before its trials: simple classifiers, and the CPU time per clip.

    RUN/baselines.json           all results except predictions
    RUN/baselines/NAME.parquet   a baseline's predictions, one row per test clip: sample_id, player, rudiment, predicted
                                 from the centre window and, except in older runs, averaged_predicted over windows

Imports neither torch nor Ray nor scikit-learn, so that the report can read a run anywhere.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Self

from annotated_types import Len

from sousaphone.config import precision_of
from sousaphone.files import write_json
from sousaphone.runs import schema
from sousaphone.strategies import STRATEGIES

BASELINE_RESULTS_NAME = "baselines.json"
_OLD_NAME = "yardsticks.json"  # in older runs
SCORES = ("val_acc", "val_macro_f1", "test_acc", "test_macro_f1")
AVERAGED = ("val_averaged_acc", "val_averaged_macro_f1", "test_averaged_acc", "test_averaged_macro_f1")  # over windows
SHORT_SECONDS = 2.5  # length of the random window of `Baseline.short`
_SCHEMA = 1  # raise it when older files cannot be read

# Backbone, strategy, LoRA targets and settings, which define the computation of a model.
TimeKey = tuple[str, str, str, frozenset[tuple[str, Any]]]


@dataclass(frozen=True)
class Baseline:
    """A simple classifier, trained on the training clips and scored once on the test clips."""

    __pydantic_config__ = schema.STRICT
    name: schema.Id  # majority, length, onsets, strokes, logmel, or knn-MODEL
    title: schema.Text  # description, for tables
    scores: Mapping[schema.Text, schema.Number]  # fractions by `SCORES` and, not in older runs, `AVERAGED`
    seconds: schema.Seconds  # time of the measurement
    chosen: schema.Text = ""  # settings chosen on the validation or training clips, as text
    why: schema.Text = ""  # why there is no result; empty with a result
    # By `SCORES`, of one random window of SHORT_SECONDS per clip, in which the number of strokes says less;
    # only of baselines that read strokes, and not in older runs.
    short: Mapping[schema.Text, schema.Number] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raise a ValueError unless there are all scores or a reason why there are none."""
        if set(self.scores) not in ([set()] if self.why else [set(SCORES), {*SCORES, *AVERAGED}]):
            raise ValueError(f"baseline {self.name!r} has scores {sorted(self.scores)} and the reason {self.why!r}")
        if set(self.short) not in (set(), set(SCORES)):
            raise ValueError(f"baseline {self.name!r} has the scores {sorted(self.short)} of short windows")
        if not all(map(math.isfinite, (*self.scores.values(), *self.short.values()))):
            raise ValueError(f"baseline {self.name!r} has a score that is not a number: {dict(self.scores)}")


@dataclass(frozen=True)
class InferenceTime:
    """Inference time of an arm on a CPU, from waveform to logits, one clip at a time."""

    __pydantic_config__ = schema.STRICT
    model: schema.Text
    strategy: schema.Text
    lora_targets: schema.Text
    ms: schema.Number | None  # minimum over the repeats, milliseconds; None if it could not be measured
    repeats: schema.Count = 0
    why: schema.Text = ""  # why there is no time
    # Further fields of TrainConfig that the time depends on, with the precision of the measurement. Empty in older
    # runs, whose arms of one backbone, strategy and LoRA targets have one time.
    settings: Mapping[schema.Text, schema.Scalar] = field(default_factory=dict)

    @classmethod
    def of(cls, config: Mapping[str, Any], ms: float | None = None, repeats: int = 0, why: str = "") -> Self:
        """The time of a trial's model. Trials that differ in nothing that changes its computation, such as learning
        rate, dropout, augmentation and seed, have equal keys."""
        model, strategy, targets = (str(config.get(name, "")) for name in ("model", "strategy", "lora_targets"))
        on_cpu = config.get("device") == "cpu"  # others are timed in float32
        settings = {"clip_seconds": config.get("clip_seconds"), "precision": "float32"}
        settings |= {"precision": precision_of(config)} if on_cpu else {}
        if strategy in STRATEGIES and STRATEGIES[strategy].low_rank:
            settings["lora_r"] = config.get("lora_r")
        if model == "efficientat":
            settings["efficientat_hop"] = config.get("efficientat_hop")
        return cls(model, strategy, targets, ms, repeats, why, settings)

    @property
    def key(self) -> TimeKey:
        """What defines the computation."""
        return self.model, self.strategy, self.lora_targets, frozenset(self.settings.items())

    @property
    def older(self) -> TimeKey:
        """The key that it has in older runs."""
        return self.model, self.strategy, self.lora_targets, frozenset()

    @property
    def title(self) -> str:
        """What was timed, for messages."""
        settings = ", ".join(f"{name} {value}" for name, value in self.settings.items() if value is not None)
        return f"{self.model}-{self.strategy}-{self.lora_targets}" + (f" ({settings})" if settings else "")


@dataclass(frozen=True)
class BaselineResults:
    """All baseline results of a run."""

    __pydantic_config__ = schema.STRICT
    baselines: Annotated[tuple[Baseline, ...], Len(0, 1_000)]
    inference: Annotated[tuple[InferenceTime, ...], Len(0, 10_000)]
    cpu: schema.Text  # name of the processor on which `inference` was measured
    clip_seconds: schema.Seconds  # length of each clip's centre window
    data_fingerprint: schema.Text  # of the clips, see `Dataset.fingerprint`
    threads: schema.Count = 1  # CPU threads of `inference`

    @property
    def best(self) -> Baseline | None:
        """The best baseline by val_macro_f1, as for trials; None if none has a result."""
        scored = [baseline for baseline in self.baselines if baseline.scores]
        return max(scored, key=lambda baseline: baseline.scores["val_macro_f1"], default=None)

    def milliseconds(self, configs: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
        """Return the CPU time per clip of each of the trials' configurations of which it is known."""
        known = {time.key: time.ms for time in self.inference}
        wanted = {name: InferenceTime.of(config) for name, config in configs.items()}
        found = {name: known.get(time.key, known.get(time.older)) for name, time in wanted.items()}
        return {name: ms for name, ms in found.items() if ms is not None}

    def write(self, run_path: Path) -> None:
        """Write baselines.json to the run's directory, atomically."""
        content = {"schema": _SCHEMA, **dataclasses.asdict(self)}
        write_json(run_path / BASELINE_RESULTS_NAME, content, indent=1, allow_nan=False)

    @classmethod
    def read(cls, run_path: Path) -> Self | None:
        """Read the results of a run; None if there are none. Raise a ValueError if they are damaged."""
        names = (BASELINE_RESULTS_NAME, _OLD_NAME)
        path = next((path for name in names if (path := run_path / name).is_file()), None)
        if path is None:
            return None
        results: Self = schema.read(path, cls, _SCHEMA)
        return results


def predictions_path(run_path: Path, name: str) -> Path:
    """Return the file of a baseline's predictions, one row per test clip."""
    return run_path / "baselines" / f"{name}.parquet"
