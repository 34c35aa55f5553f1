"""Causes of ends that trials could not record themselves: a killed or hung process, or a full disk."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Sequence
from pathlib import Path

from sousaphone.files import read_small
from sousaphone.runs.directory import RunDirectory
from sousaphone.runs.statuses import Cause, Status
from sousaphone.runs.trial_record import MAX_OOM_RETRIES, TrialRecord, cause_in, error_line
from sousaphone.sweep.status_page import write_status
from sousaphone.training.watchdog import hang


def name_ends(run: RunDirectory, trial_ids: Sequence[str], cause: Cause | None = None, reason: str = "") -> None:
    """Record the end of every trial whose record is still "running".

    Without a cause, the cause is found from Ray's error file or the trial's stack dump; so is that of trials recorded
    as worker_died, whose error file Ray writes later.
    """
    for trial_id in trial_ids:
        directory = run.trial(trial_id)
        record = TrialRecord.find(directory)
        if record is None or not (record.status is Status.RUNNING or record.cause is Cause.WORKER_DIED):
            continue
        if record.status is Status.RUNNING and cause is not None:
            record.end(cause, reason)
        else:
            # Ray writes these files after it has called the callbacks; the newest is read.
            # A trial that continues in the same experiment has a directory with a suffix.
            names = (trial_id, f"{trial_id}_*")
            files = [path for each in run.experiments for name in names for path in each.glob(f"{name}/error.txt")]
            explain(record, directory, _text_of(files[-1]) if files else None)
        with contextlib.suppress(OSError):  # a full disk; "running" without a live driver is read as interrupted
            record.write(directory)
    write_status(run)


def end_pruned(run: RunDirectory, trial_id: str) -> None:
    """Record that the scheduler stopped a trial, if its record is still "running": a trial that ends by itself records
    that before Ray is notified."""
    record = TrialRecord.find(run.trial(trial_id))
    if record is not None and record.status is Status.RUNNING:
        prune(record)
        with contextlib.suppress(OSError):  # on a full disk it is interrupted instead
            record.write(run.trial(trial_id))


def prune(record: TrialRecord) -> None:
    """Set the end of a trial that the scheduler stopped."""
    record.end(Cause.SCHEDULER, f"the scheduler stopped it after epoch {len(record.history)}")


def _text_of(path: Path) -> str | None:
    try:
        return read_small(path).decode(errors="replace")
    except (OSError, ValueError):
        return None


def explain(record: TrialRecord, directory: Path, ray_error: str | None) -> None:
    """Set the cause of a failure in the record, from the content of Ray's error file (None: not written yet)."""
    cause, reason = Cause.WORKER_DIED, "its worker process exited unexpectedly"
    if ray_error:
        cause, reason = cause_in(ray_error), error_line(ray_error)
    # Too little space even for a trial's record; the trial's own directory may not exist yet.
    if cause is Cause.DISK_FULL or shutil.disk_usage(directory.parents[1]).free < 2**20:
        cause, reason = Cause.DISK_FULL, "the disk is full; free some space, then resume"
    elif cause is Cause.MEMORY:
        reason = "Ray ended it because the machine's memory ran out"
        record.oom_retries = min(MAX_OOM_RETRIES, record.oom_retries + 1)  # for --retry-failed
    elif hung := hang(directory):
        cause, reason = Cause.HUNG, hung
    record.end(cause, reason, reason)
