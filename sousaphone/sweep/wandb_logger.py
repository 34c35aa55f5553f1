"""Optional logging to Weights & Biases: each trial is a W&B run, whose rows are the epochs of the trial's record.

Unless WANDB_MODE is set, the files stay offline in RUN/wandb, for `wandb sync`, and need no account.
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
_TAG = 64  # most characters of a tag of W&B
_TIMEOUTS = {"init_timeout": 30.0, "finish_timeout": 15.0}  # Tune waits meanwhile
# The open W&B run of each trial, and the directory of the trial's record. Not an attribute of the callback, which Ray
# saves with the experiment.
_open: dict[str, tuple[Any, Path]] = {}


class TrackerCallback(tune.Callback):
    """Writes each trial to its own W&B run: named by the trial, grouped by the run, one row per epoch."""

    def on_trial_start(self, trial: Any, **info: Any) -> None:
        _finish(str(trial), 1)  # left open by an experiment that Ray aborted
        _begin(trial)
        _log(str(trial))

    def on_trial_result(self, trial: Any, result: dict[str, Any], **info: Any) -> None:
        _log(str(trial))

    def on_trial_complete(self, trial: Any, **info: Any) -> None:
        _finish(str(trial))

    def on_trial_error(self, trial: Any, **info: Any) -> None:
        _finish(str(trial), 1)

    def on_experiment_end(self, **info: Any) -> None:
        close_trackers()


def close_trackers() -> None:
    """Finish all open W&B runs; return when they are on disk."""
    for trial in list(_open):
        _finish(trial)
    _wandb().teardown()


def _begin(trial: Any) -> None:
    wandb, run = _wandb(), run_of(trial.storage)
    plan, config = run.read_plan(), TrainConfig(**trial.config)
    identity = wandb_id(run, str(trial))
    # Unsent offline files, often empty after a kill, are removed: all epochs are logged again.
    for directory in (run.path / "wandb").glob(f"offline-run-*-{identity}"):
        if not any(directory.glob("*.synced")):
            shutil.rmtree(directory, ignore_errors=True)
    try:
        tracked = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
            group=str(plan.get("name") or run.path.name),
            name=str(trial),
            id=identity,
            resume="allow",
            reinit="create_new",  # trials that run at the same time have their own
            dir=str(run.path),  # W&B appends `wandb`
            mode=os.environ["WANDB_MODE"],
            config=dataclasses.asdict(config),
            tags=[f"{name}={getattr(config, name)}"[:_TAG] for name in plan.get("searched", [])],
            allow_val_change=True,
            settings=wandb.Settings(console="off", silent=True, stop_fn=lambda: None, **_TIMEOUTS),
        )
    except wandb.Error as error:
        print(f"{trial} is not tracked: {one_line(error, 300)}", flush=True)
        return
    _open[str(trial)] = tracked, run.trial(str(trial))


def _log(trial: str) -> None:
    """Log the rows of the trial's record that W&B does not have yet; after a restart, all of them.

    The rows come from the record because a trial writes it before it reports to Ray. A row stays open until the next
    one, so the last epoch is logged again with its test metrics.
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
    _log(trial)  # after a stop, the last epoch may not be logged yet
    if trial in _open:
        _open.pop(trial)[0].finish(exit_code)


def wandb_id(run: RunDirectory, trial_id: str) -> str:
    """Return the W&B id of a trial: the same after restarts and moves, different in each run."""
    plan = run.read_plan()
    origin = f"{plan.get('name')} {plan.get('created')} {(plan.get('provenance') or {}).get('host')}"
    return f"{trial_id}-{hashlib.sha256(origin.encode()).hexdigest()[:8]}"


def check_tracker() -> None:
    """Raise a UserError if WANDB_MODE requires an account and W&B has none."""
    wandb, mode = _wandb(), os.environ["WANDB_MODE"]
    try:
        ready = mode in ("offline", "disabled") or wandb.login(prompt=False, verify=False)
    except (wandb.Error, ValueError) as error:
        raise UserError(f"--tracker wandb: {one_line(error, 300)}") from error
    if not ready:
        raise UserError(
            f"--tracker wandb: WANDB_MODE is {mode!r} and W&B has no account; run `wandb login`, set WANDB_API_KEY, "
            "or unset WANDB_MODE to stay offline"
        )


def sync_line(run: RunDirectory) -> str | None:
    """Return the command that sends the offline files; None if there are none."""
    if not any((run.path / "wandb").glob("offline-run-*")):
        return None
    return f"wandb sync {shlex.quote(str(run.path / 'wandb'))}/offline-run-*"


def _wandb() -> ModuleType:
    """Import wandb after setting its environment, so that offline nothing is sent, error reports included."""
    if os.environ.setdefault("WANDB_MODE", "offline") == "offline":
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb

    return wandb
