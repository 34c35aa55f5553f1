"""Read every planned trial of a run: its plan, its own record and Ray's log are merged into one `Trial`."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from typing import Any

from analysis.load.ray_log import RayTrial, by_epoch, is_number
from sousaphone.config import precision_of
from sousaphone.runs.directory import RunDirectory
from sousaphone.runs.statuses import Cause, Status
from sousaphone.runs.trial_record import RECORD_NAME, TrialRecord, cause_in
from sousaphone.text import one_line

_SCORED = "clips scored at most"


@dataclass(frozen=True)
class Trial:
    """One row of the comparison."""

    trial_id: str
    config: Mapping[str, Any]  # fields of TrainConfig as planned; not validated again
    status: Status = Status.PENDING
    cause: Cause | None = None  # cause of the status, if recorded
    reason: str | None = None  # the cause in words
    error: str | None = None
    wall_seconds: float | None = None  # of all starts, evaluation included
    oom_retries: int | None = None  # how often the micro-batch was halved after running out of memory
    history: list[dict[str, Any]] = field(default_factory=list)  # flat metrics of each epoch, in order
    parameters: Mapping[str, Any] = field(default_factory=dict)  # counts: total, trainable, adapter, trainable_percent
    weights: str = "random"  # path of the pretrained weights
    began_from: Mapping[str, Any] = field(default_factory=dict)  # the record's facts about the pretrained weights
    data: Mapping[str, Any] = field(default_factory=dict)  # fingerprint, clips by split, notes
    version: str = ""  # version of sousaphone
    git_commit: str = "unknown"
    started: str | None = None  # ISO 8601
    traceback: str | None = None
    # The metric with the time of an epoch's training steps. Runs whose trials all have it: `processor_seconds`.
    clock: str = "epoch_seconds"

    @property
    def conditions(self) -> dict[str, Any]:
        """The conditions, by name, that must be equal for a comparison. Weights, strategies and targets of adapters may
        differ, as they are compared."""
        config = self.config
        return {
            "data": self.data.get("fingerprint", ""),
            "clips": sorted((self.data.get("clips") or {}).items()),
            **{name: config.get(name) for name in ("dataset", "hold_out", "clip_seconds", "scale")},
            "precision": self.precision,
            # Only where evaluation is limited, so that other signatures do not change.
            **({_SCORED: self.most_scored} if self.most_scored is not None else {}),
            "version": self.version,
        }

    @property
    def precision(self) -> str:
        """The precision of frozen layers and activations."""
        return precision_of(self.config)

    @property
    def signature(self) -> str:
        """Short hash of the conditions."""
        return hashlib.sha256(repr(list(self.conditions.values())).encode()).hexdigest()[:8]

    @property
    def most_scored(self) -> int | None:
        """Maximum number of clips of each split that were scored; None means all."""
        limit = clips_scored(self.config, self.oom_retries)
        if limit is None or self.config.get("test_also"):  # a set whose clips `data` does not count
            return limit
        counts = [count for split, count in (self.data.get("clips") or {}).items() if split != "train"]
        return limit if limit < max(counts, default=math.inf) else None

    @property
    def weights_hash(self) -> str:
        """Short fingerprint of the pretrained tensors; empty for a trial that has not started."""
        return str(self.began_from.get("fingerprint") or "")[:12]

    @property
    def full(self) -> bool:
        """Whether the trial has all its results; only such trials are compared."""
        return self.status.is_full

    @property
    def partial(self) -> bool:
        """Whether the trial has some results, but not all."""
        return not self.full and bool(self.history)

    @property
    def why(self) -> str:
        """Why the trial has its status: its reason, and its error if that differs."""
        return "; ".join(dict.fromkeys(text for text in (self.reason, self.error) if text)) or self.status.meaning

    @property
    def last(self) -> dict[str, Any]:
        """The metrics of the last epoch; they include the test metrics once the test clips are scored."""
        return self.history[-1] if self.history else {}

    @cached_property
    def best(self) -> dict[str, Any]:
        """The metrics of the epoch with the best validation score; empty before the first epoch ends."""
        best_epoch = self.last.get("best_epoch")
        return next((row for row in self.history if row["epoch"] == best_epoch), {})

    def values(self, metric: str) -> list[float]:
        """The values of one metric over the epochs that have it."""
        return [row[metric] for row in self.history if metric in row]

    def mean(self, metric: str) -> float | None:
        """The mean of a metric over the epochs that have it; None if no epoch has."""
        values = self.values(metric)
        return sum(values) / len(values) if values else None

    @property
    def train_seconds(self) -> float | None:
        """Seconds of training by the trial's clock, without evaluation."""
        return sum(self.values(self.clock)) if self.values(self.clock) else None

    @property
    def time_unit(self) -> str:
        """What the seconds of the clock count: processor time (over all threads), GPU time or wall time."""
        units = {"cpu": "processor", "cuda": "GPU"} if self.clock == "processor_seconds" else {}
        return units.get(str(self.config.get("device")), "wall")

    @property
    def samples_per_second(self) -> float | None:
        """Training clips per second of the clock, the mean over the epochs; None if no epoch has it."""
        rows = [row for row in self.history if {"samples_per_second", "epoch_seconds", self.clock} <= row.keys()]
        rates = [row["samples_per_second"] * (row["epoch_seconds"] / row[self.clock]) for row in rows]
        return sum(rates) / len(rates) if rates else None

    @property
    def peak_memory_mb(self) -> float | None:
        """Peak memory over all epochs, in MiB."""
        return max(self.values("peak_memory_mb"), default=None)

    @property
    def trainable_params(self) -> int | None:
        return self.parameters.get("trainable")


