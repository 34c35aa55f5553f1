"""Time limits, the watch for a hang, and the heartbeat of one trial: all that looks in between its batches."""

from __future__ import annotations

import faulthandler
import json
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from sousaphone.files import atomic_write
from sousaphone.runs.directory import Limits
from sousaphone.runs.statuses import Cause
from sousaphone.text import in_words

STACKS_NAME = "stacks.txt"
HEARTBEAT_NAME = "heartbeat.json"
_BEAT_SECONDS = 5.0


class TimeLimitError(Exception):
    """The trial's or the sweep's time is up, as `cause` says; the message says in which epoch."""

    def __init__(self, cause: Cause, message: str) -> None:
        super().__init__(message)
        self.cause = cause


class Watchdog:
    """Runs from its making on; as a context manager it ends the process if the trial hangs.

    A hang is seen by a thread outside of Python (`faulthandler`), which needs nothing that a hung process could
    withhold. It writes every thread's stack to `stacks.txt` and ends the process; the driver then names the end.
    """

    def __init__(self, directory: Path, limits: Limits, seconds: float) -> None:
        """`seconds` at work in earlier starts, by the record; the heartbeat of a killed start may know of more."""
        self._directory, self._limits = directory, limits
        self._before = max(seconds, (read_heartbeat(directory) or {}).get("seconds", 0.0))
        self._began = time.monotonic()
        self._beaten = -_BEAT_SECONDS
        self._stacks: IO[str] | None = None

    @property
    def seconds(self) -> float:
        """At work, earlier starts included."""
        return self._before + time.monotonic() - self._began

    @property
    def too_late(self) -> bool:
        """Whether the sweep's time is up."""
        return self._limits.deadline is not None and time.monotonic() >= self._limits.deadline

    def __enter__(self) -> Watchdog:
        if self._limits.stall_seconds is not None:
            self._stacks = (self._directory / STACKS_NAME).open("w", encoding="utf-8")
        self._arm()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        (self._directory / HEARTBEAT_NAME).unlink(missing_ok=True)
        if self._stacks is not None:
            faulthandler.cancel_dump_traceback_later()
            self._stacks.close()
            (self._directory / STACKS_NAME).unlink(missing_ok=True)

    def tick(self, epoch: int, share: float) -> None:
        """Between two batches.

        Args:
            epoch: the one in work.
            share: of its training that is done.

        Raises:
            TimeLimitError: stop here.
        """
        self.beat(epoch, share)
        limit = self._limits.trial_seconds
        if limit is not None and self.seconds >= limit:
            reached = f"its time limit of {in_words(limit)} was reached in epoch {epoch}"
            raise TimeLimitError(Cause.TRIAL_TIME_LIMIT, reached)
        if self.too_late:
            raise TimeLimitError(Cause.SWEEP_TIME_LIMIT, f"the sweep's time limit was reached in its epoch {epoch}")

    def beat(self, epoch: int, share: float) -> None:
        """As `tick`, without a limit but the watch for a hang: while the end is scored."""
        self._arm()
        if time.monotonic() - self._beaten >= _BEAT_SECONDS:
            self._beaten = time.monotonic()
            beat = {"epoch": epoch, "share": share, "seconds": self.seconds}
            # A sign of life and no result: a full disk may lose it.
            with suppress(OSError), atomic_write(self._directory / HEARTBEAT_NAME, durable=False) as temporary:
                temporary.write_text(json.dumps(beat), encoding="utf-8")

    def _arm(self) -> None:
        if self._stacks is not None and self._limits.stall_seconds is not None:
            faulthandler.dump_traceback_later(self._limits.stall_seconds, exit=True, file=self._stacks)


def read_heartbeat(trial: Path) -> dict[str, Any] | None:
    """`epoch` in work, `share` of its training that is done, `seconds` at work; None where there is none."""
    try:
        beat: dict[str, Any] = json.loads((trial / HEARTBEAT_NAME).read_text(encoding="utf-8"))
        return beat
    except (OSError, ValueError):
        return None


def hang(trial: Path) -> str | None:
    """What to say of a trial whose process ended itself because it hung; None if it did not."""
    try:
        head = (trial / STACKS_NAME).read_text(errors="replace", encoding="utf-8")[:200]
    except OSError:
        return None
    if "Timeout" not in head:
        return None
    return f"it hung: no batch came within --stall-timeout; what it was doing is in {trial / STACKS_NAME}"
