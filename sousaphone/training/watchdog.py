"""Time limits, hang detection and heartbeat of one trial, checked between its batches."""

from __future__ import annotations

import faulthandler
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from sousaphone.files import write_json
from sousaphone.runs import schema
from sousaphone.runs.directory import Limits
from sousaphone.runs.statuses import Cause
from sousaphone.text import in_words

STACKS_NAME = "stacks.txt"
HEARTBEAT_NAME = "heartbeat.json"
_BEAT_SECONDS = 5.0


class TimeLimitError(Exception):
    """The time limit of the trial or of the sweep, as given by `cause`, is reached; the message contains the epoch."""

    def __init__(self, cause: Cause, message: str) -> None:
        super().__init__(message)
        self.cause = cause


class Watchdog:
    """Measures time from its creation; as a context manager it ends the process if the trial hangs.

    A thread outside of Python (`faulthandler`) detects a hang even if the interpreter is blocked, writes the stack of
    every thread to `stacks.txt` and ends the process; the driver then records the cause.
    """

    def __init__(self, directory: Path, limits: Limits, seconds: float) -> None:
        """`seconds` is the time of earlier starts in the record; the heartbeat of a killed start may be more recent."""
        self._directory, self._limits = directory, limits
        self._before = max(seconds, (read_heartbeat(directory) or {}).get("seconds", 0.0))
        self._began = time.monotonic()
        self._beaten = -_BEAT_SECONDS
        self._stacks: IO[str] | None = None

    @property
    def seconds(self) -> float:
        """Training time, earlier starts included."""
        return self._before + time.monotonic() - self._began

    @property
    def too_late(self) -> bool:
        """Whether the deadline of the sweep has passed."""
        return self._limits.deadline is not None and time.monotonic() >= self._limits.deadline

    def __enter__(self) -> Watchdog:
        if self._limits.stall_seconds is not None:
            self._stacks = (self._directory / STACKS_NAME).open("w", encoding="utf-8")
        self._arm()
        return self

    def __exit__(self, *exception: object) -> None:
        (self._directory / HEARTBEAT_NAME).unlink(missing_ok=True)
        if self._stacks is not None:
            faulthandler.cancel_dump_traceback_later()
            self._stacks.close()
            (self._directory / STACKS_NAME).unlink(missing_ok=True)

    def tick(self, epoch: int, fraction: float) -> None:
        """Update heartbeat and hang detection between two batches, with the completed fraction of the epoch's training,
        and raise a TimeLimitError if a limit is reached."""
        self.beat(epoch, fraction)
        limit = self._limits.trial_seconds
        if limit is not None and self.seconds >= limit:
            message = f"its time limit of {in_words(limit)} was reached in epoch {epoch}"
            raise TimeLimitError(Cause.TRIAL_TIME_LIMIT, message)
        if self.too_late:
            raise TimeLimitError(Cause.SWEEP_TIME_LIMIT, f"the sweep's time limit was reached in its epoch {epoch}")

    def beat(self, epoch: int, fraction: float) -> None:
        """Update heartbeat and hang detection without checking the limits, for the final scoring."""
        self._arm()
        if time.monotonic() - self._beaten >= _BEAT_SECONDS:
            self._beaten = time.monotonic()
            beat = {"epoch": epoch, "share": fraction, "seconds": self.seconds}
            # A full disk may lose the heartbeat, which is not a result.
            with suppress(OSError):
                write_json(self._directory / HEARTBEAT_NAME, beat, durable=False)

    def _arm(self) -> None:
        if self._stacks is not None and self._limits.stall_seconds is not None:
            faulthandler.dump_traceback_later(self._limits.stall_seconds, exit=True, file=self._stacks)


def read_heartbeat(trial: Path) -> dict[str, Any] | None:
    """The current `epoch`, the completed `share` of its training and the `seconds` so far; None without a heartbeat."""
    try:
        beat: dict[str, Any] = schema.read(trial / HEARTBEAT_NAME, schema.HEARTBEAT)
        return beat
    except (OSError, ValueError):
        return None


def hang(trial: Path) -> str | None:
    """The error message of a trial whose process ended itself because it hung; None if it did not."""
    path = trial / STACKS_NAME
    try:
        with path.open(errors="replace", encoding="utf-8") as file:
            head = file.read(200)
    except OSError:
        return None
    hung = f"it hung: no batch came within --stall-timeout; the stacks of its threads are in {path}"
    return hung if "Timeout" in head else None
