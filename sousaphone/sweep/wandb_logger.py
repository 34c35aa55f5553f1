"""Weights & Biases, for who wants it: Ray's own callback, told what a run of ours is.

Ray's callback, left to itself, names each W&B run by an id that Tune draws anew at every launch, shows what Ray heard
(which lacks epochs after a restart), and needs an account. Here the id is the trial's own, the rows are those of the
trial's record, and without WANDB_MODE all of it stays in RUN/wandb, for `wandb sync`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shlex
import shutil
import weakref
from typing import Any

import ray
from ray.air.integrations.wandb import WandbLoggerCallback
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sousaphone.config import TrainConfig
from sousaphone.errors import UserError
from sousaphone.runs.directory import RunDirectory
from sousaphone.runs.trial_record import TrialRecord
from sousaphone.sweep.trainable import run_of

PROJECT = "sousaphone"
# Offline nothing is sent anywhere, reports of W&B's own errors included.
_OFFLINE = {"WANDB_MODE": "offline", "WANDB_ERROR_REPORTING": "false"}


class _Logger(WandbLoggerCallback._logger_actor_cls):
    """Ray's logging process, which Ray kills as soon as it is done: with it goes W&B's own service, whose buffer may
    not be on disk yet. This one is done when that is."""

    def run(self) -> None:
        super().run()
        self._wandb.teardown()


class TrackerCallback(WandbLoggerCallback):
    """Writes each trial to a W&B run of its own: named by the trial, grouped by the run, one row an epoch.

    It travels in the experiment's saved state and so holds no path: the run is where the trial is, also after a move.
    For each trial Ray starts a process that talks to W&B and one that holds a queue to it; both end with the trial, or
    with the driver.
    """

    _logger_actor_cls = _Logger
    _remote_logger_class: Any

    def __init__(self) -> None:
        super().__init__()
        self._logged: dict[str, int] = {}  # the last epoch that each trial's W&B run has

    def setup(self, *arguments: Any, **info: Any) -> None:
        _stay_offline()
        self.project = os.environ.get("WANDB_PROJECT") or PROJECT
        super().setup(*arguments, **info)
        _begun.add(self)

    def log_trial_start(self, trial: Any) -> None:
        super().log_trial_start(trial)
        self._logged[str(trial)] = 0
        self._catch_up(trial)

    def log_trial_result(self, iteration: int, trial: Any, result: dict[str, Any]) -> None:
        # The last epoch may come again, with the test clips scored by now.
        self._logged[str(trial)] = min(self._logged[str(trial)], result.get("epoch", 1) - 1)
        self._catch_up(trial)

    def log_trial_end(self, trial: Any, failed: bool = False) -> None:
        if self._logged.pop(str(trial), None) is not None:  # it was begun, and is not over yet
            super().log_trial_end(trial, failed)

    def close(self, seconds: float) -> None:
        """End what is open, for an experiment that Tune does not bring to its end. W&B holds rows back until then."""
        self._upload_timeout = seconds
        for trial in list(self._trial_queues):
            if str(trial) in self._logged:  # the stop may have come before an epoch that the terminal has shown
                self._catch_up(trial)
            self.log_trial_end(trial)
        self.on_experiment_end([])

    def _catch_up(self, trial: Any) -> None:
        """Log what the record has and W&B has not: after a restart all epochs so far. Ray may never have heard of
        some: a trial writes its record before it reports."""
        record = TrialRecord.find(run_of(trial.storage).trial(str(trial)))
        for row in (record.history if record else [])[self._logged[str(trial)] :]:
            super().log_trial_result(0, trial, {**row, "training_iteration": row["epoch"]})  # W&B's step
            self._logged[str(trial)] = row["epoch"]

    def _start_logging_actor(self, trial: Any, exclude_results: list[str], **wandb_init_kwargs: Any) -> None:
        # Where Ray puts together what `wandb.init` gets; what can be given from outside is the same for all trials.
        run = run_of(trial.storage)
        own: dict[str, Any] = {
            "id": wandb_id(run, str(trial)),
            "resume": "allow",
            "group": str(run.read_plan().get("name") or run.path.name),
            "dir": str(run.path),  # W&B adds the `wandb`
            "mode": os.environ.get("WANDB_MODE"),
            "config": dataclasses.asdict(TrainConfig(**trial.config)),  # Ray's has no defaults
            "settings": {"console": "off"},
        }
        _drop_unsent(run, own["id"])
        if self._remote_logger_class is None:
            # As Ray would, but for its endless restarts: a logger that died has lost its W&B run.
            here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
            environment = {name: value for name, value in os.environ.items() if name.startswith("WANDB_")}
            self._remote_logger_class = ray.remote(
                num_cpus=0, scheduling_strategy=here, runtime_env={"env_vars": environment}
            )(self._logger_actor_cls)
        super()._start_logging_actor(trial, exclude_results, **{**wandb_init_kwargs, **own})


_begun: weakref.WeakSet[TrackerCallback] = weakref.WeakSet()


def close_trackers(seconds: float = 15.0) -> None:
    """End what this process's trackers have open; whatever takes longer is killed."""
    for tracker in list(_begun):
        tracker.close(seconds)


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
        UserError: W&B is not installed, or is to be online and knows no account.
    """
    _stay_offline()
    try:
        callback = TrackerCallback()
        callback.setup()
    except RuntimeError as error:
        raise UserError(f"--tracker wandb: {error}") from error
    except ValueError as error:
        raise UserError(
            f"--tracker wandb: WANDB_MODE is {os.environ['WANDB_MODE']!r} and W&B knows no account; run `wandb login`, "
            "set WANDB_API_KEY, or leave WANDB_MODE out to stay offline"
        ) from error


def sync_line(run: RunDirectory) -> str | None:
    """The line that sends what was tracked offline; None where nothing was."""
    if not any((run.path / "wandb").glob("offline-run-*")):
        return None
    return f"wandb sync {shlex.quote(str(run.path / 'wandb'))}/offline-run-*"


def _stay_offline() -> None:
    if os.environ.get("WANDB_MODE", "offline") == "offline":
        for name, value in _OFFLINE.items():
            os.environ.setdefault(name, value)
