"""What one trial leaves behind, written and read in one place: trial.json, its predictions, its adapter.

Light: imports neither torch nor Ray, so that the report can read a run anywhere.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sousaphone.files import atomic_write
from sousaphone.runs.statuses import Cause, Status

RECORD_NAME = "trial.json"
PREDICTIONS_NAME = "predictions.parquet"
ADAPTER_NAME = "adapter.pt"
CHECKPOINTS_NAME = "checkpoints"
MAX_OOM_RETRIES = 2  # of a trial's micro-batch, before it ends as out_of_memory

_ERROR_LINE = re.compile(r"^[A-Za-z_][\w.]*(?:Error|Exception|Exit|Interrupt)\b.*", re.MULTILINE)
_HEADING = re.compile(r"^Failure # .*$", re.MULTILINE)  # over each account in Ray's error.txt
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@dataclass
class TrialRecord:
    """One trial's whole story; every time is ISO 8601 in UTC, every duration in seconds."""

    trial_id: str
    config: dict[str, Any]  # the trial's TrainConfig as a dict
    status: Status = Status.RUNNING
    cause: Cause | None = None  # why it came to its status; None until it ends, and in records older than this field
    reason: str | None = None  # the same in words, whatever the end
    error: str | None = None  # the last line of what went wrong; `traceback` is all of it
    traceback: str | None = None
    started: str = ""
    updated: str = ""
    ended: str | None = None
    seconds: float = 0.0  # wall time at work over all starts; what the trial's time limit is compared with
    oom_retries: int = 0  # how often the micro-batch was halved after running out of memory
    # One dict of flat metrics an epoch, the first epoch first; the last holds the test metrics.
    history: list[dict[str, Any]] = field(default_factory=list)
    parameters: dict[str, Any] = field(default_factory=dict)  # total, trainable, adapter (numbers), trainable_percent
    lora: dict[str, Any] = field(default_factory=dict)  # matches (pattern: number of layers), modules, trained_in_full
    # Source ('random' or a path), fingerprint (SHA-256 of the base model's tensors), origin, published, sha256 of the
    # file, format, licence, pretraining, objective, frontend (the features), frontend_mismatch.
    weights: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)  # fingerprint, clips by split, notes
    provenance: dict[str, Any] = field(default_factory=dict)  # git commit, versions, host, device

    def __post_init__(self) -> None:
        self.status, self.cause = Status(self.status), None if self.cause is None else Cause(self.cause)
        if self.cause is not None and self.cause.status is not self.status:
            raise ValueError(f"the cause {self.cause} does not lead to the status {self.status}")

    def end(self, cause: Cause, reason: str | None, error: str | None = None) -> None:
        """Name its end. One that has ended before, and whose cause is only found now, keeps the time of that."""
        if self.ended is None or not self.status.has_ended:
            self.ended = now()
        self.status, self.cause, self.reason, self.error = cause.status, cause, reason, error

    @property
    def best(self) -> dict[str, Any]:
        """The metrics of the epoch with the best validation score; empty before the first epoch ends."""
        if not self.history:
            return {}
        return self.history[self.history[-1]["best_epoch"] - 1]

    @property
    def test(self) -> dict[str, Any]:
        """The test metrics, empty until the trial has ended well."""
        last = self.history[-1] if self.history else {}
        return {key: value for key, value in last.items() if key.startswith("test_")}

    @property
    def train_seconds(self) -> float:
        """Seconds spent in training steps, over all epochs and restarts."""
        return sum(row["epoch_seconds"] for row in self.history)

    def write(self, directory: Path) -> None:
        """Put trial.json into the directory, whole or not at all."""
        self.updated = now()
        with atomic_write(directory / RECORD_NAME) as temporary:
            # NaN is no JSON; a metric that is not a number is null to whoever reads it.
            temporary.write_text(
                json.dumps(plain(dataclasses.asdict(self)), indent=1, allow_nan=False), encoding="utf-8"
            )

    @classmethod
    def read(cls, directory: Path) -> TrialRecord | None:
        """The record in the directory, None where there is none; a ValueError where it is damaged."""
        path = directory / RECORD_NAME
        if not path.is_file():
            return None
        content = json.loads(path.read_text(encoding="utf-8"))
        known = {f.name for f in dataclasses.fields(cls)}
        if not isinstance(content, dict) or not {"trial_id", "config"} <= content.keys():
            raise ValueError(f"{path} is not a trial record")
        content.setdefault("oom_retries", content.get("halvings", 0))  # its name in older records
        return cls(**{key: value for key, value in content.items() if key in known})

    @classmethod
    def find(cls, directory: Path) -> TrialRecord | None:
        """As `read`; a damaged record counts as none."""
        try:
            return cls.read(directory)
        except ValueError:
            return None


def predictions_name(tested: str) -> str:
    """The file with the logits of a set that was scored: of the test clips, or of a further set by its name."""
    return PREDICTIONS_NAME if tested == "test" else f"predictions_{tested}.parquet"


def error_line(text: str) -> str:
    """The line of a traceback that says what went wrong: the last that names an exception.

    Ray's own errors go on below it with advice; where no line names an exception, the first says most.
    """
    plain = _HEADING.sub("", _COLOUR.sub("", text)).strip()
    lines = _ERROR_LINE.findall(plain) or plain.splitlines()[:1] or [""]
    return str(lines[-1]).strip()


def cause_in(account: str) -> Cause:
    """The cause that Ray's account of a failure tells of, for a trial that could not name it itself: the wording
    decides, since Ray hands on a text alone."""
    if "OutOfMemoryError" in account or "running low on memory" in account:
        return Cause.MEMORY
    disk_full = "No space left on device" in account or f"[Errno {errno.ENOSPC}]" in account
    return Cause.DISK_FULL if disk_full else Cause.ERROR


def now() -> str:
    """The time, ISO 8601, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def plain(value: Any) -> Any:
    """With null for every number that JSON has no word for, and with its own kinds of lists and tables."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
