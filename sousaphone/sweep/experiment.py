"""Build or restore a Ray Tune experiment and run it to its end."""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from ray import tune
from ray.tune.logger import CSVLoggerCallback, JsonLoggerCallback

from sousaphone.choices import count_cpus
from sousaphone.config import GOOD_ENDS, PerModel, Sweep, trial_id
from sousaphone.errors import UserError
from sousaphone.record import TrialRecord, error_line, now
from sousaphone.run import EXPERIMENT, RunDirectory
from sousaphone.sweep.status import WORKER_DIED, Announce, StatusCallback, write_status
from sousaphone.sweep.trial import train_fn

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True)
class Resources:
    """What one trial takes, and how many may run at once (None: as many as fit)."""

    cpus_per_trial: float
    gpus_per_trial: float
    max_concurrent: int | None


class InterruptedRunError(RuntimeError):
    """The run was stopped by Ctrl-C or a termination signal."""


def run_sweep(run: RunDirectory, sweep: Sweep, resources: Resources, dashboard: bool, announce: Announce) -> None:
    """Run every trial of a sweep, or what is left of it, and return when none is left.

    A trial that fails does not stop the others. Ray's state is used where it is whole; where a crash came before
    Ray's first snapshot the experiment is built anew in place, and each trial goes on from its own checkpoint.

    Raises:
        InterruptedRunError: on SIGINT or SIGTERM; unfinished trials are marked so.
    """
    # What a killed driver left "running" waits for its turn again.
    _close(run, sweep, "interrupted")
    # In this order: Ray's start puts handlers of its own in place.
    with _ray(dashboard, announce), _signals_interrupt():
        try:
            _tuner(run, sweep, resources).fit()
        except KeyboardInterrupt:
            ignore_signals()
            announce("interrupted: closing the trials and writing the report, some seconds")
            # Workers die with the runtime before anything is written in their name.
            ray.shutdown()
            _close(run, sweep, "interrupted")
            raise InterruptedRunError from None
    _close(run, sweep, "failed")


def _tuner(run: RunDirectory, sweep: Sweep, resources: Resources) -> tune.Tuner:
    trainable = tune.with_resources(train_fn, {"cpu": resources.cpus_per_trial, "gpu": resources.gpus_per_trial})
    experiment = str(run.experiment)
    if run.experiment.is_dir() and tune.Tuner.can_restore(experiment):
        return tune.Tuner.restore(experiment, trainable, resume_unfinished=True)
    return tune.Tuner(
        trainable,
        param_space={key: _for_tune(value) for key, value in sweep.param_space.items()},
        tune_config=tune.TuneConfig(
            metric=sweep.metric,
            mode=sweep.mode,
            scheduler=sweep.scheduler,
            max_concurrent_trials=resources.max_concurrent,
            # A new worker spends seconds importing; a used one starts the next trial at once.
            reuse_actors=True,
            trial_name_creator=_trial_id,
            trial_dirname_creator=_trial_id,
        ),
        run_config=tune.RunConfig(
            name=EXPERIMENT,
            storage_path=str(run.path),
            callbacks=[JsonLoggerCallback(), CSVLoggerCallback(), StatusCallback()],
            failure_config=tune.FailureConfig(max_failures=0, fail_fast=False),
            sync_config=tune.SyncConfig(sync_period=10),
            verbose=0,
        ),
    )


def _for_tune(value: Any) -> Any:
    return tune.sample_from(value) if isinstance(value, PerModel) else value


def _trial_id(trial: Any) -> str:
    # A function of the module, so that any program that imports it can restore the experiment. Tune asks before it
    # has resolved a PerModel, so the configuration is not whole yet.
    return trial_id(trial.config)


def _close(run: RunDirectory, sweep: Sweep, status: str) -> None:
    """Name the end, and the error, of every trial that could not do so itself (its worker was killed)."""
    for trial in sweep.trials():
        directory = run.trial(trial.trial_id)
        try:
            record = TrialRecord.read(directory)
        except ValueError:
            continue
        if record is None:
            continue
        if record.status == "running":
            record.status, record.ended = status, now()
        elif record.status != "failed" or record.error is not None:
            continue
        if record.status == "failed":
            # Ray's own account, which it writes after it has told the callbacks.
            account = directory / "error.txt"
            record.error = error_line(account.read_text(errors="replace")) if account.is_file() else WORKER_DIED
        record.write(directory)
    write_status(run)


def all_ended_well(run: RunDirectory, sweep: Sweep) -> bool:
    """Whether every planned trial ended as completed, early_stopped or time_limit."""
    records = [run.record(trial.trial_id) for trial in sweep.trials()]
    return all(record is not None and record.status in GOOD_ENDS for record in records)


def _check_address(address: str) -> None:
    """
    Raises:
        UserError: nobody answers at HOST:PORT; Ray itself would try for minutes.
    """
    host, _, port = address.rpartition(":")
    if not port.isdigit() or "/" in address:  # "auto" and client addresses are Ray's to resolve
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise UserError(
            f"RAY_ADDRESS {address!r} does not answer ({error}); start the cluster, or unset RAY_ADDRESS"
        ) from error


@contextmanager
def _ray(dashboard: bool, announce: Announce) -> Iterator[None]:
    """A Ray runtime of this program's own, or the cluster named by RAY_ADDRESS."""
    address = os.environ.get("RAY_ADDRESS")
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        # Trials pass no objects through Ray's store, so it needs none of the memory.
        options |= {"include_dashboard": dashboard, "dashboard_host": "127.0.0.1", "object_store_memory": 100 * 2**20}
        options |= {"num_cpus": count_cpus()}
    else:
        _check_address(address)
        options |= {"address": address}
    context = ray.init(**options)
    # A failed trial's traceback is in its record and its error.txt; the terminal has one line of it.
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    if dashboard and context.dashboard_url:
        announce(f"dashboard: http://{context.dashboard_url}")
    try:
        yield
    finally:
        ray.shutdown()


def ignore_signals() -> None:
    """A second Ctrl-C must not cut off the tidying up after the first."""
    for name in SIGNALS:
        signal.signal(name, signal.SIG_IGN)


@contextmanager
def _signals_interrupt() -> Iterator[None]:
    """SIGTERM ends the run as Ctrl-C does."""

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before: list[Callable[..., Any] | int | None] = [signal.signal(name, interrupt) for name in SIGNALS]
    try:
        yield
    finally:
        for name, handler in zip(SIGNALS, before, strict=True):
            signal.signal(name, handler)
