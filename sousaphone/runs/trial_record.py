"""The record of a trial, trial.json, and the names of its other files.

Imports neither torch nor Ray, so that the report can read a run anywhere.
"""

from __future__ import annotations

import dataclasses
import errno
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Le

from sousaphone.files import read_small, write_json
from sousaphone.runs import schema
from sousaphone.runs.statuses import Cause, Status

RECORD_NAME = "trial.json"
PREDICTIONS_NAME = "predictions.parquet"
ADAPTER_NAME, OLDER_ADAPTER_NAME = "adapter.safetensors", "adapter.pt"  # older: of versions before safetensors
CHECKPOINTS_NAME = "checkpoints"
MAX_OOM_RETRIES = 2  # with half the micro-batch each, before the trial ends as out_of_memory

_ERROR_LINE = re.compile(r"^[A-Za-z_][\w.]*(?:Error|Exception|Exit|Interrupt)\b.*", re.MULTILINE)
_HEADING = re.compile(r"^Failure # .*$", re.MULTILINE)  # above each error in Ray's error.txt
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")

_Retries = Annotated[int, Ge(0), Le(64)]
_OLDER = schema.fields(halvings=_Retries)  # name of oom_retries in older records


@dataclass
class TrialRecord:
    """The configuration, status, metrics and provenance of a trial; times are ISO 8601 in UTC, durations in seconds."""

    __pydantic_config__ = schema.STRICT
    trial_id: schema.Id
    config: dict[schema.Text, schema.Scalar]  # the trial's TrainConfig as a dict
    status: Status = Status.RUNNING
    cause: Cause | None = None  # of the status; None until the trial ends, and in records older than this field
    reason: schema.Text | None = None  # the cause as text
    error: schema.Text | None = None  # the last line of `traceback`, or the error as text
    traceback: schema.Lines | None = None
    started: schema.Text = ""
    updated: schema.Text = ""
    ended: schema.Text | None = None
    seconds: schema.Seconds = 0.0  # wall time over all starts, compared with the trial's time limit
    oom_retries: _Retries = 0  # number of times the micro-batch was halved after running out of memory
    # Metrics of each epoch, in order; the last epoch also has the test metrics.
    history: schema.History = field(default_factory=list)
    parameters: Annotated[dict[str, Any], schema.PARAMETERS] = field(default_factory=dict)
    lora: Annotated[dict[str, Any], schema.LORA] = field(default_factory=dict)
    weights: Annotated[dict[str, Any], schema.WEIGHTS] = field(default_factory=dict)
    data: Annotated[dict[str, Any], schema.DATA] = field(default_factory=dict)
    provenance: Annotated[dict[str, Any], schema.PROVENANCE] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.status, self.cause = Status(self.status), None if self.cause is None else Cause(self.cause)
        if self.cause is not None and self.cause.status is not self.status:
            raise ValueError(f"the cause {self.cause} does not lead to the status {self.status}")

    def end(self, cause: Cause, reason: str | None, error: str | None = None) -> None:
        """Record the end. A trial that had ended already, and whose cause is found only now, keeps its end time."""
        if self.ended is None or not self.status.has_ended:
            self.ended = now()
        self.status, self.cause, self.reason, self.error = cause.status, cause, reason, error

    @property
    def best(self) -> dict[str, Any]:
        """The metrics of the epoch with the best validation score; empty before the first epoch ends."""
        return self.history[self.history[-1]["best_epoch"] - 1] if self.history else {}

    @property
    def test(self) -> dict[str, Any]:
        """The test metrics; empty until the trial has ended well."""
        last = self.history[-1] if self.history else {}
        return {key: value for key, value in last.items() if key.startswith("test_")}

    def write(self, directory: Path) -> None:
        """Write trial.json to the directory, atomically; numbers that are not finite become null."""
        self.updated = now()
        write_json(directory / RECORD_NAME, plain(dataclasses.asdict(self)), indent=1, allow_nan=False)

    @classmethod
    def read(cls, directory: Path) -> TrialRecord | None:
        """Read the record in the directory; None if there is none. Raise a ValueError if it is damaged."""
        path = directory / RECORD_NAME
        if not path.is_file():
            return None
        content = read_small(path)
        record: TrialRecord = schema.parse(content, cls, str(path))
        if b'"halvings"' in content:
            record.oom_retries = record.oom_retries or schema.parse(content, _OLDER, str(path)).get("halvings", 0)
        return record

    @classmethod
    def find(cls, directory: Path) -> TrialRecord | None:
        """Read the record in the directory; None if there is none or it is damaged."""
        try:
            return cls.read(directory)
        except (ValueError, OSError):
            return None


def adapter_file(directory: Path) -> Path | None:
    """Return the file of a trial's trained weights; None before there are any."""
    paths = (directory / ADAPTER_NAME, directory / OLDER_ADAPTER_NAME)
    return next((path for path in paths if path.is_file()), None)


def predictions_name(tested: str) -> str:
    """Return the name of the file with the logits of the test clips (`test`), the validation clips (`val`) or a further
    data set."""
    return PREDICTIONS_NAME if tested == "test" else f"predictions_{tested}.parquet"


def error_line(text: str) -> str:
    """Return the last line of a traceback that names an exception, above Ray's advice, else its first line."""
    plain = _HEADING.sub("", _COLOUR.sub("", text)).strip()
    lines = _ERROR_LINE.findall(plain) or plain.splitlines()[:1] or [""]
    return str(lines[-1]).strip()


def cause_in(ray_error: str) -> Cause:
    """Return the cause of a failure by the wording of Ray's error, which is only available as text."""
    if "OutOfMemoryError" in ray_error or "running low on memory" in ray_error:
        return Cause.MEMORY
    disk_full = "No space left on device" in ray_error or f"[Errno {errno.ENOSPC}]" in ray_error
    return Cause.DISK_FULL if disk_full else Cause.ERROR


def now() -> str:
    """Return the current time, ISO 8601, UTC, in whole seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def plain(value: Any) -> Any:
    """Convert to JSON types; numbers that are not finite become None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
