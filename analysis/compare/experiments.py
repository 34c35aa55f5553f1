"""What a comparison looks at: single experiments, of a run of ours or of a directory with a JSON file for each.

Such a file holds config (model, strategy, augmentation, data, max_epochs, ...), metrics, efficiency, status, error,
timestamp and git_commit, as an earlier sweep left its results and `analysis.write.exports` writes ours.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from analysis.load.ray_log import is_number
from analysis.load.trials import Trial, clips_scored
from analysis.stats.arms import title
from sousaphone.config import ArmKey, arm_of
from sousaphone.errors import UserError
from sousaphone.runs.statuses import Status

SCORES = ("val_acc", "val_macro_f1", "test_acc", "test_macro_f1")
# Theirs to ours.
_SETTINGS = {"augmentation": "augment", "data": "dataset", "max_epochs": "epochs"}
_METRICS = {"test_f1_macro": "test_macro_f1", "val_f1_macro": "val_macro_f1"}
_NO_EXPERIMENT = "no config with a model, or no status"


@dataclass(frozen=True)
class Experiment:
    """One training."""

    name: str
    config: Mapping[str, Any]  # settings, under the names of TrainConfig
    status: str  # a value of Status, or whatever word another program wrote
    # Those of SCORES that are known, as fractions; validation is that of the best epoch.
    scores: Mapping[str, float] = field(default_factory=dict)
    total_params: int | None = None
    trainable_params: int | None = None
    error: str | None = None
    commit: str = "unknown"
    began: str = ""  # ISO 8601; empty where it is not known
    most_scored: int | None = None  # clips of each split, at most; None: all of them

    @property
    def arm(self) -> ArmKey:
        """Without LoRA's targets, which an earlier sweep did not vary: two runs are compared over all of them."""
        return arm_of(self.config)._replace(lora_targets="")

    @property
    def full(self) -> bool:
        """Whether it says that it ran to its end."""
        return any(self.status == status for status in Status if status.is_full)

    @property
    def validated(self) -> bool:
        """Whether anything was measured on validation clips; without that no state was ever chosen."""
        return any(name.startswith("val_") for name in self.scores)


def arm_title(arm: ArmKey) -> str:
    """An arm in words."""
    return f"{title(arm.model)}, {arm.strategy}, {'augmented' if arm.augment else 'unaugmented'}"


def of_trials(trials: Sequence[Trial]) -> list[Experiment]:
    """The trials of a run."""
    return [
        Experiment(
            trial.trial_id,
            {"model": "", **trial.config},
            trial.status,
            _scores({**trial.last, **{name: trial.best.get(name) for name in SCORES[:2]}}),
            trial.parameters.get("total"),
            trial.parameters.get("trainable"),
            trial.error or trial.why or None,
            trial.git_commit,
            most_scored=trial.most_scored,
        )
        for trial in trials
    ]


def _scores(metrics: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(metrics[name]) for name in SCORES if is_number(metrics.get(name))}


def read_experiments(directory: Path) -> tuple[list[Experiment], list[str]]:
    """The experiments of a directory of JSON files, in the order of the files' names, and what could not be read.

    Raises:
        UserError: there is no file of an experiment.
    """
    found, damaged = [], []
    for path in sorted(directory.glob("*.json")):
        try:
            found.append(_experiment(path))
        except (OSError, ValueError) as error:  # of JSON and of Unicode as well
            damaged.append(f"{path.name} ({' '.join(str(error).split())[:120]})")
    if not found:
        has = f"none of its {len(damaged)} JSON files is that of an experiment" if damaged else "it holds no JSON file"
        raise UserError(
            f"{directory} is neither a run (no run.json) nor a directory of experiments ({has}); give one of these"
        )
    return found, damaged


def _experiment(path: Path) -> Experiment:
    """The experiment of a file; a ValueError where it is no JSON, or not what an experiment leaves."""
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict) or not isinstance(content.get("config"), dict):
        raise ValueError(_NO_EXPERIMENT)
    config = {_SETTINGS.get(name, name): value for name, value in content["config"].items()}
    if not isinstance(config.get("model"), str) or not isinstance(content.get("status"), str):
        raise ValueError(_NO_EXPERIMENT)
    raw, efficiency = (content[n] if isinstance(content.get(n), dict) else {} for n in ("metrics", "efficiency"))
    metrics = {_METRICS.get(name, name): value for name, value in raw.items()}
    total, trainable = (metrics.get(name) for name in ("total_params", "trainable_params"))
    return Experiment(
        str(content.get("experiment_id") or path.stem),
        config,
        content["status"],
        _scores(metrics),
        total_params=int(total) if is_number(total) else None,
        trainable_params=int(trainable) if is_number(trainable) else None,
        error=str(content["error"]) if content.get("error") else None,
        commit=str(content.get("git_commit") or "unknown"),
        began=str(content.get("timestamp") or ""),
        most_scored=clips_scored(config, efficiency.get("halvings")),
    )
