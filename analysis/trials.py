"""Every planned trial as one Trial: its plan, its own record and what Ray remembers, put together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from analysis.ray_log import RayTrial, by_epoch
from sousaphone.config import GOOD_ENDS, STATUSES
from sousaphone.errors import UserError
from sousaphone.record import RECORD_NAME, TrialRecord
from sousaphone.run import RunDirectory


@dataclass(frozen=True)
class Trial:
    """One row of the comparison.

    Attributes:
        config: TrainConfig's fields as planned; values are not checked against today's limits.
        status: one of `sousaphone.config.STATUSES`.
        history: one dict of flat metrics an epoch, the first epoch first.
    """

    trial_id: str
    config: Mapping[str, Any]
    status: str = "pending"
    error: str | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    weights: str = "random"
    git_commit: str = "unknown"

    @property
    def ended_well(self) -> bool:
        return self.status in GOOD_ENDS

    @property
    def last(self) -> dict[str, Any]:
        """The metrics of the last finished epoch, which hold the test metrics of a trial that ended well."""
        return self.history[-1] if self.history else {}

    @property
    def best(self) -> dict[str, Any]:
        """The metrics of the epoch with the best validation score; empty before the first epoch ends."""
        wanted = self.last.get("best_epoch")
        return next((row for row in self.history if row["epoch"] == wanted), {})

    def values(self, metric: str) -> list[float]:
        """One metric over the epochs, without the epochs that lack it."""
        return [row[metric] for row in self.history if metric in row]

    @property
    def train_seconds(self) -> float | None:
        seconds = self.values("epoch_seconds")
        return sum(seconds) if seconds else None

    @property
    def seconds_per_epoch(self) -> float | None:
        seconds = self.values("epoch_seconds")
        return sum(seconds) / len(seconds) if seconds else None

    @property
    def trainable_params(self) -> int | None:
        return self.parameters.get("trainable")


def read_trials(run: RunDirectory, plan: Mapping[str, Any], ray: Mapping[str, RayTrial]) -> list[Trial]:
    """One Trial a planned trial, in the plan's order, whatever state its files are in.

    Raises:
        UserError: the plan is not one that launch.py wrote.
    """
    ids, configs = plan.get("trial_ids"), plan.get("trials")
    whole = isinstance(ids, list) and isinstance(configs, list) and len(ids) == len(configs) > 0
    if not whole or not all(isinstance(config, dict) for config in configs or ()):
        raise UserError(f"{run.path / 'run.json'} is damaged (it plans no trials); restore it from a copy")
    commit = (plan.get("provenance") or {}).get("git_commit", "unknown")
    live = run.is_live()
    trials = []
    for trial_id, config in zip(ids or (), configs or (), strict=True):
        planned = Trial(trial_id, config, weights=config.get("weights", "random"), git_commit=commit)
        trials.append(_trial(run, planned, ray.get(trial_id), live))
    return trials


def _trial(run: RunDirectory, planned: Trial, ray: RayTrial | None, live: bool) -> Trial:
    try:
        record = run.record(planned.trial_id)
        if record is not None:
            history = _checked(record)
    except (ValueError, OSError) as damage:
        # Ray's word is the best there is; without it nobody can say that the trial ended well.
        status = _status_by_ray(ray, planned, live) if ray is not None else "failed"
        problem = f"{RECORD_NAME} is damaged ({str(damage).partition(chr(10))[0]}); resuming writes it anew"
        return replace(planned, status=status, error=problem, history=ray.history if ray else [])
    if record is None:
        if ray is None:
            return planned
        return replace(planned, status=_status_by_ray(ray, planned, live), error=ray.error, history=ray.history)
    status, error = record.status, record.error
    if ray is not None and _ray_is_newer(ray, record):
        status, error = _status_by_ray(ray, planned, live), ray.error
        history = max(history, ray.history, key=len)
    return replace(
        planned,
        status=status,
        error=error,
        history=history,
        parameters=record.parameters,
        weights=record.weights.get("source", planned.weights),
        git_commit=record.provenance.get("git_commit", planned.git_commit),
    )


def _checked(record: TrialRecord) -> list[dict[str, Any]]:
    """The record's history, after a look at all that is used of it.

    Raises:
        ValueError: it is JSON, but not what a trial writes.
    """
    if record.status not in STATUSES:
        raise ValueError(f"its status is {record.status!r}")
    if not all(isinstance(part, dict) for part in (record.parameters, record.weights, record.provenance)):
        raise ValueError("a part of it is no table")
    if not isinstance(record.history, list) or not all(isinstance(row, dict) for row in record.history):
        raise ValueError("its history is no list of epochs")
    datetime.fromisoformat(record.updated)
    return by_epoch(record.history)


def _ray_is_newer(ray: RayTrial, record: TrialRecord) -> bool:
    """Whether Ray saw something after the trial's last record.

    A trial writes its record before it reports, so Ray is ahead only where the record is an old copy, or where the
    trial could not write its own end: its process was killed, or Ray stopped it.
    """
    if len(ray.history) > len(record.history):
        return True
    if record.status not in ("running", "interrupted") or len(ray.history) < len(record.history):
        return False
    if ray.state == "ERROR":
        return ray.failed_at is not None and ray.failed_at >= datetime.fromisoformat(record.updated)
    return ray.state == "TERMINATED" and bool(ray.history)


def _status_by_ray(ray: RayTrial, planned: Trial, live: bool) -> str:
    """Ray's state in our words."""
    if ray.state == "ERROR":
        return "out_of_memory" if "OutOfMemory" in (ray.error or "") else "failed"
    if ray.state == "TERMINATED" and ray.history:
        # A trial scores the test clips when it ends by itself; otherwise Ray cut it off.
        last = ray.history[-1]
        if "test_acc" not in last:
            return "time_limit"
        return "completed" if last["epoch"] >= planned.config.get("epochs", 0) else "early_stopped"
    if ray.state in ("RUNNING", "PAUSED"):
        return "running" if live else "interrupted"
    return "pending"
