"""`train_fn(config)`, the only trainable: a thin adapter between `run_trial` and Ray Tune.

Imports torch only in `train_fn`: reading or restoring an experiment imports this module as well.
"""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

from ray import tune

from sousaphone.config import TrainConfig, trial_id
from sousaphone.runs.directory import DriverGoneError, DriverWatch, RunDirectory


def train_fn(config: dict[str, Any]) -> dict[str, Any] | None:
    """Train the trial with these fields of TrainConfig and report to Ray Tune after each epoch.

    The trial resumes from the newest whole checkpoint in its own directory, whatever Ray has saved. A trial that had
    ended before Ray was notified reports its last epoch and returns.
    """
    gc.set_threshold(*gc.get_threshold()[:2], 1_000)  # see `prepare_process`
    import torch

    from sousaphone.training.resumable_trial import run_trial

    trial = TrainConfig(**config)
    run = run_of(tune.get_context().get_storage())
    if not run.exists:
        raise DriverGoneError(f"{run.path} was renamed")
    torch.set_num_threads(trial.threads)
    # A worker runs several trials: release the memory of the previous one.
    gc.collect()
    if trial.device == "cuda":
        torch.cuda.empty_cache()
        resources = tune.get_context().get_trial_resources()
        gpus = resources.required_resources.get("GPU", 1.0) if resources is not None else 1.0
        torch.cuda.set_per_process_memory_fraction(min(1.0, gpus) if gpus else 1.0)
    reported = False

    def report(metrics: dict[str, Any]) -> None:
        nonlocal reported
        reported = True
        # Ray's own counter restarts at 1 after a resume; the epoch does not.
        tune.report({**metrics, "training_iteration": metrics["epoch"]})

    run_trial(trial, run.trial(trial.trial_id), DriverWatch.begin(run.path), report)
    # Without any result, as for a trial cut in its first epoch, Ray would print that the trial completed.
    return None if reported else {"epochs": 0}


def run_of(storage: Any) -> RunDirectory:
    """Return the run of a trial by its Ray storage, RUN/tune/001/TRIAL, which is current even after a move."""
    return RunDirectory(Path(storage.trial_fs_path).parents[2])


def name_trial(trial: Any) -> str:
    """Return Ray's name of a trial and of its directory."""
    return trial_id(trial.config)
