"""RUN/STATUS.md, the human-readable progress of a run."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from statistics import fmean
from typing import Any

from sousaphone.config import RATES
from sousaphone.files import atomic_write
from sousaphone.planning.schedule import clock, schedule
from sousaphone.runs import learning_rates
from sousaphone.runs.directory import RunDirectory
from sousaphone.runs.statuses import Status
from sousaphone.runs.trial_record import TrialRecord
from sousaphone.search.progress import Progress
from sousaphone.text import code_span, escape_markdown


def seconds_left(plan: dict[str, Any], records: Sequence[TrialRecord | None]) -> dict[str, float]:
    """Return the expected end of each trial that has not ended, trials that a searcher has yet to propose included, in
    seconds from now; empty before the first epoch ends. A trial of a search ends at its next rung.

    An epoch takes the mean time of its backbone's epochs so far, or of all epochs if the backbone has none. A waiting
    trial takes the place that becomes free first. Raises a ValueError if the plan's search is damaged.
    """
    epoch_seconds: dict[str, list[float]] = {}
    for begun in filter(None, records):
        for row in begun.history:
            epoch_seconds.setdefault(str(begun.config.get("model")), []).append(row.get("wall_seconds") or 0.0)
    if not epoch_seconds:
        return {}
    overall = [seconds for model in epoch_seconds.values() for seconds in model]

    def seconds(model: str, epochs: int) -> float:
        return fmean(epoch_seconds.get(model, overall)) * epochs

    progress = Progress.of(plan, records) if plan.get("search") else None
    searching = progress if progress and not progress.has_finalists else None
    ends: dict[str, float] = {}
    waiting: dict[str, float] = {}
    for trial_id, config, record in zip(plan["trial_ids"], plan["trials"], records, strict=True):
        epochs = config.get("epochs", 0) - (len(record.history) if record else 0)
        if record is not None and record.status is Status.RUNNING:
            ends[trial_id] = seconds(
                config.get("model", ""), searching.epochs_to_rung(trial_id) if searching else epochs
            )
        elif not searching and (record is None or record.status is Status.INTERRUPTED):
            waiting[trial_id] = seconds(config.get("model", ""), epochs)
    if searching:
        for model in searching.search.models:
            finals = searching.search.all_finalists * len(plan["request"]["seeds"])
            parts = [*searching.parts_left(model, ends), *[plan["trials"][0]["epochs"]] * finals]
            waiting |= {f"{model} {number}": seconds(model, epochs) for number, epochs in enumerate(parts)}
    else:
        for number in range(len(records), plan.get("planned", 0)):  # trials that a searcher has yet to propose
            waiting[f"proposal {number}"] = seconds("", plan["trials"][0].get("epochs", 0))
    free = max(plan.get("at_once", 1) - len(ends), 0)  # a trial has just ended, and the next has not started yet
    later = schedule(waiting.values(), [*ends.values(), *[0.0] * free])
    return {**ends, **dict(zip(waiting, later, strict=True))}


def write_status(run: RunDirectory) -> None:
    """Update RUN/STATUS.md atomically. It only repeats other files, so a full disk is not an error."""
    plan = run.read_plan()
    records = read_records(run, plan)
    is_running = any(record is not None and record.status is Status.RUNNING for record in records)
    with run.checking():
        ends = seconds_left(plan, records) if is_running else {}
    rows, steps = [], {}
    for trial_id, config, record in zip(plan["trial_ids"], plan["trials"], records, strict=True):
        status = record.status if record else Status.PENDING
        epochs = f"{len(record.history) if record else 0}/{config.get('epochs', '?')}"
        val_acc = f"{best:.3f}" if record and (best := record.best.get("val_acc")) is not None else ""
        end = clock(ends[trial_id]) if trial_id in ends else ""
        reason = escape_markdown(record.reason or "") if record and not status.is_full else ""
        rows.append((trial_id, status, epochs, val_acc, end, reason))
        steps[trial_id] = (status, record.cause if record else None)
    ended = sum(status.has_ended for status, _ in steps.values())
    here = shlex.quote(str(run.path))
    head = ("trial", "status", "epochs", "val_acc (best epoch)", "ends about", "reason")
    lines = [
        f"# {escape_markdown(run.path.name)}: {ended} of {max(len(rows), plan.get('planned', 0))} trials ended",
        "",
        f"Updated {datetime.now():%Y-%m-%d %H:%M:%S}.",
        *([f"Expected end of the last trial: {clock(max(ends.values()))}."] if ends else []),
        "",
        f"| {' | '.join(head)} |",
        "|" + "---|" * len(head),
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
        # A learning-rate search has no report.
        f"- Results: {code_span(str(run.path / learning_rates.FILE))}, written at the end"
        if plan.get("config") == RATES
        else f"- Results: {code_span(str(run.report))} (to update: {code_span(f'python -m analysis {here}')})",
        f"- Records, checkpoints, TensorBoard files: {code_span(str(run.path / 'trials'))} "
        f"({code_span(f'tensorboard --logdir {here}')})",
        *(f"- {purpose}: {code_span(command)}" for purpose, command in run.next_steps(plan, steps) if command),
    ]
    with suppress(OSError), atomic_write(run.status_page) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def read_records(run: RunDirectory, plan: dict[str, Any]) -> list[TrialRecord | None]:
    """Return the record of every planned trial; None where it is missing or damaged."""
    return [TrialRecord.find(run.trial(trial_id)) for trial_id in plan["trial_ids"]]
