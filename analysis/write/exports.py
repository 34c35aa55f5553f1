"""A run's results as files for other programs; this module makes their contents, and `analysis.report` writes them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pandas as pd

from analysis.load.trials import Trial
from sousaphone.runs.trial_record import plain

_MOST_COLUMNS = 200  # a run that somebody sent may name a metric of its own in every epoch
# Metrics that only the last epoch has; the others are of the best epoch.
_OF_LAST_EPOCH = ("test_", "held_out_", "also_", "val_averaged_", "temperature", "averaged_temperature")
_OF_TRIAL = ("trial_id", "model", "strategy", "augment", "seed")


def epochs_csv(trials: Sequence[Trial]) -> bytes:
    """Return epochs.csv: one row for each trial and epoch with all its metrics; a missing metric is empty."""
    rows = [{**_identity(trial), **row} for trial in trials for row in trial.history]
    columns = dict.fromkeys([*_OF_TRIAL, "epoch", *(name for row in rows for name in row)])
    return pd.DataFrame(rows, columns=list(columns)[:_MOST_COLUMNS]).to_csv(index=False, lineterminator="\n").encode()


def trial_json(trial: Trial, adapter_bytes: int | None = None) -> bytes:
    """Return one trial as JSON, readable by programs that read the files of an earlier sweep.

    The earlier names (`augmentation`, `data`, `max_epochs`, `test_f1_macro`, `training_time_seconds`,
    `avg_epoch_time`) are given in addition to the project's own. A metric that was not measured is missing, and one
    that is not finite is null. `adapter_bytes` is the size of the file with the trained weights.
    """
    config, best, last = trial.config, trial.best, trial.last
    scored = {name: value for name, value in last.items() if name.startswith(_OF_LAST_EPOCH)}
    chosen = {name: value for name, value in best.items() if name not in scored}
    counts = {f"{name}_params": trial.parameters.get(name) for name in ("total", "trainable", "adapter")}
    content = {
        "experiment_id": trial.trial_id,
        "config": {
            "model": config.get("model"),
            "strategy": config.get("strategy"),
            "augmentation": bool(config.get("augment")),
            "data": config.get("dataset"),
            "max_epochs": config.get("epochs"),
            **config,
        },
        "metrics": {
            "trainable_params": counts["trainable_params"],
            "total_params": counts["total_params"],
            **scored,
            **({"test_f1_macro": last["test_macro_f1"]} if "test_macro_f1" in last else {}),
            **chosen,
        },
        "efficiency": {
            "training_time_seconds": trial.train_seconds,
            "avg_epoch_time": trial.mean(trial.clock),
            "wall_seconds": trial.wall_seconds,
            "samples_per_second": trial.samples_per_second,
            "peak_memory_mb": trial.peak_memory_mb,
            **counts,
            "oom_retries": trial.oom_retries,
            "trainable_percent": trial.parameters.get("trainable_percent"),
            "adapter_bytes": adapter_bytes,
        },
        "status": trial.status,
        "error": trial.error,
        "reason": trial.reason or trial.why or None,
        "timestamp": trial.started,
        "git_commit": trial.git_commit,
    }
    return (json.dumps(plain(content), indent=2, allow_nan=False) + "\n").encode()


def predictions_parquet(frame: pd.DataFrame) -> bytes:
    """Return a table, such as that of `analysis.load.predictions.read_predictions`, as a Parquet file."""
    content: bytes = frame.to_parquet(index=False, compression="zstd")
    return content


def _identity(trial: Trial) -> dict[str, Any]:
    config = trial.config
    augment = "on" if config.get("augment") else "off"
    values = (trial.trial_id, config.get("model"), config.get("strategy"), augment, config.get("seed"))
    return dict(zip(_OF_TRIAL, values, strict=True))
