"""What a run's trials are held against, measured once before them: simple baselines, and what a clip costs on a CPU.

    RUN/baselines.json           all of it but for the predictions
    RUN/baselines/NAME.parquet   a baseline's answers: sample_id, player, rudiment, predicted; one row a test clip

Light: imports neither torch nor Ray nor scikit-learn, so that the report can read a run anywhere.
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
_SCHEMA = 1  # raise it whenever older files cannot be read


@dataclass(frozen=True)
class Baseline:
    """A simple way to tell the classes, trained on the training clips, scored once on the test clips."""

    name: str  # majority, onsets, logmel, or knn-MODEL
    title: str  # what it is, for tables
    scores: Mapping[str, float]  # fractions by the names in `SCORES`; empty where it has no result
    seconds: float  # that measuring it took
    chosen: str = ""  # what was chosen for it on the validation clips, or on the training clips, in words
    why: str = ""  # why it has no result, in words; empty where it has one

    def __post_init__(self) -> None:
        """Raise a ValueError where there are neither all scores nor a reason why there are none."""
        if set(self.scores) != (set() if self.why else set(SCORES)):
            raise ValueError(f"baseline {self.name!r} has the scores {sorted(self.scores)}, and says {self.why!r}")
        if not all(math.isfinite(score) for score in self.scores.values()):
            raise ValueError(f"baseline {self.name!r} has a score that is no number: {dict(self.scores)}")


@dataclass(frozen=True)
class InferenceTime:
    """What a clip costs an arm on one core: waveform in, logits out, one clip at a time."""

    model: str
    strategy: str
    lora_targets: str
    ms: float | None  # milliseconds, the least; None where it could not be measured
    repeats: int = 0  # that it is the least of
    why: str = ""  # why there is none, in words

    @property
    def built(self) -> tuple[str, str, str]:
        """How the model is built: backbone, strategy and LoRA targets. Arms that differ in augmentation share it."""
        return self.model, self.strategy, self.lora_targets


@dataclass(frozen=True)
class BaselineResults:
    """All of a run's."""

    baselines: tuple[Baseline, ...]
    inference: tuple[InferenceTime, ...]
    cpu: str  # what the processor calls itself on which `inference` was measured
    clip_seconds: float  # of each clip that is heard, from its centre
    data_fingerprint: str  # of the clips, see `Dataset.fingerprint`
    threads: int = 1  # of the processor that `inference` had

    @property
    def best(self) -> Baseline | None:
        """The best baseline, chosen as trials are: by val_macro_f1. None where none has a result."""
        scored = [baseline for baseline in self.baselines if baseline.scores]
        return max(scored, key=lambda baseline: baseline.scores["val_macro_f1"], default=None)

    def milliseconds(self, model: str, strategy: str, lora_targets: str) -> float | None:
        """What a clip costs an arm on the CPU; None where that is not known."""
        return next((time.ms for time in self.inference if time.built == (model, strategy, lora_targets)), None)

    def write(self, run_path: Path) -> None:
        """Write baselines.json to the run's directory, whole or not at all."""
        content = {"schema": _SCHEMA, **dataclasses.asdict(self)}
        with atomic_write(run_path / BASELINE_RESULTS_NAME) as temporary:
            temporary.write_text(json.dumps(content, indent=1, allow_nan=False), encoding="utf-8")

    @classmethod
    def read(cls, run_path: Path) -> Self | None:
        """Those of a run, None where none have been measured.

        Raises:
            ValueError: the file is damaged, or of another version of this program.
        """
        path = run_path / BASELINE_RESULTS_NAME
        if not path.is_file():
            path = run_path / _OLD_NAME
        if not path.is_file():
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
    """The file with a baseline's answers, one row a test clip."""
    return run_path / "baselines" / f"{name}.parquet"


def _baseline(entry: Mapping[str, Any]) -> Baseline:
    texts = {name: str(entry[name]) for name in ("name", "title", "chosen", "why")}
    scores = {str(name): float(score) for name, score in entry["scores"].items()}
    return Baseline(scores=scores, seconds=float(entry["seconds"]), **texts)


def _inference(entry: Mapping[str, Any]) -> InferenceTime:
    texts = {name: str(entry[name]) for name in ("model", "strategy", "lora_targets", "why")}
    ms = None if entry["ms"] is None else float(entry["ms"])
    return InferenceTime(ms=ms, repeats=int(entry["repeats"]), **texts)
