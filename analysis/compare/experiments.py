"""Experiments to compare: the trials of a run, or the JSON files of an earlier sweep, one per experiment.

A file has config (model, strategy, augmentation, data, max_epochs, ...), metrics, efficiency, status, error, timestamp
and git_commit; `analysis.write.exports` writes this format, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Required

from analysis.load.ray_log import is_number
from analysis.load.trials import Trial, clips_scored
from analysis.stats.arms import in_words, settings_of, title
from sousaphone.config import ArmKey, arm_of, lora_targets_of
from sousaphone.errors import UserError, printable
from sousaphone.files import read_small
from sousaphone.runs import schema
from sousaphone.runs.baseline_results import SCORES
from sousaphone.runs.statuses import Status
from sousaphone.text import one_line

# Names in the files and in TrainConfig, and of metrics.
_SETTINGS = {"augmentation": "augment", "data": "dataset", "max_epochs": "epochs"}
_METRICS = {"test_f1_macro": "test_macro_f1", "val_f1_macro": "val_macro_f1"}
_MOST_LETTERS = 500


def _plain(value: Any) -> Any:
    """Return a number, a flag or None; any other value, whose type is another program's, as text."""
    scalar = value is None or isinstance(value, bool) or is_number(value)
    return value if scalar else printable(str(value)[:_MOST_LETTERS])


_Value = Annotated[Any, schema.Check(_plain)]
_FILE = schema.fields(
    config=Required[dict[schema.Text, _Value]],
    status=Required[schema.Text],
    metrics=dict[schema.Text, _Value] | None,
    efficiency=dict[schema.Text, _Value] | None,
    **dict.fromkeys(("experiment_id", "error", "git_commit", "timestamp"), _Value),
)


@dataclass(frozen=True)
class Experiment:
    """One training run."""

    name: str
    config: Mapping[str, Any]  # settings, named as in TrainConfig
    status: str  # a value of Status, or another program's word
    scores: Mapping[str, float] = field(default_factory=dict)  # the known ones of SCORES; validation of the best epoch
    total_params: int | None = None
    trainable_params: int | None = None
    error: str | None = None
    commit: str = "unknown"
    began: str = ""  # ISO 8601; empty if unknown
    most_scored: int | None = None  # maximum number of scored clips of each split; None means all
    settings: str = ""  # further options in which the arms of its run differ

    @property
    def arm(self) -> ArmKey:
        """The arm, whose tag is its settings in words; LoRA targets are one of them, where a run varies them."""
        return arm_of(self.config)._replace(lora_targets="", tag=self.settings)

    @property
    def full(self) -> bool:
        """Whether it is recorded as finished with all results."""
        return any(self.status == status for status in Status if status.is_full)

    @property
    def validated(self) -> bool:
        """Whether it has a validation metric; without one, no epoch can have been selected."""
        return any(name.startswith("val_") for name in self.scores)


def arm_title(arm: ArmKey) -> str:
    """Return an arm's display name."""
    settings = f", {arm.tag}" if arm.tag else ""
    return f"{title(arm.model)}, {arm.strategy}{settings}, {'augmented' if arm.augment else 'unaugmented'}"


def of_trials(trials: Sequence[Trial]) -> list[Experiment]:
    """Return the trials of a run as experiments."""
    settings = settings_of(trials)
    targets = {trial.trial_id: lora_targets_of(trial.config) for trial in trials}
    vary = len(set(targets.values())) > 1
    return [
        Experiment(
            trial.trial_id,
            {"model": "", **trial.config},
            trial.status,
            _scores({**trial.last, **{name: trial.best.get(name) for name in ("val_acc", "val_macro_f1")}}),
            trial.parameters.get("total"),
            trial.parameters.get("trainable"),
            trial.error or trial.why or None,
            trial.git_commit,
            most_scored=trial.most_scored,
            settings=in_words({**({"targets": targets[trial.trial_id]} if vary else {}), **settings[trial.trial_id]}),
        )
        for trial in trials
    ]


def _scores(metrics: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(metrics[name]) for name in SCORES if is_number(metrics.get(name))}


def read_experiments(directory: Path) -> tuple[list[Experiment], list[str]]:
    """Read the experiments of a directory, in order of file names; also return the files that could not be read.

    Raises:
        UserError: no file describes an experiment.
    """
    found, damaged = [], []
    for path in sorted(directory.glob("*.json")):
        try:
            found.append(_experiment(path))
        except (OSError, ValueError) as error:
            damaged.append(f"{printable(path.name)} ({one_line(error, 120)})")
    if not found:
        why = f"none of its {len(damaged)} JSON files is an experiment" if damaged else "no JSON file"
        raise UserError(
            f"{directory} is neither a run (no run.json) nor a directory of experiments ({why}); give one of these"
        )
    return found, damaged


def _experiment(path: Path) -> Experiment:
    """Read one file; raise a ValueError, or an OSError, if it is not JSON or does not describe an experiment."""
    if not path.resolve().is_relative_to(path.parent.resolve()):
        raise ValueError("it is a link that leads out of the directory")
    content = schema.parse(read_small(path), _FILE, "it")
    config = {_SETTINGS.get(name, name): value for name, value in content["config"].items()}
    metrics = {_METRICS.get(name, name): value for name, value in (content.get("metrics") or {}).items()}
    efficiency = content.get("efficiency") or {}
    if not isinstance(config.get("model"), str):
        raise ValueError("its config has no model")
    names = ("total_params", "trainable_params")
    counts: dict[str, Any] = {name: int(metrics[name]) for name in names if is_number(metrics.get(name))}
    return Experiment(
        str(content.get("experiment_id") or printable(path.stem)),
        config,
        content["status"],
        _scores(metrics),
        **counts,
        error=str(content["error"]) if content.get("error") else None,
        commit=str(content.get("git_commit") or "unknown"),
        began=str(content.get("timestamp") or ""),
        # Older files call it halvings.
        most_scored=clips_scored(config, efficiency.get("oom_retries", efficiency.get("halvings"))),
    )
