"""Build or restore a Ray Tune experiment and run it to its end."""

from __future__ import annotations

import dataclasses
import enum
import json
import pickle
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray import tune
from ray.tune.logger import CSVLoggerCallback, JsonLoggerCallback
from ray.tune.search.basic_variant import BasicVariantGenerator

from sousaphone.config import PerModel, Sweep, TrainConfig
from sousaphone.errors import UserError
from sousaphone.files import atomic_write
from sousaphone.planning.resources import Resources
from sousaphone.runs.directory import DriverGoneError, DriverWatch, RunDirectory
from sousaphone.runs.statuses import Cause, Status
from sousaphone.runs.trial_record import TrialRecord
from sousaphone.sweep.callback import LiveCallback
from sousaphone.sweep.failures import name_ends
from sousaphone.sweep.ray_process import Runtime, StoppedRayError
from sousaphone.sweep.signals import ignore_stops
from sousaphone.sweep.trainable import name_trial, train_fn
from sousaphone.text import Announce, counted, one_line
from sousaphone.training.watchdog import STACKS_NAME

if TYPE_CHECKING:
    from sousaphone.data.dataset import Dataset
    from sousaphone.planning.job import Job

_NO_MEMORY = "the machine's memory ran out while a worker started"
RESOURCES_NAME = "resources.json"
_CLOSING_SECONDS = 20.0  # for a tracker


class SweepEnd(enum.Enum):
    """How a sweep came to its end; what each trial came to stands in its record."""

    RAN = "every trial that was left has ended"
    INTERRUPTED = "stopped by a signal"
    RAY_STOPPED = "Ray could not go on"


class MovedRunError(RuntimeError):
    """The run directory was renamed, removed or damaged while its trials ran."""


def run_job(
    runtime: Runtime, job: Job, dataset: Dataset, resources: Resources, at_once: int, announce: Announce
) -> SweepEnd:
    """Hold the run directory, write its plan, measure the baselines and run the trials that are left.

    Raises:
        UserError: another launch has taken the directory; nothing is begun.
        MovedRunError: see there.
    """
    # They bring torch, which the process that drives Ray, and imports this module, does without.
    from sousaphone.baselines.measure import measure_baselines
    from sousaphone.planning.plan import plan_json

    run, ids = job.directory, [trial.trial_id for trial in job.trials]
    with run.held(job.limits.from_now()):
        if job.plan is None and run.exists:
            raise UserError(f"{run.path} was started by another process just now; give another --name")
        if job.plan is not None and job.plan != run.read_plan():
            raise UserError(f"{run.path} was changed by another launch just now; give the same line again")
        run.write_plan(plan_json(job, resources, at_once, dataset))
        announce(f"progress: {run.status_page}")
        try:
            if job.baselines and any(trial.score_test for trial in job.trials):
                # Should it end here, the status page tells how things stand.
                name_ends(run, ids, Cause.DRIVER_KILLED, "the driver was killed")
                measure_baselines(run.path, job.trials, dataset, announce)
            run_sweep(runtime, run, job.sweep, job.trials, job.left(), resources, at_once, job.tracker, announce)
            return SweepEnd.RAN
        except KeyboardInterrupt:
            ignore_stops()
            end = SweepEnd.INTERRUPTED
        except StoppedRayError as stop:
            announce(f"{stop}; to resume: {run.resume_command}")
            end = SweepEnd.RAY_STOPPED
        except UserError as error:  # of what lies in the directory; nobody has typed anything wrong
            raise MovedRunError(str(error)) from error
    runtime.kill()
    return end


