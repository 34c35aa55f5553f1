"""How far a run is, while it runs: a line a finished epoch in the terminal, and RUN/STATUS.md."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from ray import tune

from sousaphone.record import TrialRecord, atomic_write, error_line
from sousaphone.run import RunDirectory

Announce = Callable[[str], None]


class StatusCallback(tune.Callback):
    """Driven by Tune's events in the driver; what it tells is read from the trials' own records.

    It travels in the experiment's saved state, so it holds a path and nothing else of the process.
    """

    def __init__(self, run: Path) -> None:
        self.run = str(run)

    def setup(self, **info: Any) -> None:
        write_status(RunDirectory(Path(self.run)))

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        print(f"{_clock()}  {trial}  starts", flush=True)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        run = RunDirectory(Path(self.run))
        row = {name: float(result.get(name, float("nan"))) for name in ("train_loss", "val_acc", "val_macro_f1")}
        line = (
            f"train_loss {row['train_loss']:.3f}  val_acc {row['val_acc']:.3f}  val_macro_f1 {row['val_macro_f1']:.3f}"
        )
        test = f"  test_acc {result['test_acc']:.3f}" if "test_acc" in result else ""
        left = remaining_seconds(run, str(trial))
        ends = f"  ends about {_clock(left)}" if left else ""
        print(f"{_clock()}  {trial}  epoch {result['epoch']}/{trial.config['epochs']}  {line}{test}{ends}", flush=True)
        write_status(run)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        write_status(RunDirectory(Path(self.run)))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        run = RunDirectory(Path(self.run))
        record = _record(run, str(trial))
        if record is None or record.status == "running":
            # It died before it could say so: its worker was killed, or the trial never began.
            record = record or TrialRecord(str(trial), dict(trial.config))
            record.status, record.error = "failed", error_line(str(trial.get_error()))
            run.trial(str(trial)).mkdir(parents=True, exist_ok=True)
            record.write(run.trial(str(trial)))
        print(f"{_clock()}  {trial}  {record.status}: {record.error}", flush=True)
        write_status(run)


def remaining_seconds(run: RunDirectory, trial_id: str) -> float | None:
    """Training time that a begun trial still needs, at its own pace so far; None before its first epoch."""
    record = _record(run, trial_id)
    if record is None or not record.history:
        return None
    return record.train_seconds / len(record.history) * (record.config["epochs"] - len(record.history))


def write_status(run: RunDirectory) -> None:
    """Bring RUN/STATUS.md up to date, whole or not at all."""
    plan = run.read_plan()
    rows = []
    for trial_id, config in zip(plan["trial_ids"], plan["trials"], strict=True):
        record = _record(run, trial_id)
        status = record.status if record else "pending"
        history = record.history if record else []
        left = remaining_seconds(run, trial_id) if status == "running" else None
        val = f"{record.best.get('val_acc', float('nan')):.3f}" if record and history else ""
        error = (record.error or "").replace("|", "\\|") if record else ""
        rows.append((trial_id, status, f"{len(history)}/{config['epochs']}", val, _clock(left) if left else "", error))
    done = sum(row[1] not in ("pending", "running") for row in rows)
    lines = [
        f"# {run.path.name}: {done} of {len(rows)} trials ended",
        "",
        f"Updated {datetime.now():%Y-%m-%d %H:%M:%S}.",
        *([f"All should have ended about {_clock(whole)}."] if (whole := _whole(run, plan)) else []),
        "",
        *_table(("trial", "status", "epochs", "best val_acc", "ends about", "error"), rows),
        "",
        f"- Results: `{run.report}` (`python -m analysis {run.path}` brings them up to date)",
        f"- Logs, checkpoints, TensorBoard files: `{run.experiment}` (`tensorboard --logdir {run.path}`)",
        f"- To go on after a stop: `{run.resume_command}`",
    ]
    with atomic_write(run.status_page) as temporary:
        temporary.write_text("\n".join(lines) + "\n")


def _whole(run: RunDirectory, plan: dict[str, Any]) -> float | None:
    """Seconds until the whole sweep ends, from the pace of the epochs done so far; None before the first."""
    records = [_record(run, trial_id) for trial_id in plan["trial_ids"]]
    done = [record for record in records if record and record.history]
    epochs_done = sum(len(record.history) for record in done)
    running = sum(record is not None and record.status == "running" for record in records)
    if not epochs_done or not running:
        return None
    pace = sum(record.train_seconds for record in done) / epochs_done
    open_ends = [
        config["epochs"] - (len(record.history) if record else 0)
        for config, record in zip(plan["trials"], records, strict=True)
        if record is None or record.status == "running"
    ]
    return pace * sum(open_ends) / running


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
