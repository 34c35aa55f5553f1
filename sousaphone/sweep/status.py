"""How far a run is, while it runs: a line a finished epoch in the terminal, and RUN/STATUS.md."""

from __future__ import annotations

import heapq
import shlex
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from ray import tune

from sousaphone.record import TrialRecord, atomic_write, now
from sousaphone.run import RunDirectory

Announce = Callable[[str], None]
WORKER_DIED = "its worker process died"


class StatusCallback(tune.Callback):
    """Driven by Tune's events in the driver; what it tells is read from the trials' own records.

    It travels in the experiment's saved state and so holds nothing: the run is where the trial is, also after a move.
    """

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        print(f"{_clock()}  {trial}  starts", flush=True)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        run = _run_of(trial)
        row = {name: float(result.get(name, float("nan"))) for name in ("train_loss", "val_acc", "val_macro_f1")}
        line = (
            f"train_loss {row['train_loss']:.3f}  val_acc {row['val_acc']:.3f}  val_macro_f1 {row['val_macro_f1']:.3f}"
        )
        test = f"  test_acc {result['test_acc']:.3f}" if "test_acc" in result else ""
        left = result["wall_seconds"] * (trial.config["epochs"] - result["epoch"])
        ends = f"  ends about {_clock(left)}" if left else ""
        print(f"{_clock()}  {trial}  epoch {result['epoch']}/{trial.config['epochs']}  {line}{test}{ends}", flush=True)
        write_status(run)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        write_status(_run_of(trial))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        run = _run_of(trial)
        record = _record(run, str(trial))
        if record is None or record.status == "running":
            # It died before it could say so; what Ray knows comes after this call, and into the record at the end.
            record = record or TrialRecord(str(trial), dict(trial.config))
            record.status, record.ended = "failed", now()
            run.trial(str(trial)).mkdir(parents=True, exist_ok=True)
            record.write(run.trial(str(trial)))
        print(f"{_clock()}  {trial}  {record.status}: {record.error or WORKER_DIED}", flush=True)
        write_status(run)


def _run_of(trial: Any) -> RunDirectory:
    return RunDirectory(Path(trial.storage.trial_fs_path).parent.parent)


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
    waiting: list[tuple[str, float]] = []
    for trial_id, config, record in zip(plan["trial_ids"], plan["trials"], records, strict=True):
        known = paces.get(config["model"], overall)
        need = sum(known) / len(known) * (config["epochs"] - (len(record.history) if record else 0))
        if record is not None and record.status == "running":
            ends[trial_id] = need
        elif record is None or record.status == "interrupted":
            waiting.append((trial_id, need))
    places = sorted(ends.values()) or [0.0]
    for trial_id, need in waiting:
        ends[trial_id] = heapq.heapreplace(places, places[0] + need) + need
    return ends


def write_status(run: RunDirectory) -> None:
    """Bring RUN/STATUS.md up to date, whole or not at all."""
    plan = run.read_plan()
    records = [_record(run, trial_id) for trial_id in plan["trial_ids"]]
    ends = seconds_left(plan, records)
    rows = []
    for trial_id, config, record in zip(plan["trial_ids"], plan["trials"], records, strict=True):
        status = record.status if record else "pending"
        epochs = f"{len(record.history) if record else 0}/{config['epochs']}"
        val_acc = f"{record.best['val_acc']:.3f}" if record and record.best else ""
        end = _clock(ends[trial_id]) if trial_id in ends else ""
        error = (record.error or "").replace("|", "\\|") if record else ""
        rows.append((trial_id, status, epochs, val_acc, end, error))
    done = sum(row[1] not in ("pending", "running", "interrupted") for row in rows)
    here = shlex.quote(str(run.path))
    lines = [
        f"# {run.path.name}: {done} of {len(rows)} trials ended",
        "",
        f"Updated {datetime.now():%Y-%m-%d %H:%M:%S}.",
        *([f"All should have ended about {_clock(max(ends.values()))}."] if ends else []),
        "",
        *_table(("trial", "status", "epochs", "val_acc (best epoch)", "ends about", "error"), rows),
        "",
        f"- Results: `{run.report}` (`python -m analysis {here}` brings them up to date)",
        f"- Logs, checkpoints, TensorBoard files: `{run.experiment}` (`tensorboard --logdir {here}`)",
        f"- To go on after a stop: `{run.resume_command}`",
    ]
    with atomic_write(run.status_page) as temporary:
        temporary.write_text("\n".join(lines) + "\n")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]


def _record(run: RunDirectory, trial_id: str) -> TrialRecord | None:
    try:
        return TrialRecord.read(run.trial(trial_id))
    except ValueError:
        return None


def _clock(seconds_from_now: float = 0.0) -> str:
    """The time of day then, with the date if it is another day."""
    then = datetime.fromtimestamp(time.time() + seconds_from_now)
    return f"{then:%H:%M:%S}" if then.date() == datetime.now().date() else f"{then:%Y-%m-%d %H:%M}"
