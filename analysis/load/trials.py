"""Every planned trial as one Trial: its plan, its own record and what Ray remembers, put together."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from analysis.load.ray_log import RayTrial, by_epoch, is_number
from sousaphone.errors import UserError
from sousaphone.runs.directory import RunDirectory
from sousaphone.runs.statuses import Cause, Status
from sousaphone.runs.trial_record import RECORD_NAME, TrialRecord, cause_in

_SCORED = "clips scored at most"


@dataclass(frozen=True)
class Trial:
    """One row of the comparison."""

    trial_id: str
    config: Mapping[str, Any]  # TrainConfig's fields as planned; values are not checked against today's limits
    status: Status = Status.PENDING
    cause: Cause | None = None  # why it came to its status, where its record says so
    reason: str | None = None  # the same in words
    error: str | None = None  # what went wrong
    wall_seconds: float | None = None  # at work, evaluation and all starts included
    oom_retries: int | None = None  # how often the micro-batch was halved after running out of memory
    history: list[dict[str, Any]] = field(default_factory=list)  # one dict of flat metrics an epoch, the first first
    parameters: Mapping[str, Any] = field(default_factory=dict)
    weights: str = "random"  # where they were read; `began_from` is what the trial's record knows of them
    began_from: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)  # fingerprint, clips by split, notes
    lora: Mapping[str, Any] = field(default_factory=dict)  # which layers were matched
    version: str = ""  # of this program
    git_commit: str = "unknown"
    started: str | None = None  # when, ISO 8601
    ended: str | None = None  # when, ISO 8601
    traceback: str | None = None

    @property
    def conditions(self) -> dict[str, Any]:
        """What must be equal for two trials to be comparable, by its name. The weights they began from are not among
        it: those are the question."""
        config = self.config
        return {
            "data": self.data.get("fingerprint", ""),
            "clips": sorted((self.data.get("clips") or {}).items()),
            **{name: config.get(name) for name in ("dataset", "hold_out", "clip_seconds", "scale", "strategy")},
            # Only where it is set, so that it changes no other signature: then not all clips were scored.
            **({_SCORED: self.most_scored} if self.most_scored is not None else {}),
            "lora_targets": config.get("lora_targets") if config.get("strategy") == "lora" else None,
            "version": self.version,
        }

    @property
    def signature(self) -> str:
        """Short hash of the conditions."""
        return hashlib.sha256(repr(list(self.conditions.values())).encode()).hexdigest()[:8]

    @property
    def most_scored(self) -> int | None:
        """Clips of each split that were scored, at most; None: all of them."""
        return clips_scored(self.config, self.oom_retries)

    @property
    def weights_hash(self) -> str:
        """Of the base model's tensors, short; empty for a trial that has not begun."""
        return str(self.began_from.get("fingerprint") or "")[:12]

    @property
    def full(self) -> bool:
        """Whether it has all its results; only such trials are compared."""
        return self.status.is_full

    @property
    def partial(self) -> bool:
        """Whether it has results, but not all."""
        return not self.full and bool(self.history)

    @property
    def why(self) -> str:
        """Why it ended, or stands, as it does: its reason, and its error where that is another."""
        said = dict.fromkeys(text for text in (self.reason, self.error) if text)
        return "; ".join(said) or self.status.meaning

    @property
    def last(self) -> dict[str, Any]:
        """The metrics of the last finished epoch, which hold the test metrics once the test clips were scored."""
        return self.history[-1] if self.history else {}

    @property
    def best(self) -> dict[str, Any]:
        """The metrics of the epoch with the best validation score; empty before the first epoch ends."""
        wanted = self.last.get("best_epoch")
        return next((row for row in self.history if row["epoch"] == wanted), {})

    def values(self, metric: str) -> list[float]:
        """One metric over the epochs, without the epochs that lack it."""
        return [row[metric] for row in self.history if metric in row]

    def mean(self, metric: str) -> float | None:
        """The mean over the epochs that have it."""
        values = self.values(metric)
        return sum(values) / len(values) if values else None

    @property
    def train_seconds(self) -> float | None:
        return sum(self.values("epoch_seconds")) if self.values("epoch_seconds") else None

    @property
    def peak_memory_mb(self) -> float | None:
        """The highest of all epochs."""
        return max(self.values("peak_memory_mb"), default=None)

    @property
    def trainable_params(self) -> int | None:
        return self.parameters.get("trainable")


