"""`train_fn(config)`, the one trainable: a thin adapter between a trial's life and Ray Tune.

Light: whoever reads or restores an experiment imports this module, and torch comes where one trains.
"""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

from ray import tune

from sousaphone.config import TrainConfig, trial_id
from sousaphone.runs.directory import DriverWatch, RunDirectory


def train_fn(config: dict[str, Any]) -> dict[str, Any] | None:
    """Train one trial, reporting to Ray Tune once an epoch.

    The trial goes on from the newest whole checkpoint in its own directory, whatever Ray remembers; one that had
    ended before Ray heard of it reports its last epoch and is done.

    Args:
        config: TrainConfig's fields.

    Returns:
        What Ray takes for a last result; None where epochs were reported.
    """
    import torch

    from sousaphone.training.resumable_trial import run_trial

    trial = TrainConfig(**config)
    run = run_of(tune.get_context().get_storage())
    torch.set_num_threads(trial.threads)
    # A worker serves several trials: what the one before held must be gone.
    gc.collect()
    if trial.device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(_share())
    told: list[int] = []

    def report(metrics: dict[str, Any]) -> None:
        told.append(metrics["epoch"])
        # Ray's own counter starts anew after a restart; the epoch does not.
        tune.report({**metrics, "training_iteration": metrics["epoch"]})

    run_trial(trial, run.trial(trial.trial_id), DriverWatch.begin(run.path), report)
    # Of a trial without any result, as one cut in its first epoch, Ray would say aloud that it was completed.
    return None if told else {"epochs": 0}


def run_of(storage: Any) -> RunDirectory:
    """The run that a trial belongs to, by its Ray storage, RUN/tune/001/TRIAL: where it is now, also after a move.

    (Ray runs a trial in a scratch directory, and there is nothing of ours in it.)
    """
    return RunDirectory(Path(storage.trial_fs_path).parents[2])


def name_trial(trial: Any) -> str:
    """What Ray calls a trial, and its directory."""
    # Tune asks before it has resolved a PerModel, so the configuration is not whole yet.
    return trial_id(trial.config)


def _share() -> float:
    """Ray counts shares of a GPU; a trial is to keep to its own."""
    resources = tune.get_context().get_trial_resources()
    share = resources.required_resources.get("GPU", 1.0) if resources is not None else 1.0
    return min(1.0, share) if share else 1.0
