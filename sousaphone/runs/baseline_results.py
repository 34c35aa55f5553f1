"""Baseline results of a run, measured once before its trials: simple classifiers, and the CPU time per clip.

    RUN/baselines.json           all results except predictions
    RUN/baselines/NAME.parquet   a baseline's predictions: sample_id, player, rudiment, predicted; one row per test clip

Imports neither torch nor Ray nor scikit-learn, so that the report can read a run anywhere.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from sousaphone.files import atomic_write

BASELINE_RESULTS_NAME = "baselines.json"
_OLD_NAME = "yardsticks.json"  # in older runs
SCORES = ("val_acc", "val_macro_f1", "test_acc", "test_macro_f1")
_SCHEMA = 1  # raise it when older files cannot be read


@dataclass(frozen=True)
class Baseline:
    """A simple classifier, trained on the training clips and scored once on the test clips."""

    name: str  # majority, onsets, logmel, or knn-MODEL
    title: str  # description, for tables
    scores: Mapping[str, float]  # fractions by the names in `SCORES`; empty without a result
    seconds: float  # time of the measurement
    chosen: str = ""  # settings chosen on the validation or training clips, as text
    why: str = ""  # why there is no result; empty with a result

    def __post_init__(self) -> None:
        """Raise a ValueError unless there are all scores or a reason why there are none."""
        if set(self.scores) != (set() if self.why else set(SCORES)):
            raise ValueError(f"baseline {self.name!r} has scores {sorted(self.scores)} and the reason {self.why!r}")
        if not all(math.isfinite(score) for score in self.scores.values()):
            raise ValueError(f"baseline {self.name!r} has a score that is not a number: {dict(self.scores)}")


@dataclass(frozen=True)
class InferenceTime:
    """Inference time of an arm on a CPU, from waveform to logits, one clip at a time."""

    model: str
    strategy: str
    lora_targets: str
    ms: float | None  # minimum over the repeats, milliseconds; None if it could not be measured
    repeats: int = 0
    why: str = ""  # why there is no time

    @property
    def built(self) -> tuple[str, str, str]:
        """Backbone, strategy and LoRA targets, which define the model. Arms that differ in augmentation share it."""
        return self.model, self.strategy, self.lora_targets


@dataclass(frozen=True)
class BaselineResults:
    """All baseline results of a run."""

    baselines: tuple[Baseline, ...]
    inference: tuple[InferenceTime, ...]
    cpu: str  # name of the processor on which `inference` was measured
    clip_seconds: float  # length of each clip's centre window
    data_fingerprint: str  # of the clips, see `Dataset.fingerprint`
    threads: int = 1  # CPU threads of `inference`

    @property
    def best(self) -> Baseline | None:
        """The best baseline by val_macro_f1, as for trials; None if none has a result."""
        scored = [baseline for baseline in self.baselines if baseline.scores]
        return max(scored, key=lambda baseline: baseline.scores["val_macro_f1"], default=None)

    def milliseconds(self, model: str, strategy: str, lora_targets: str) -> float | None:
        """Return the CPU time per clip of an arm; None if it is not known."""
        return next((time.ms for time in self.inference if time.built == (model, strategy, lora_targets)), None)

    def write(self, run_path: Path) -> None:
        """Write baselines.json to the run's directory, atomically."""
        content = {"schema": _SCHEMA, **dataclasses.asdict(self)}
        with atomic_write(run_path / BASELINE_RESULTS_NAME) as temporary:
            temporary.write_text(json.dumps(content, indent=1, allow_nan=False), encoding="utf-8")

    @classmethod
    def read(cls, run_path: Path) -> Self | None:
        """Read the results of a run; None if there are none. Raise a ValueError if they are damaged."""
        names = (BASELINE_RESULTS_NAME, _OLD_NAME)
        path = next((path for name in names if (path := run_path / name).is_file()), None)
        if path is None:
            return None
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["schema"] != _SCHEMA:
                raise ValueError(f"its schema is {content['schema']}, not {_SCHEMA}")
            return cls(
                baselines=tuple(_baseline(entry) for entry in content["baselines"]),
                inference=tuple(_inference(entry) for entry in content["inference"]),
                cpu=str(content["cpu"]),
                clip_seconds=float(content["clip_seconds"]),
                data_fingerprint=str(content["data_fingerprint"]),
                threads=int(content["threads"]),
            )
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"{path} is damaged ({error})") from error


def predictions_path(run_path: Path, name: str) -> Path:
    """Return the file of a baseline's predictions, one row per test clip."""
    return run_path / "baselines" / f"{name}.parquet"


def _baseline(entry: Mapping[str, Any]) -> Baseline:
    texts = {name: str(entry[name]) for name in ("name", "title", "chosen", "why")}
    scores = {str(name): float(score) for name, score in entry["scores"].items()}
    return Baseline(scores=scores, seconds=float(entry["seconds"]), **texts)


def _inference(entry: Mapping[str, Any]) -> InferenceTime:
    texts = {name: str(entry[name]) for name in ("model", "strategy", "lora_targets", "why")}
    ms = None if entry["ms"] is None else float(entry["ms"])
    return InferenceTime(ms=ms, repeats=int(entry["repeats"]), **texts)