def clips_scored(config: Mapping[str, Any], oom_retries: int | None) -> int | None:
    """Clips of each split that are scored at most under a limit of batches; None without one.

    Args:
        oom_retries: halvings of the micro-batch, after running out of memory.
    """
    limit, batch = config.get("limit_eval_batches"), config.get("eval_batch")
    if not is_number(limit) or not is_number(batch):
        return None
    return int(limit * max(1, batch // 2 ** (oom_retries if is_number(oom_retries) else 0)))


def unlike(trials: Iterable[Trial]) -> list[str]:
    """The conditions that scored trials differ in, with their values, in words; empty where all may be compared."""
    known = [trial.conditions for trial in trials if trial.history and trial.data]
    found = []
    for name in dict.fromkeys(name for conditions in known for name in conditions):
        values = dict.fromkeys(_in_words(name, conditions.get(name)) for conditions in known)
        if len(values) > 1:
            found.append(f"{name}: {' and '.join(values)}")
    return found


def _in_words(condition: str, value: Any) -> str:
    if condition == "data":
        return str(value)[:12] or "unknown"
    if condition == "clips":
        return ", ".join(f"{split} {count}" for split, count in value) or "unknown"
    if condition == _SCORED and value is None:
        return "all"
    return str(value or "none")


def counted_states(statuses: Iterable[str]) -> str:
    """`5 completed, 1 failed`, in the order in which they first occur."""
    return ", ".join(f"{count} {status}" for status, count in Counter(statuses).items())


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
    planned = [
        Trial(trial_id, config, weights=config.get("weights", "random"), git_commit=commit)
        for trial_id, config in zip(ids or (), configs or (), strict=True)
    ]
    return [_trial(run, trial, ray.get(trial.trial_id), live) for trial in planned]


def _trial(run: RunDirectory, planned: Trial, ray: RayTrial | None, live: bool) -> Trial:
    try:
        record = TrialRecord.read(run.trial(planned.trial_id))
        if record is not None:
            history = _checked(record)
            if record.status is Status.RUNNING and not live:
                record.status = Status.INTERRUPTED
    except (ValueError, OSError) as damage:
        # Ray's word is the best there is; without it nobody can say that the trial ended well.
        status = _status_by_ray(ray, planned, live) if ray is not None else Status.FAILED
        problem = f"{RECORD_NAME} is damaged ({str(damage).partition(chr(10))[0]}); resuming writes it anew"
        return replace(planned, status=status, error=problem, history=ray.history if ray else [])
    if record is None:
        if ray is None:
            return planned
        return replace(planned, status=_status_by_ray(ray, planned, live), error=ray.error, history=ray.history)
    status, cause, reason, error = record.status, record.cause, record.reason, record.error
    if ray is not None and _ray_is_newer(ray, record):
        status, cause, reason, error = _status_by_ray(ray, planned, live), None, None, ray.error
        history = max(history, ray.history, key=len)
    return replace(
        planned,
        status=status,
        cause=cause,
        reason=reason,
        error=error,
        wall_seconds=record.seconds,
        oom_retries=record.oom_retries,
        history=history,
        parameters=record.parameters,
        weights=record.weights.get("source", planned.weights),
        began_from=record.weights,
        data=record.data,
        lora=record.lora,
        version=str((record.provenance.get("versions") or {}).get("sousaphone") or ""),
        git_commit=record.provenance.get("git_commit", planned.git_commit),
        started=record.started or None,
        ended=record.ended,
        traceback=record.traceback,
    )


def _checked(record: TrialRecord) -> list[dict[str, Any]]:
    """The record's history; a ValueError where anything used of it is not what a trial writes."""
    parts = (record.parameters, record.weights, record.provenance, record.data, record.lora)
    if not all(isinstance(part, dict) for part in parts):
        raise ValueError("a part of it is no table")
    if not all(is_number(number) for number in (record.seconds, record.oom_retries)):
        raise ValueError("seconds or oom_retries is not a number")
    texts = (record.reason, record.error, record.traceback, record.started, record.ended)
    if not all(isinstance(text, str | None) for text in texts) or not isinstance(record.updated, str):
        raise ValueError("its reason, error or time is no text")
    if not isinstance(record.history, list) or not all(isinstance(row, dict) for row in record.history):
        raise ValueError("its history is no list of epochs")
    datetime.fromisoformat(record.updated)
    return by_epoch(record.history)


def _ray_is_newer(ray: RayTrial, record: TrialRecord) -> bool:
    """Whether Ray saw something after the trial's last record.

    A trial writes its record before it reports, so Ray is ahead only where the record is an old copy or the process
    ended without writing. What Ray heard before that record is of an earlier start.
    """
    if ray.last_heard is None or ray.last_heard < datetime.fromisoformat(record.updated).timestamp():
        return False
    if len(ray.history) > len(record.history):
        return True
    if record.ended is not None or len(ray.history) < len(record.history):
        return False
    return ray.state == "ERROR" or (ray.state == "TERMINATED" and bool(ray.history))


def _status_by_ray(ray: RayTrial, planned: Trial, live: bool) -> Status:
    """Ray's state in our words."""
    if ray.state == "ERROR":
        return cause_in(ray.error or "").status
    if ray.state == "TERMINATED" and ray.history:
        last = ray.history[-1]
        if "test_acc" not in last:  # Ray cut it off: a trial that ends by itself scores the test clips
            return Status.TIME_LIMIT
        if last["epoch"] >= planned.config.get("epochs", 0):
            return Status.COMPLETED
        waited = last["epoch"] - last.get("best_epoch", last["epoch"])
        return Status.EARLY_STOPPED if waited >= planned.config.get("patience", 1) else Status.TIME_LIMIT
    if ray.state in ("RUNNING", "PAUSED"):
        return Status.RUNNING if live else Status.INTERRUPTED
    return Status.INTERRUPTED if ray.history else Status.PENDING
