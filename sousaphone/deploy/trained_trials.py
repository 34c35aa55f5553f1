"""The trained trials of a run: their configuration, tensors, calibration, and which one is the best."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from sousaphone.backbones import nano
from sousaphone.config import RATES, ArmKey, TrainConfig, arm_of
from sousaphone.deploy.calibration import Predictions, calibrated, read_predictions
from sousaphone.deploy.model_folder import ARCHITECTURE, Calibration, ModelConfig, refuse_wrong_tensors
from sousaphone.errors import UserError
from sousaphone.model import RudimentClassifier
from sousaphone.rudiments import SLUGS
from sousaphone.runs.directory import RunDirectory
from sousaphone.runs.trial_record import ADAPTER_NAME, TrialRecord, adapter_file, predictions_name
from sousaphone.training import adapter


@dataclass(frozen=True)
class TrainedTrial:
    """A trial whose trained tensors are on disk."""

    run: RunDirectory
    record: TrialRecord
    config: TrainConfig
    data: Mapping[str, Any]  # the data set as planned

    @property
    def directory(self) -> Path:
        return self.run.trial(self.record.trial_id)

    def trained_state(self, wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Read the trained tensors; raises a UserError unless they have the `wanted` names and shapes."""
        state = adapter.read(self.directory)
        refuse_wrong_tensors(adapter_file(self.directory) or self.directory, wanted, state, "restore it from a copy")
        return state

    @property
    def calibration(self) -> Calibration:
        """Temperatures and thresholds from the validation clips; empty in runs that did not measure them."""
        last = self.record.history[-1] if self.record.history else {}
        measured = (last.get(name) for name in ("temperature", "averaged_temperature"))
        temperature, averaged = (value if value is not None and value > 0 else None for value in measured)
        rows = self.validation
        return calibrated(temperature, averaged, None if rows is None else [(rows, averaged or 1.0)])

    @property
    def validation(self) -> Predictions | None:
        """The logits of the validation clips; None in runs that did not keep them."""
        path = self.directory / predictions_name("val")
        return read_predictions(path) if path.is_file() else None

    def model_config(self, network: RudimentClassifier) -> ModelConfig:
        """The description of the trial's model, as an adapter over its base weights."""
        spec, weights = network.backbone.spec, self.record.weights
        if weights.get("origin") == nano.ORIGIN:  # in this package, wherever it is installed
            weights = {**weights, "source": Path(weights["source"]).name}
        return ModelConfig(
            kind="adapter",
            architecture={name: getattr(self.config, name) for name in ARCHITECTURE},
            classes=SLUGS,
            sample_rate=spec.sample_rate,
            clip_seconds=self.config.clip_seconds,
            front_end=network.backbone.frontend.contract,
            base_weights=weights,
            calibration=self.calibration,
            trained={
                "run": self.run.path.resolve().name,
                "trial": self.record.trial_id,
                "status": str(self.record.status),
                "dataset": self.config.dataset,
                "hold_out": self.config.hold_out,
                "data_fingerprint": self.record.data.get("fingerprint"),  # of the clips drawn from it
                "synthetic_data": self.data.get("synthetic"),
            },
            licences={"weights": weights.get("licence"), "code": "MIT", "data": None},
            software=dict(self.record.provenance.get("versions") or {}),
        )


def trained_trial(run: RunDirectory, trial_id: str) -> TrainedTrial:
    """Return a trial by its name; raises a UserError if it does not exist or has no trained tensors."""
    plan = _plan(run)
    if trial_id not in plan["trial_ids"]:
        raise UserError(f"{run.path} has no trial {trial_id!r}; its trials: {', '.join(plan['trial_ids'])}")
    trial = _read(run, plan, trial_id)
    if trial is None:
        record = run.record(trial_id)
        status = record.status if record else "pending"
        raise UserError(f"trial {trial_id} of {run.path} is {status} and has no {ADAPTER_NAME}; resume it")
    return trial


def best_arm(run: RunDirectory) -> list[TrainedTrial]:
    """Return the finished trials of the best arm, the best first. Raises a UserError if no trial has finished."""
    return finished_arms(run)[0]


def finished_arms(run: RunDirectory) -> list[list[TrainedTrial]]:
    """Return the finished trials of each arm, the best arm and trial first; arms are ranked as in the report, by the
    mean validation macro F1 over seeds. Raises a UserError if no trial has finished."""
    plan = _plan(run)
    groups: dict[ArmKey, list[TrainedTrial]] = {}
    for trial_id in plan["trial_ids"]:
        trial = _read(run, plan, trial_id)
        # Of a search, only the finalists are results.
        if trial is not None and trial.config.score_test and trial.record.status.is_full and _score(trial) is not None:
            groups.setdefault(arm_of(trial.record.config), []).append(trial)
    if not groups:
        raise UserError(f"no trial of {run.path} has finished; resume it: {run.resume_command}")
    arms = sorted(groups.values(), key=lambda trials: sum(map(_score, trials)) / len(trials), reverse=True)
    return [sorted(trials, key=_score, reverse=True) for trials in arms]


def _score(trial: TrainedTrial) -> Any:
    return trial.record.best.get("val_macro_f1")


def _plan(run: RunDirectory) -> dict[str, Any]:
    plan = run.read_foreign_plan()
    if plan.get("config") == RATES:
        raise UserError(f"{run.path} is a learning-rate search, whose trials are not results; give another run")
    return plan


def _read(run: RunDirectory, plan: Mapping[str, Any], trial_id: str) -> TrainedTrial | None:
    record = run.record(trial_id)
    if record is None or adapter_file(run.trial(trial_id)) is None:
        return None
    known = {each.name for each in dataclasses.fields(TrainConfig)}
    try:
        config = TrainConfig(**{name: value for name, value in record.config.items() if name in known})
    except UserError as error:
        raise UserError(f"{run.trial(trial_id)}: {error}") from None
    return TrainedTrial(run, record, config, plan.get("data") or {})