def clips_scored(config: Mapping[str, Any], oom_retries: int | None) -> int | None:
    """Return the maximum number of clips of each split scored under limit_eval_batches; None without that limit."""
    limit, batch = config.get("limit_eval_batches"), config.get("eval_batch")
    if not is_number(limit) or not is_number(batch):
        return None
    retries = min(max(oom_retries, 0), 64) if is_number(oom_retries) else 0
    return int(limit * max(1, batch // 2**retries))


def unlike(trials: Iterable[Trial]) -> list[str]:
    """Return the conditions that differ between scored trials, with their values; empty if all are comparable."""
    known = [trial.conditions for trial in trials if trial.history and trial.data]
    names = dict.fromkeys(name for conditions in known for name in conditions)
    values = {name: dict.fromkeys(_in_words(name, each.get(name)) for each in known) for name in names}
    return [f"{name}: {' and '.join(different)}" for name, different in values.items() if len(different) > 1]


def _in_words(condition: str, value: Any) -> str:
    if condition == "data":
        return str(value)[:12] or "unknown"
    if condition == "clips":
        return ", ".join(f"{split} {count}" for split, count in value) or "unknown"
    if condition == _SCORED and value is None:
        return "all"
    return str(value or "none")


def counted_states(statuses: Iterable[str]) -> str:
    """Format counts of statuses as `5 completed, 1 failed`, in order of first occurrence."""
    return ", ".join(f"{count} {status}" for status, count in Counter(statuses).items())


def read_trials(run: RunDirectory, plan: Mapping[str, Any], ray: Mapping[str, RayTrial]) -> list[Trial]:
    """Return one Trial per planned trial, in the plan's order; missing and damaged records are allowed."""
    commit = (plan.get("provenance") or {}).get("git_commit", "unknown")
    live, trials = run.is_live(), []
    for trial_id, config in zip(plan["trial_ids"], plan["trials"], strict=True):
        planned = Trial(trial_id, config, weights=config.get("weights", "random"), git_commit=commit)
        trials.append(_trial(run, planned, ray.get(trial_id), live))
    rows = [row for trial in trials for row in trial.history]
    if rows and all(row.get("processor_seconds", 0) > 0 and "epoch_seconds" in row for row in rows):
        trials = [replace(trial, clock="processor_seconds") for trial in trials]
    return trials


def _trial(run: RunDirectory, planned: Trial, ray: RayTrial | None, live: bool) -> Trial:
    try:
        record = TrialRecord.read(run.trial(planned.trial_id))
        updated = datetime.fromisoformat(record.updated).timestamp() if record is not None else 0.0
        if record is not None and record.status is Status.RUNNING and not live:
            record.status = Status.INTERRUPTED
    except (ValueError, OverflowError, OSError) as damage:
        # Only Ray's status is left; without it the trial counts as failed.
        status = _status_by_ray(ray, planned, live) if ray is not None else Status.FAILED
        problem = f"{RECORD_NAME} is damaged ({one_line(damage, 500)}); resuming writes it again"
        return replace(planned, status=status, error=problem, history=ray.history if ray else [])
    if record is None:
        if ray is None:
            return planned
        return replace(planned, status=_status_by_ray(ray, planned, live), error=ray.error, history=ray.history)
    history = by_epoch(record.history)
    if ray is not None and _ray_is_newer(ray, record, updated):
        record.status, record.cause, record.reason = _status_by_ray(ray, planned, live), None, None
        record.error, history = ray.error, max(history, ray.history, key=len)
    copied = ("status", "cause", "reason", "error", "oom_retries", "parameters", "data", "traceback")
    return replace(
        planned,
        **{name: getattr(record, name) for name in copied},
        history=history,
        wall_seconds=record.seconds,
        weights=record.weights.get("source", planned.weights),
        began_from=record.weights,
        version=str((record.provenance.get("versions") or {}).get("sousaphone") or ""),
        git_commit=record.provenance.get("git_commit", planned.git_commit),
        started=record.started or None,
    )


def _ray_is_newer(ray: RayTrial, record: TrialRecord, updated: float) -> bool:
    """Whether Ray's log is newer than the trial's last record.

    A trial writes its record before it reports to Ray, so Ray is ahead only if the record is an old copy or the process
    ended without writing. Ray's state from before that record belongs to an earlier start.
    """
    reported = ray.history[-1].get("timestamp") if ray.history else None
    last_update = ray.failed_at if ray.failed_at is not None else reported
    if last_update is None or last_update < updated:
        return False
    if record.ended is not None or len(ray.history) != len(record.history):
        return len(ray.history) > len(record.history)
    return ray.state == "ERROR" or (ray.state == "TERMINATED" and bool(ray.history))


def _status_by_ray(ray: RayTrial, planned: Trial, live: bool) -> Status:
    """Translate Ray's state into a Status."""
    if ray.state == "ERROR":
        return cause_in(ray.error or "").status
    if ray.state == "TERMINATED" and ray.history:
        last = ray.history[-1]
        if "test_acc" not in last:  # stopped by Ray: a trial that ends by itself scores the test clips
            return Status.TIME_LIMIT
        if last["epoch"] >= planned.config.get("epochs", 0):
            return Status.COMPLETED
        waited = last["epoch"] - last.get("best_epoch", last["epoch"])
        return Status.EARLY_STOPPED if waited >= planned.config.get("patience", 1) else Status.TIME_LIMIT
    if ray.state in ("RUNNING", "PAUSED"):
        return Status.RUNNING if live else Status.INTERRUPTED
    return Status.INTERRUPTED if ray.history else Status.PENDING
