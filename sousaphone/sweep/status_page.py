"""How far a run is, for a person: RUN/STATUS.md."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sousaphone.config import SEARCH
from sousaphone.files import atomic_write
from sousaphone.planning.schedule import clock, schedule
from sousaphone.runs import learning_rates
from sousaphone.runs.directory import RunDirectory
from sousaphone.runs.statuses import Status
from sousaphone.runs.trial_record import TrialRecord


def seconds_left(plan: dict[str, Any], records: Sequence[TrialRecord | None]) -> dict[str, float]:
    """When each trial that has not ended should end, in seconds from now; empty before the first epoch is done.

    A trial goes on at its own pace, one that has not begun at that of its backbone so far (of all, if it is the
    first), and takes the place that is free first.
    """
    paces: dict[str, list[float]] = {}
    for record in records:
        for row in record.history if record else ():
            paces.setdefault(record.config["model"] if record else "", []).append(row["wall_seconds"])
    if not paces:
        return {}
    overall = [pace for model in paces.values() for pace in model]
    ends: dict[str, float] = {}
    waiting: dict[str, float] = {}
    for trial_id, config, record in zip(plan["trial_ids"], plan["trials"], records, strict=True):
        known = paces.get(config["model"], overall)
        need = sum(known) / len(known) * (config["epochs"] - (len(record.history) if record else 0))
        if record is not None and record.status is Status.RUNNING:
            ends[trial_id] = need
        elif record is None or record.status is Status.INTERRUPTED:
            waiting[trial_id] = need
    free = max(plan.get("at_once", 1) - len(ends), 0)  # one trial has just ended and the next not yet begun
    later = schedule(waiting.values(), [*ends.values(), *[0.0] * free])
    return {**ends, **dict(zip(waiting, later, strict=True))}


def write_status(run: RunDirectory) -> None:
    """Bring RUN/STATUS.md up to date, whole or not at all. It is only a view: a full disk leaves it as it was."""
    plan = run.read_plan()
    records = read_records(run, plan)
    going = any(record is not None and record.status is Status.RUNNING for record in records)
    ends = seconds_left(plan, records) if going else {}
    rows, trials = [], []
    for trial_id, config, record in zip(plan["trial_ids"], plan["trials"], records, strict=True):
        status = record.status if record else Status.PENDING
        epochs = f"{len(record.history) if record else 0}/{config['epochs']}"
        val_acc = f"{record.best['val_acc']:.3f}" if record and record.best else ""
        end = clock(ends[trial_id]) if trial_id in ends else ""
        reason = (record.reason or "").replace("|", "\\|") if record and not status.is_full else ""
        rows.append((trial_id, status, epochs, val_acc, end, reason))
        trials.append((status, record.cause if record else None))
    done = sum(status.has_ended for status, _ in trials)
    here = shlex.quote(str(run.path))
    lines = [
        f"# {run.path.name}: {done} of {len(rows)} trials ended",
        "",
        f"Updated {datetime.now():%Y-%m-%d %H:%M:%S}.",
        *([f"All should have ended about {clock(max(ends.values()))}."] if ends else []),
        "",
        *_table(("trial", "status", "epochs", "val_acc (best epoch)", "ends about", "why"), rows),
        "",
        # A search's trials are no results, and it gets no report.
        f"- Results: `{run.path / learning_rates.FILE}`, once it has ended"
        if plan.get("config") == SEARCH
        else f"- Results: `{run.report}` (`python -m analysis {here}` brings them up to date)",
        f"- Records, checkpoints, TensorBoard files: `{run.path / 'trials'}` (`tensorboard --logdir {here}`)",
        *(f"- {what}: `{line}`" for what, line in run.next_steps(trials) if line),
    ]
    try:
        with atomic_write(run.status_page) as temporary:
            temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    except OSError:
        pass


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]


def read_records(run: RunDirectory, plan: dict[str, Any]) -> list[TrialRecord | None]:
    """The record of every planned trial; None where there is none, or a damaged one."""
    return [TrialRecord.find(run.trial(trial_id)) for trial_id in plan["trial_ids"]]
