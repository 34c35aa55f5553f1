"""Weights & Biases, for who wants it: each trial a W&B run with the trial's own id, whose rows are those of its record.

Without WANDB_MODE all of it stays in RUN/wandb, for `wandb sync`, and needs no account.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shlex
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

from ray import tune

from sousaphone.config import TrainConfig
from sousaphone.errors import UserError
from sousaphone.runs.directory import RunDirectory
from sousaphone.runs.trial_record import TrialRecord
from sousaphone.sweep.trainable import run_of
from sousaphone.text import one_line

PROJECT = "sousaphone"
_ACCOUNTLESS = ("offline", "disabled")
# The driver waits for W&B while Tune waits for the driver.
_LONGEST = {"init_timeout": 30.0, "finish_timeout": 15.0}
# By trial, the W&B run that this process has open and the directory with the trial's record. It is not the callback's,
# which Ray saves with an experiment.
_open: dict[str, tuple[Any, Path]] = {}


class TrackerCallback(tune.Callback):
    """Writes each trial to a W&B run of its own: named by the trial, grouped by the run, one row an epoch."""

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        _finish(str(trial), 1)  # of an experiment that Ray has broken off
        _begin(trial)
        _log(str(trial))

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        _log(str(trial))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        _finish(str(trial))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        _finish(str(trial), 1)

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        close_trackers()


def close_trackers() -> None:
    """End what is open, and return when it is on disk."""
    for trial in list(_open):
        _finish(trial)
    _wandb().teardown()


def _begin(trial: Any) -> None:
    wandb, run = _wandb(), run_of(trial.storage)
    identity = wandb_id(run, str(trial))
    _drop_unsent(run, identity)
    settings = wandb.Settings(console="off", silent=True, stop_fn=lambda: None, **_LONGEST)
    try:
        tracked = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
            group=str(run.read_plan().get("name") or run.path.name),
            name=str(trial),
            id=identity,
            resume="allow",
            reinit="create_new",  # beside those of the trials that run at the same time
            dir=str(run.path),  # W&B adds the `wandb`
            mode=os.environ["WANDB_MODE"],
            config=dataclasses.asdict(TrainConfig(**trial.config)),
            allow_val_change=True,
            settings=settings,
        )
    except wandb.Error as error:
        print(f"{trial} is not tracked: {one_line(error, 300)}", flush=True)
        return
    _open[str(trial)] = tracked, run.trial(str(trial))


def _log(trial: str) -> None:
    """Log the rows of the record that W&B has not: after a restart all so far. Ray may never have heard of some: a
    trial writes its record before it reports.

    A row stays open until the next one: the last epoch comes again, with the test clips scored by now.
    """
    if trial not in _open:
        return
    tracked, directory = _open[trial]
    try:
        record = TrialRecord.read(directory)
    except ValueError:
        return
    for row in record.history if record else []:
        if row["epoch"] >= tracked.step:
            tracked.log({name: value for name, value in row.items() if value is not None}, step=row["epoch"])


def _finish(trial: str, exit_code: int = 0) -> None:
    _log(trial)  # the stop may have come before an epoch that the terminal has shown
    if trial in _open:
        _open.pop(trial)[0].finish(exit_code)


def _drop_unsent(run: RunDirectory, identity: str) -> None:
    """Remove what earlier starts of a trial left offline: the next one logs all its epochs anew, and of a killed one
    there is often nothing but an empty file."""
    for directory in (run.path / "wandb").glob(f"offline-run-*-{identity}"):
        if not any(directory.glob("*.synced")):
            shutil.rmtree(directory, ignore_errors=True)


def wandb_id(run: RunDirectory, trial_id: str) -> str:
    """A trial's id at W&B, the same after every restart and move, and another in every run: trials of two runs often
    share their names."""
    plan = run.read_plan()
    begun = f"{plan.get('name')} {plan.get('created')} {(plan.get('provenance') or {}).get('host')}"
    return f"{trial_id}-{hashlib.sha256(begun.encode()).hexdigest()[:8]}"


def check_tracker() -> None:
    """
    Raises:
        UserError: W&B is to be online and knows no account.
    """
    wandb, mode = _wandb(), os.environ["WANDB_MODE"]
    try:
        ready = mode in _ACCOUNTLESS or wandb.login(prompt=False, verify=False)
    except (wandb.Error, ValueError) as error:
        raise UserError(f"--tracker wandb: {one_line(error, 300)}") from error
    if not ready:
        raise UserError(
            f"--tracker wandb: WANDB_MODE is {mode!r} and W&B knows no account; run `wandb login`, set WANDB_API_KEY, "
            "or leave WANDB_MODE out to stay offline"
        )


def sync_line(run: RunDirectory) -> str | None:
    """The line that sends what was tracked offline; None where nothing was."""
    if not any((run.path / "wandb").glob("offline-run-*")):
        return None
    return f"wandb sync {shlex.quote(str(run.path / 'wandb'))}/offline-run-*"


def _wandb() -> ModuleType:
    """The package, imported after its environment: offline nothing is sent anywhere, reports of its own errors
    included."""
    if os.environ.setdefault("WANDB_MODE", "offline") == "offline":
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb

    return wandb