def run_sweep(
    runtime: Runtime,
    run: RunDirectory,
    sweep: Sweep,
    trials: Sequence[TrainConfig],
    left: Sequence[TrainConfig],
    resources: Resources,
    at_once: int,
    tracker: str,
    announce: Announce,
) -> None:
    """Run what is left of a run's trials, and return when all of that has ended; Ray is gone by then.

    A trial that fails does not stop the others.

    Args:
        trials: all that are planned.
        left: those to run now.
        at_once: how many run at a time; one fewer whenever the machine's memory runs out while a worker starts.
        tracker: where metrics go beside TensorBoard: `none` or `wandb`.

    Raises:
        KeyboardInterrupt: a stop; unfinished trials are marked so.
        StoppedRayError: Ray could not go on; the same.
        UserError: the run directory is no longer where it was.
    """
    ids = [trial.trial_id for trial in trials]
    # What a killed driver left "running" waits for its turn again.
    name_ends(run, ids, Cause.DRIVER_KILLED, "the driver was killed")
    for trial in left:  # where an earlier start hung explains nothing of this one
        (run.trial(trial.trial_id) / STACKS_NAME).unlink(missing_ok=True)
    in_place = partial(_refuse_moved, DriverWatch.begin(run.path))

    try:
        while not runtime.call(_fit, run, sweep, left, resources, tracker, look=in_place):
            runtime.restart()
            name_ends(run, ids, Cause.RAY_STOPPED, _NO_MEMORY)
            left = [trial for trial in left if _is_unfinished(run, trial)]
            if at_once > 1:
                at_once -= 1
                resources = dataclasses.replace(resources, max_concurrent=at_once)
                announce(f"{_NO_MEMORY}; at most {counted(at_once, 'trial')} at a time from now on")
            else:
                announce(f"{left[0].trial_id}: {_NO_MEMORY}")
                _end_for_memory(run, left[0])
                left = left[1:]
            if not left:
                break
        runtime.kill()
    except KeyboardInterrupt as stop:
        ignore_stops()
        announce("interrupted: closing the trials and writing the report, some seconds")
        if tracker == "wandb":
            runtime.interrupt(_CLOSING_SECONDS)
        runtime.kill()  # before anything is written in the workers' name
        name_ends(run, ids, Cause.STOPPED_BY_USER, f"the run was stopped ({stop})")
        raise
    except StoppedRayError as stop:
        runtime.kill()
        name_ends(run, ids, Cause.RAY_STOPPED, str(stop))
        raise
    name_ends(run, ids)


def _refuse_moved(watch: DriverWatch) -> None:
    """
    Raises:
        MovedRunError: another directory, or none, is where the run was.
    """
    try:
        watch.check()
    except DriverGoneError as error:
        raise MovedRunError(
            f"{watch.run} was renamed or removed while its trials ran, and they were stopped; give it its name back, "
            f"then resume: {RunDirectory(watch.run).resume_command}"
        ) from error


def _fit(run: RunDirectory, sweep: Sweep, left: Sequence[TrainConfig], resources: Resources, tracker: str) -> bool:
    """In the process that drives Ray.

    Returns:
        Whether Ray came to the end of an experiment; if not, the machine's memory ran out while a worker started, which
        is the one failure of a trial that Tune takes for its own.

    Raises:
        StoppedRayError: Ray could not go on.
    """
    try:
        # Ray ends by reading its accounts of failures, which a full disk has torn; the trials' own are kept.
        with suppress(EOFError, pickle.UnpicklingError):
            _tuner(run, sweep, left, resources, tracker).fit()
    except KeyboardInterrupt:
        if tracker == "wandb":
            from sousaphone.sweep.wandb_logger import close_trackers

            close_trackers()
    except (OSError, ray.exceptions.RayError, tune.TuneError) as error:
        # Ray's own log on a full disk, say; a trial's error is kept with the trial.
        raise StoppedRayError(f"Ray could not go on: {one_line(error, 300)}") from error
    except RuntimeError as error:
        if not isinstance(error.__cause__, ray.exceptions.OutOfMemoryError):
            raise
        return False
    return True


def _is_unfinished(run: RunDirectory, trial: TrainConfig) -> bool:
    record = TrialRecord.read(run.trial(trial.trial_id))
    return record is None or record.status is Status.INTERRUPTED


def _end_for_memory(run: RunDirectory, trial: TrainConfig) -> None:
    directory = run.trial(trial.trial_id)
    record = TrialRecord.read(directory) or TrialRecord(trial.trial_id, dataclasses.asdict(trial))
    record.end(Cause.MEMORY, _NO_MEMORY, _NO_MEMORY)
    directory.mkdir(parents=True, exist_ok=True)
    record.write(directory)


