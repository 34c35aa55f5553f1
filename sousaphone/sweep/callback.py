"""Terminal output of a running sweep: one line per finished epoch, and a progress line during long epochs."""

from __future__ import annotations

import multiprocessing
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from ray import tune

from sousaphone.planning.schedule import clock
from sousaphone.runs.directory import DriverWatch, RunDirectory
from sousaphone.runs.seal import pickles, seal
from sousaphone.runs.statuses import Status
from sousaphone.runs.trial_record import TrialRecord
from sousaphone.sweep.failures import end_pruned, explain
from sousaphone.sweep.status_page import read_records, seconds_left, write_status
from sousaphone.sweep.trainable import run_of
from sousaphone.text import in_words
from sousaphone.training.watchdog import read_heartbeat

_CHECK_SECONDS = 10.0
_QUIET_SECONDS = 60.0
_SEAL_SECONDS = 1.0


class LiveCallback(tune.Callback):
    """Prints a line at Tune's events in the driver, from the trials' own records.

    Ray saves the callback with the experiment, so it holds no path; the run is found from the trial, even after a move.
    """

    def __init__(self) -> None:
        self.setup()

    def setup(self, **info: Any) -> None:
        # Tune calls it again after a restore: saved times belong to a clock that restarts with the machine.
        self._checked = self._sealed = 0.0
        self._stamps: list[int] = []  # modification times of the sealed files, ns
        self._printed: dict[str, float] = {}  # time of the last line of each trial

    def on_trial_start(self, trial: Any, **info: Any) -> None:
        run = run_of(trial.storage)
        deadline = DriverWatch.begin(run.path).limits.deadline
        if deadline is not None and time.monotonic() >= deadline:  # it is not started; on_trial_complete reports it
            return
        record = TrialRecord.find(run.trial(str(trial)))
        done = len(record.history) if record else 0
        self._print(trial, f"resumes after epoch {done}/{trial.config['epochs']}" if done else "starts")

    def on_trial_result(self, trial: Any, result: dict[str, Any], **info: Any) -> None:
        if "epoch" not in result:  # it ended before its first epoch
            return
        run = run_of(trial.storage)
        names = ("train_loss", "val_acc", "val_macro_f1", "test_acc")
        metrics = "  ".join(f"{name} {result[name]:.3f}" for name in names if result.get(name) is not None)
        self._print(trial, f"epoch {result['epoch']}/{trial.config['epochs']}  {metrics}{_left(run, str(trial))}")
        write_status(run)

    def on_trial_complete(self, trial: Any, **info: Any) -> None:
        run = run_of(trial.storage)
        end_pruned(run, str(trial))
        record = TrialRecord.find(run.trial(str(trial)))
        if record is None or record.status is Status.INTERRUPTED:
            self._print(trial, "not started: the time limit of this launch is reached")
        else:
            self._print(trial, f"{record.status}: {record.reason}")
        write_status(run)

    def on_trial_error(self, trial: Any, **info: Any) -> None:
        parent = multiprocessing.parent_process()
        if parent is not None and not parent.is_alive():  # launch.py was killed, and with it the trial's worker
            return
        run = run_of(trial.storage)
        directory = run.trial(str(trial))
        record = TrialRecord.find(directory)
        if record is None or record.status is Status.RUNNING:
            if not run.exists:  # it was renamed; do not create it again
                return
            # The trial could not record its end. Ray writes its error after this call; `name_ends` adds it later.
            record = record or TrialRecord(str(trial), dict(trial.config))
            explain(record, directory, None)
            with suppress(OSError):  # a full disk; `name_ends` writes the record once there is space
                directory.mkdir(parents=True, exist_ok=True)
                record.write(directory)
        self._print(trial, f"{record.status}: {record.error or record.reason}")
        write_status(run)

    def on_step_end(self, trials: list[Any], **info: Any) -> None:
        if trials and time.monotonic() - self._sealed >= _SEAL_SECONDS:
            self._sealed = time.monotonic()
            experiment = Path(trials[0].storage.experiment_fs_path)
            with suppress(OSError):  # the run was renamed
                files = pickles(experiment)
                if (stamps := [path.stat().st_mtime_ns for path in files]) != self._stamps:
                    self._stamps = stamps
                    seal(experiment, files)
        if time.monotonic() - self._checked < _CHECK_SECONDS:
            return
        self._checked = time.monotonic()
        running = [trial for trial in trials if trial.status == "RUNNING"]
        for trial in running:
            if time.monotonic() - self._printed.get(str(trial), 0.0) < _QUIET_SECONDS:
                continue
            beat = read_heartbeat(run_of(trial.storage).trial(str(trial)))
            if beat is not None:
                self._print(trial, f"epoch {beat['epoch']}/{trial.config['epochs']}: {beat['share']:.0%} trained")
        if running:
            write_status(run_of(running[0].storage))

    def _print(self, trial: Any, message: str) -> None:
        self._printed[str(trial)] = time.monotonic()
        print(f"{clock()}  {trial}  {message}", flush=True)


def _left(run: RunDirectory, trial_id: str) -> str:
    """Return the expected time left of the trial and of the sweep."""
    plan = run.read_plan()
    with run.checking():
        ends = seconds_left(plan, read_records(run, plan))
    if not ends:
        return ""
    own = f"  {in_words(ends[trial_id])} left" if trial_id in ends else ""
    # Further proposals may be pruned at any time; only a search knows its steps.
    if len(plan["trial_ids"]) < plan.get("planned", 0) and not plan.get("search"):
        return own
    return f"{own}  (sweep: {in_words(max(ends.values()))})"
