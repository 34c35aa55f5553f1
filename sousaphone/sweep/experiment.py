"""Build or restore a Ray Tune experiment and run it."""

from __future__ import annotations

import dataclasses
import json
import pickle
import shutil
import signal
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray import tune
from ray.tune.logger import CSVLoggerCallback, JsonLoggerCallback
from ray.tune.search import ConcurrencyLimiter
from ray.tune.search.basic_variant import BasicVariantGenerator

from sousaphone.config import Sweep, TrainConfig
from sousaphone.errors import UserError
from sousaphone.files import write_json
from sousaphone.planning.resources import Resources
from sousaphone.runs.directory import DriverGoneError, DriverWatch, RunDirectory
from sousaphone.runs.seal import is_sealed, pickles, seal
from sousaphone.runs.statuses import Cause, Status
from sousaphone.runs.trial_record import TrialRecord
from sousaphone.search.progress import Progress
from sousaphone.signals import ignore_stops
from sousaphone.sweep.callback import LiveCallback
from sousaphone.sweep.failures import name_ends, prune
from sousaphone.sweep.proposals import Proposals, SearcherProposals
from sousaphone.sweep.ray_process import Runtime, StoppedRayError
from sousaphone.sweep.trainable import name_trial, train_fn
from sousaphone.text import Announce, counted, one_line
from sousaphone.training.watchdog import STACKS_NAME

if TYPE_CHECKING:
    from sousaphone.data.dataset import Dataset
    from sousaphone.planning.job import Job

_NO_MEMORY = "the machine's memory ran out while a worker started"
RESOURCES_NAME = "resources.json"
_CLOSING_SECONDS = 20.0  # for a tracker


class MovedRunError(RuntimeError):
    """The run directory was renamed, removed or damaged while its trials ran."""


def run_job(
    runtime: Runtime, job: Job, dataset: Dataset, resources: Resources, at_once: int, announce: Announce
) -> bool:
    """Lock the run directory, write its plan, measure the baselines and run the trials that are left.

    Return whether a stop (Ctrl-C, SIGTERM) interrupted it. Raise a UserError, with nothing started, if another launch
    has taken the directory, and a MovedRunError if it was renamed, removed or damaged.
    """
    # Imported here because they import torch, which the process that drives Ray does not need.
    from sousaphone.baselines.measure import measure_baselines
    from sousaphone.planning.plan import plan_json

    run, started = job.directory, job.left()
    interrupted = failed = False
    deadline = None if job.time_limit is None else time.monotonic() + job.time_limit
    with run.held(dataclasses.replace(job.limits, deadline=deadline)):
        if job.plan is None and run.exists:
            raise UserError(f"{run.path} was just started by another process; give another --name")
        if job.plan is not None and job.plan != run.read_plan():
            raise UserError(f"{run.path} was just changed by another launch; run the same command again")
        run.write_plan(plan_json(job, resources, at_once, dataset))
        check = partial(_refuse_moved, DriverWatch.begin(run.path))
        announce(f"progress: {run.status_page}")
        try:
            # Trials that a killed driver left "running" become interrupted.
            name_ends(run, job.trial_ids, Cause.DRIVER_KILLED, "the driver was killed")
            if job.is_searching:
                _run_trials(runtime, job, resources, at_once, check, announce)
                job = _with_finalists(job, announce)
            if job.sweep.search is not None:  # finalists are trained like any other trials
                job = dataclasses.replace(job, sweep=dataclasses.replace(job.sweep, searcher=None, scheduler=None))
            if job.baselines and any(trial.score_test for trial in job.trials):
                measure_baselines(run.path, job.trials, dataset, announce)
            _run_trials(runtime, job, resources, at_once, check, announce)
        except KeyboardInterrupt:
            ignore_stops()
            interrupted = True
        except StoppedRayError as stop:
            announce(f"{stop}; to resume: {run.resume_command}")
            failed = True
        except (MovedRunError, UserError, OSError) as error:
            _remove_remains(run)
            with suppress(OSError):  # a directory that cannot be read
                check()  # the cause of any other error
            if isinstance(error, UserError | PermissionError):  # about the directory's content, not the command line
                raise MovedRunError(str(error)) from error
            raise
    runtime.kill()
    proposed = run.read_plan()["trial_ids"][len(job.trials) :] if run.exists else []
    records = [TrialRecord.find(run.trial(name)) for name in [*(trial.trial_id for trial in started), *proposed]]
    lost = (Status.FAILED, Status.OUT_OF_MEMORY, Status.RUNNING)  # running: its end could not be written
    failed = failed or any(record is not None and record.status in lost for record in records)
    if failed and (logs := runtime.keep_logs()):
        announce(f"Ray's logs: {logs}")
    return interrupted


