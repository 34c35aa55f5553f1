"""The ends that trials could not name themselves: their process was killed, hung, or the disk was full."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Sequence
from pathlib import Path

from sousaphone.runs.directory import RunDirectory
from sousaphone.runs.trial_record import MOST_HALVINGS, TrialRecord, error_line, now
from sousaphone.sweep.status import write_status
from sousaphone.training.watchdog import hang

WORKER_DIED = "its worker process died"


def name_ends(run: RunDirectory, trial_ids: Sequence[str], status: str, reason: str | None) -> None:
    """Give every record that still says "running" the status and the reason, or the cause of its failure as far as
    Ray or a stack dump tells it."""
    for trial_id in trial_ids:
        directory = run.trial(trial_id)
        try:
            record = TrialRecord.read(directory)
        except ValueError:
            continue
        unexplained = record is not None and record.status == "failed" and record.error in (None, WORKER_DIED)
        if record is None or not (record.status == "running" or unexplained):
            continue
        if record.status == "running":
            record.status, record.reason = status, reason
        if record.status == "failed":
            explain(record, directory, _account(run, trial_id))
        record.ended = record.ended or now()
        with contextlib.suppress(OSError):  # a full disk; who reads "running" without a driver knows what it means
            record.write(directory)
    write_status(run)


def explain(record: TrialRecord, directory: Path, account: str | None) -> None:
    """Put the cause of a failure on record.

    Args:
        account: Ray's own words, None as long as there are none.
    """
    record.error = hang(directory) or (error_line(account) if account else WORKER_DIED)
    if account and "running low on memory" in account:
        record.status, record.error = "out_of_memory", "Ray ended it because the machine's memory ran out"
        # What --retry-failed begins with.
        record.halvings = min(MOST_HALVINGS, record.halvings + 1)
    if (account and "No space left on device" in account) or _disk_is_full(directory):
        record.status, record.error = "interrupted", "the disk is full; free some space, then resume"
    record.reason = record.error


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
