"""What the terminal shows while a run goes on: a line a finished epoch, and a sign of life in long ones."""

from __future__ import annotations

import time
from typing import Any

from ray import tune

from sousaphone.planning.schedule import clock
from sousaphone.runs.directory import DriverWatch, RunDirectory
from sousaphone.runs.statuses import Status
from sousaphone.runs.trial_record import TrialRecord
from sousaphone.sweep.failures import explain
from sousaphone.sweep.status_page import read_records, seconds_left, write_status
from sousaphone.sweep.trainable import run_of
from sousaphone.text import in_words
from sousaphone.training.watchdog import read_heartbeat

_LOOK_SECONDS = 10.0
_QUIET_SECONDS = 60.0


class LiveCallback(tune.Callback):
    """Driven by Tune's events in the driver; what it tells is read from the trials' own records.

    It travels in the experiment's saved state and so holds no path: the run is where the trial is, also after a move.
    """

    def __init__(self) -> None:
        self._looked = 0.0
        self._told: dict[str, float] = {}  # when each trial last had a line

    def setup(self, **info: Any) -> None:
        # What an earlier launch has saved is of a clock that starts anew with the machine.
        self._looked, self._told = 0.0, {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        run = run_of(trial.storage)
        deadline = DriverWatch.begin(run.path).limits.deadline
        if deadline is not None and time.monotonic() >= deadline:  # it waits for another launch, as is said at its end
            return
        record = TrialRecord.find(run.trial(str(trial)))
        done = len(record.history) if record else 0
        self._tell(trial, f"goes on after epoch {done}/{trial.config['epochs']}" if done else "starts")

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        if "epoch" not in result:  # it ended before its first epoch, as its record says
            return
        run = run_of(trial.storage)
        names = ("train_loss", "val_acc", "val_macro_f1", "test_acc")
        numbers = "  ".join(f"{name} {result[name]:.3f}" for name in names if result.get(name) is not None)
        self._tell(trial, f"epoch {result['epoch']}/{trial.config['epochs']}  {numbers}{_left(run, str(trial))}")
        write_status(run)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        run = run_of(trial.storage)
        record = TrialRecord.find(run.trial(str(trial)))
        begun = record is not None and record.status is not Status.INTERRUPTED
        self._tell(
            trial,
            f"{record.status}: {record.reason}"
            if record and begun
            else "not begun: the time limit of this launch is reached",
        )
        write_status(run)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        run = run_of(trial.storage)
        directory = run.trial(str(trial))
        record = TrialRecord.find(directory)
        if record is None or record.status is Status.RUNNING:
            # It died before it could say so; what Ray knows comes after this call, and into the record at the end.
            record = record or TrialRecord(str(trial), dict(trial.config))
            explain(record, directory, None)
            try:
                if not run.exists:  # it was renamed, and is not to be begun anew
                    return
                directory.mkdir(parents=True, exist_ok=True)
                record.write(directory)
            except OSError:  # a full disk; its end is named as soon as there is room
                pass
        self._tell(trial, f"{record.status}: {record.error}")
        write_status(run)

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        if time.monotonic() - self._looked < _LOOK_SECONDS:
            return
        self._looked = time.monotonic()
        running = [trial for trial in trials if trial.status == "RUNNING"]
        for trial in running:
            if time.monotonic() - self._told.get(str(trial), 0.0) < _QUIET_SECONDS:
                continue
            beat = read_heartbeat(run_of(trial.storage).trial(str(trial)))
            if beat is not None:
                self._tell(
                    trial, f"epoch {beat['epoch']}/{trial.config['epochs']} in work, {beat['share']:.0%} trained"
                )
        if running:
            write_status(run_of(running[0].storage))

    def _tell(self, trial: Any, words: str) -> None:
        self._told[str(trial)] = time.monotonic()
        print(f"{clock()}  {trial}  {words}", flush=True)


def _left(run: RunDirectory, trial_id: str) -> str:
    """The time that the trial and the sweep will still take, at the pace so far."""
    plan = run.read_plan()
    ends = seconds_left(plan, read_records(run, plan))
    if not ends:
        return ""
    mine = f"  {in_words(ends[trial_id])} left" if trial_id in ends else ""
    return f"{mine}  (sweep: {in_words(max(ends.values()))})"