def _with_finalists(job: Job, announce: Announce) -> Job:
    """Return the job of a search with the trials of its finalists, after adding them to run.json; without any trials if
    the search is incomplete, for example at the time limit of the launch."""
    run, progress = job.directory, Progress.read(job.directory)
    if not progress.is_complete:
        return dataclasses.replace(job, trials=())
    for name, record in progress.records.items():
        # The launch ended when it stopped the trial.
        if not record.status.has_ended or record.cause is Cause.SWEEP_TIME_LIMIT:
            prune(record)
            record.write(run.trial(name))
    finals = progress.final_trials(job.request.seeds)
    run.append_trials(finals, planned=len(progress.trials) + len(finals))
    for name, rank in progress.finalists():
        announce(f"finalist {rank} of {progress.trials[name].model}: {name}")
    return job.current()


def _run_trials(
    runtime: Runtime, job: Job, resources: Resources, at_once: int, check: Callable[[], None], announce: Announce
) -> None:
    """Run the trials that are left; return when all of them have ended.

    A trial that fails does not stop the others. Each time the machine's memory runs out while a worker starts, one
    trial fewer runs at a time. After a stop (KeyboardInterrupt) or a StoppedRayError, unfinished trials are marked as
    interrupted. `check` raises a MovedRunError if the run is not at its path; a UserError means that it was damaged, or
    renamed a moment ago.
    """
    check()
    run, left, proposed = job.directory, job.left(), job.is_growing
    for trial in left:  # stack dumps of earlier starts
        (run.trial(trial.trial_id) / STACKS_NAME).unlink(missing_ok=True)
    foreign = [path for path in run.experiments if not is_sealed(path, pickles(path))]  # they are never restored

    try:
        while (left or proposed) and not runtime.call(
            _fit, run, job.sweep, left, resources, at_once, job.tracker, check=check
        ):
            runtime.restart()
            _reseal(run, foreign)
            name_ends(run, _planned(run), Cause.RAY_STOPPED, _NO_MEMORY)
            if proposed:
                now = job.current()
                left = [*left, *now.trials[len(job.trials) :]]
                proposed = now.is_growing
            records = [(trial, TrialRecord.find(run.trial(trial.trial_id))) for trial in left]
            left = [trial for trial, record in records if record is None or record.status is Status.INTERRUPTED]
            if at_once > 1:
                at_once -= 1
                resources = dataclasses.replace(resources, max_concurrent=at_once)
                announce(f"{_NO_MEMORY}; at most {counted(at_once, 'trial')} at a time from now on")
            elif left:
                trial, *left = left
                announce(f"{trial.trial_id}: {_NO_MEMORY}")
                directory = run.trial(trial.trial_id)
                record = TrialRecord.find(directory) or TrialRecord(trial.trial_id, dataclasses.asdict(trial))
                record.end(Cause.MEMORY, _NO_MEMORY, _NO_MEMORY)
                directory.mkdir(parents=True, exist_ok=True)
                record.write(directory)
    except KeyboardInterrupt as stop:
        ignore_stops()
        announce("interrupted: stopping the trials and writing the report, which takes some seconds")
        if job.tracker == "wandb":
            runtime.interrupt(_CLOSING_SECONDS)
        runtime.kill()  # before their records are written here
        name_ends(run, _planned(run), Cause.STOPPED_BY_USER, f"the run was stopped ({stop})")
        raise
    except StoppedRayError as stop:
        runtime.kill()
        name_ends(run, _planned(run), Cause.RAY_STOPPED, str(stop))
        raise
    except BaseException:
        runtime.kill()
        raise
    finally:
        _reseal(run, foreign)
    name_ends(run, _planned(run))


def _planned(run: RunDirectory) -> list[str]:
    """Return the trials of the plan, to which a searcher adds."""
    return list(run.read_plan()["trial_ids"])


def _reseal(run: RunDirectory, foreign: Collection[Path]) -> None:
    """Seal the experiments except foreign ones: the last files that Ray wrote may be newer than their seal."""
    with suppress(OSError):  # the run was renamed or removed
        for path in run.experiments:
            if path not in foreign:
                seal(path, pickles(path))


def _remove_remains(run: RunDirectory) -> None:
    """Remove the directory that Ray created at the path of a run that was renamed, which holds nothing else."""
    with suppress(OSError):
        if list(run.path.iterdir()) == [run.tune]:
            shutil.rmtree(run.path)


def _refuse_moved(watch: DriverWatch) -> None:
    """Raise a MovedRunError if the run is no longer at its path."""
    try:
        watch.check()
    except DriverGoneError as error:
        raise MovedRunError(
            f"{watch.run} was renamed or removed while its trials ran, so they were stopped; restore its name, then "
            f"to resume: {RunDirectory(watch.run).resume_command}"
        ) from error


