"""The statuses of a trial, their causes, and how each is continued; the only place that defines these."""

from __future__ import annotations

import enum


class Continuation(enum.Enum):
    """A way to continue or retry trials: the `options` in addition to --resume (None: impossible) and what to print."""

    RESUME = "", "To resume after a stop, or after the time limit of a sweep"
    RETRY = " --retry-failed", "To retry failed trials, once the cause is removed"
    LONGER_LIMIT = " --trial-time-limit none", "To resume without a time limit, or give a longer one"
    NEW_RUN = None, "Diverged trials would diverge again: start a new run with a lower --set learning_rate"

    def __init__(self, options: str | None, purpose: str) -> None:
        self.options, self.purpose = options, purpose


class Status(enum.StrEnum):
    """The status of a trial, as in trial.json; `meaning` is shown if the record has no reason."""

    def __new__(cls, value: str, meaning: str = "no reason is on record") -> Status:
        member = str.__new__(cls, value)
        member._value_, member.meaning = value, meaning
        return member

    meaning: str
    PENDING = "pending", "it has not started"
    RUNNING = "running", "it is running"
    COMPLETED = "completed", ""
    EARLY_STOPPED = "early_stopped", ""
    TIME_LIMIT = "time_limit", "it was stopped before its last planned epoch"
    PRUNED = "pruned", "the scheduler stopped it early"
    FAILED = "failed"
    OUT_OF_MEMORY = "out_of_memory"
    DIVERGED = "diverged"
    INTERRUPTED = "interrupted", "the run stopped before it had ended"

    @property
    def is_full(self) -> bool:
        """Whether the trial has all its results; other results are partial and not compared."""
        return self in (Status.COMPLETED, Status.EARLY_STOPPED)

    @property
    def is_good(self) -> bool:
        """Whether the trial ended well; a sweep succeeds if every trial did."""
        return self.is_full or self in (Status.TIME_LIMIT, Status.PRUNED)

    @property
    def is_bad(self) -> bool:
        """Whether an error or a stop ended or interrupted the trial."""
        return not self.is_good and self not in (Status.PENDING, Status.RUNNING)

    @property
    def has_ended(self) -> bool:
        """Whether the trial has ended; otherwise a plain --resume starts or continues it."""
        return self not in (Status.PENDING, Status.RUNNING, Status.INTERRUPTED)

    @property
    def is_retried(self) -> bool:
        """Whether --retry-failed tries it again. A diverged trial would diverge again: its random draws are fixed."""
        return self in (Status.FAILED, Status.OUT_OF_MEMORY)

    @property
    def causes(self) -> tuple[Cause, ...]:
        """The possible causes; none for pending and running."""
        return tuple(cause for cause in Cause if cause.status is self)

    def continuation(self, cause: Cause | None) -> Continuation | None:
        """Return how a trial with this status and cause (None: unknown) is continued; None if it is not."""
        if self.is_full or self is Status.PRUNED:
            return None
        if not self.has_ended or cause is Cause.SWEEP_TIME_LIMIT:
            return Continuation.RESUME
        if self is Status.TIME_LIMIT:
            return Continuation.LONGER_LIMIT
        return Continuation.RETRY if self.is_retried else Continuation.NEW_RUN


class Cause(enum.StrEnum):
    """The cause of a trial's `status`."""

    def __new__(cls, value: str, status: Status = Status.FAILED) -> Cause:
        member = str.__new__(cls, value)
        member._value_, member.status = value, status
        return member

    status: Status
    ALL_EPOCHS = "all_epochs", Status.COMPLETED
    PATIENCE = "patience", Status.EARLY_STOPPED
    TRIAL_TIME_LIMIT = "trial_time_limit", Status.TIME_LIMIT
    SWEEP_TIME_LIMIT = "sweep_time_limit", Status.TIME_LIMIT
    SCHEDULER = "scheduler", Status.PRUNED
    STOPPED_BY_USER = "stopped_by_user", Status.INTERRUPTED  # SIGINT or SIGTERM
    DRIVER_KILLED = "driver_killed", Status.INTERRUPTED
    RAY_STOPPED = "ray_stopped", Status.INTERRUPTED  # its processes were killed, or it raised an error
    DISK_FULL = "disk_full", Status.INTERRUPTED
    MEMORY = "memory", Status.OUT_OF_MEMORY
    LOSS_NOT_FINITE = "loss_not_finite", Status.DIVERGED
    HUNG = "hung", Status.FAILED
    WORKER_DIED = "worker_died", Status.FAILED  # for an unknown reason
    ERROR = "error", Status.FAILED
