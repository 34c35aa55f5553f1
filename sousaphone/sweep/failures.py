"""The ends that trials could not name themselves: their process was killed, hung, or the disk was full."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Sequence
from pathlib import Path

from sousaphone.runs.directory import RunDirectory
from sousaphone.runs.statuses import Cause, Status
from sousaphone.runs.trial_record import MAX_OOM_RETRIES, TrialRecord, cause_in, error_line
from sousaphone.sweep.status_page import write_status
from sousaphone.training.watchdog import hang


def name_ends(run: RunDirectory, trial_ids: Sequence[str], cause: Cause | None = None, reason: str = "") -> None:
    """Give every record that still says "running" this end, or without a cause that of a failure, as far as Ray or a
    stack dump tells it."""
    for trial_id in trial_ids:
        directory = run.trial(trial_id)
        record = TrialRecord.find(directory)
        if record is None or not (record.status is Status.RUNNING or record.cause is Cause.WORKER_DIED):
            continue
        if record.status is Status.RUNNING and cause is not None:
            record.end(cause, reason)
        else:
            explain(record, directory, _account(run, trial_id))
        with contextlib.suppress(OSError):  # a full disk; who reads "running" without a driver knows what it means
            record.write(directory)
    write_status(run)


def explain(record: TrialRecord, directory: Path, account: str | None) -> None:
    """Put the cause of a failure on record.

    Args:
        account: Ray's own words, None as long as there are none.
    """
    hung = hang(directory)
    cause, said = Cause.WORKER_DIED, "its worker process died"
    if account:
        cause, said = cause_in(account), error_line(account)
    if _disk_is_full(directory) or cause is Cause.DISK_FULL:
        cause, said = Cause.DISK_FULL, "the disk is full; free some space, then resume"
    elif cause is Cause.MEMORY:
        said = "Ray ended it because the machine's memory ran out"
        # What --retry-failed begins with.
        record.oom_retries = min(MAX_OOM_RETRIES, record.oom_retries + 1)
    elif hung:
        cause, said = Cause.HUNG, hung
    record.end(cause, said, said)


def _disk_is_full(trial: Path) -> bool:
    """Whether there is no room even for a record of the trial, whose directory may not be there yet."""
    return shutil.disk_usage(trial.parents[1]).free < 2**20


def _account(run: RunDirectory, trial_id: str) -> str | None:
    """What Ray wrote of a trial's failure, which it does after it has told the callbacks."""
    for experiment in reversed(run.experiments):
        path = experiment / trial_id / "error.txt"
        if path.is_file():
            return path.read_text(errors="replace", encoding="utf-8")
    return None