def _fit(
    run: RunDirectory, sweep: Sweep, left: Sequence[TrainConfig], resources: Resources, at_once: int, tracker: str
) -> bool:
    """Run an experiment, in the process that drives Ray; return whether it finished.

    If it did not, the machine's memory ran out while a worker started, the only failure of a trial that aborts it.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)  # an earlier experiment leaves Ray's
    try:
        # At the end Ray reads its pickled errors of trials, which a full disk truncates; the trials' records are kept.
        with suppress(EOFError, pickle.UnpicklingError):
            _tuner(run, sweep, left, resources, at_once, tracker).fit()
    except KeyboardInterrupt:
        if tracker == "wandb":
            from sousaphone.sweep.wandb_logger import close_trackers

            close_trackers()
    except (OSError, ray.exceptions.RayError, tune.TuneError) as error:
        # For example Ray's own log on a full disk; a trial's error does not arrive here.
        raise StoppedRayError(f"Ray stopped: {one_line(error, 300)}") from error
    except RuntimeError as error:
        if not isinstance(error.__cause__, ray.exceptions.OutOfMemoryError):
            raise
        return False
    return True


def _tuner(
    run: RunDirectory, sweep: Sweep, left: Sequence[TrainConfig], resources: Resources, at_once: int, tracker: str
) -> tune.Tuner:
    """Restore the newest experiment if Ray would resume exactly the trials that are left; otherwise make a new one.

    Ray cannot restore trials that it counts as finished (cut by a limit that is lifted now), points added to the grid,
    another number of trials at a time, another tracker, or an experiment killed before its first snapshot; and it would
    restore searchers and schedulers as they were when the experiment began. In either case each trial resumes from its
    own checkpoint.
    """
    trainable = tune.with_resources(train_fn, tune.PlacementGroupFactory([resources.request]))
    # Ray keeps these settings when it restores an experiment.
    settings = {"tracker": tracker, **dataclasses.asdict(resources)}
    if run.experiments and sweep.searcher is None and sweep.scheduler is None:
        newest = run.experiments[-1]
        sealed = is_sealed(newest, pickles(newest))  # a restore executes what the files contain
        if not sealed:
            print(f"{newest} was not sealed here, or changed since: resuming in a new experiment", flush=True)
        errored = _resume_errored(newest, left, settings) if sealed else None
        if errored is not None:
            return tune.Tuner.restore(str(newest), trainable, resume_unfinished=True, resume_errored=errored)
    experiment = run.tune / f"{int(run.experiments[-1].name) + 1 if run.experiments else 1:03d}"
    experiment.mkdir(parents=True)
    write_json(experiment / RESOURCES_NAME, settings)
    points = [dataclasses.asdict(trial) for trial in left]
    search: Any
    if sweep.searcher is None:  # the space contains `points`; the search algorithm runs only these
        space = {key: tune.choice(list(dict.fromkeys(point[key] for point in points))) for key in points[0]}
        search = BasicVariantGenerator(points_to_evaluate=points, max_concurrent=resources.max_concurrent or 0)
    else:
        proposals = sweep.searcher if isinstance(sweep.searcher, Proposals) else SearcherProposals(sweep.searcher)
        proposals.begin(run, sweep, left)
        # Otherwise Ray would ask for a trial before there is a place for it.
        space, search = {}, ConcurrencyLimiter(proposals, at_once)
    callbacks: list[tune.Callback] = [JsonLoggerCallback(), CSVLoggerCallback(), LiveCallback()]
    if tracker == "wandb":
        from sousaphone.sweep.wandb_logger import TrackerCallback

        callbacks.append(TrackerCallback())
    return tune.Tuner(
        trainable,
        param_space=space,
        tune_config=tune.TuneConfig(
            metric=sweep.metric,
            mode=sweep.mode,
            scheduler=sweep.scheduler,
            search_alg=search,
            num_samples=len(points) if sweep.searcher is None else -1,  # until the searcher has finished
            # A new worker takes seconds to import torch; a used one starts the next trial at once.
            reuse_actors=True,
            trial_name_creator=name_trial,
            trial_dirname_creator=name_trial,
        ),
        run_config=tune.RunConfig(
            name=experiment.name,
            storage_path=str(run.tune),
            callbacks=callbacks,
            failure_config=tune.FailureConfig(max_failures=0, fail_fast=False),
            sync_config=tune.SyncConfig(sync_period=10),
            verbose=0,
        ),
    )


def _resume_errored(experiment: Path, left: Sequence[TrainConfig], settings: Mapping[str, Any]) -> bool | None:
    """Return the `resume_errored` with which Ray resumes exactly the trials left, with these settings, else None."""
    try:
        if {"tracker": "none", **json.loads((experiment / RESOURCES_NAME).read_text(encoding="utf-8"))} != settings:
            return None
        if not tune.Tuner.can_restore(str(experiment)):
            return None
        trials = tune.ExperimentAnalysis(str(experiment)).trials
        configs = {trial.storage.trial_dir_name: TrainConfig(**trial.config) for trial in trials}
    except Exception:  # a damaged snapshot, JSON that contains pickles, may raise anything
        return None
    states = {trial.storage.trial_dir_name: trial.status for trial in trials}
    unfinished = {name for name, state in states.items() if state not in ("TERMINATED", "ERROR")}
    errored = {name for name, state in states.items() if state == "ERROR"}
    wanted = {trial.trial_id: trial for trial in left}
    if any(configs.get(name) != trial for name, trial in wanted.items()):  # data or weights were moved
        return None
    return {frozenset(unfinished | errored): True, frozenset(unfinished): False}.get(frozenset(wanted))