def _tuner(
    run: RunDirectory, sweep: Sweep, left: Sequence[TrainConfig], resources: Resources, tracker: str
) -> tune.Tuner:
    """Ray restores an experiment if what it would go on with is just what is left, and otherwise gets a new one.

    It cannot restore, for one, trials that ended well by its own count (cut by a limit that is lifted now), points
    that were added to the grid, another number of trials at a time, another tracker, or an experiment killed before
    its first snapshot. Either way each trial goes on from its own checkpoint.
    """
    trainable = tune.with_resources(train_fn, tune.PlacementGroupFactory([resources.request]))
    if run.experiments:
        newest = run.experiments[-1]
        errored = _restorable(newest, left, _settings(resources, tracker))
        if errored is not None:
            return tune.Tuner.restore(str(newest), trainable, resume_unfinished=True, resume_errored=errored)
    whole = not run.experiments and list(left) == sweep.trials()
    experiment = run.tune / f"{len(run.experiments) + 1:03d}"
    experiment.mkdir(parents=True)
    with atomic_write(experiment / RESOURCES_NAME) as temporary:
        temporary.write_text(json.dumps(_settings(resources, tracker)), encoding="utf-8")
    points = [dataclasses.asdict(trial) for trial in left]
    return tune.Tuner(
        trainable,
        param_space={key: _for_tune(value) for key, value in sweep.param_space.items()} if whole else _domains(points),
        tune_config=tune.TuneConfig(
            metric=sweep.metric,
            mode=sweep.mode,
            scheduler=sweep.scheduler,
            search_alg=BasicVariantGenerator(
                points_to_evaluate=None if whole else points, max_concurrent=resources.max_concurrent or 0
            ),
            num_samples=1 if whole else len(points),
            # A new worker spends seconds importing; a used one starts the next trial at once.
            reuse_actors=True,
            trial_name_creator=name_trial,
            trial_dirname_creator=name_trial,
        ),
        run_config=tune.RunConfig(
            name=experiment.name,
            storage_path=str(run.tune),
            callbacks=[JsonLoggerCallback(), CSVLoggerCallback(), LiveCallback(), *_trackers(tracker)],
            failure_config=tune.FailureConfig(max_failures=0, fail_fast=False),
            sync_config=tune.SyncConfig(sync_period=10),
            verbose=0,
        ),
    )


def _trackers(tracker: str) -> list[tune.Callback]:
    if tracker != "wandb":
        return []
    from sousaphone.sweep.wandb_logger import TrackerCallback  # brings W&B

    return [TrackerCallback()]


def _settings(resources: Resources, tracker: str) -> dict[str, Any]:
    """What Ray keeps of an experiment and takes no other on restoring."""
    return {"tracker": tracker, **dataclasses.asdict(resources)}


def _restorable(experiment: Path, left: Sequence[TrainConfig], settings: Mapping[str, Any]) -> bool | None:
    """Whether Ray must be told to go on with errored trials too, so that it runs just what is left, as it is to be run
    now; None: it cannot."""
    try:
        if {"tracker": "none", **json.loads((experiment / RESOURCES_NAME).read_text(encoding="utf-8"))} != settings:
            return None
        if not tune.Tuner.can_restore(str(experiment)):
            return None
        trials = tune.ExperimentAnalysis(str(experiment)).trials
        configs = {trial.storage.trial_dir_name: TrainConfig(**trial.config) for trial in trials}
    except Exception:  # a torn snapshot is JSON around pickles, and fails in any way
        return None
    states = {trial.storage.trial_dir_name: trial.status for trial in trials}
    unfinished = {name for name, state in states.items() if state not in ("TERMINATED", "ERROR")}
    errored = {name for name, state in states.items() if state == "ERROR"}
    wanted = {trial.trial_id: trial for trial in left}
    if any(configs.get(name) != trial for name, trial in wanted.items()):  # data or weights lie elsewhere now
        return None
    return {frozenset(unfinished | errored): True, frozenset(unfinished): False}.get(frozenset(wanted))


def _domains(points: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A space that holds the listed points; which of its points are run, the search algorithm is told."""
    values: dict[str, list[Any]] = {}
    for point in points:
        for key, value in point.items():
            if value not in values.setdefault(key, []):
                values[key].append(value)
    return {key: tune.choice(known) for key, known in values.items()}


def _for_tune(value: Any) -> Any:
    return tune.sample_from(value) if isinstance(value, PerModel) else value
