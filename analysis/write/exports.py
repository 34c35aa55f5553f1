"""A run's results as files for other programs: contents made of trials, written by `analysis.report`."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from typing import Any

import pandas as pd

from analysis.load.trials import Trial
from sousaphone.runs.trial_record import plain

_OF_TRIAL = ("trial_id", "model", "strategy", "augment", "seed")


def epochs_csv(trials: Sequence[Trial]) -> bytes:
    """epochs.csv: one row a trial and epoch, with all that was measured in it; what was not is empty."""
    rows = [{**_identity(trial), **row} for trial in trials for row in trial.history]
    metrics = dict.fromkeys(["epoch", *(name for trial in trials for row in trial.history for name in row)])
    table = pd.DataFrame(rows, columns=[*_OF_TRIAL, *metrics])
    return table.to_csv(index=False, lineterminator="\n").encode()


def trial_json(trial: Trial, timestamp: str | None = None, adapter_bytes: int | None = None) -> bytes:
    """One trial, in the form of an earlier sweep's files, so that what reads those reads it.

    Its names (`augmentation`, `data`, `max_epochs`, `test_f1_macro`, `training_time_seconds`, `avg_epoch_time`) stand
    beside ours. A metric that was not measured is missing, one that is no number is null.

    Args:
        timestamp: when the trial began, ISO 8601.
        adapter_bytes: size of the file with all that was trained.
    """
    config, best, last = trial.config, trial.best, trial.last
    scored = {name: value for name, value in last.items() if name.startswith(("test_", "held_out_", "also_"))}
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
            "avg_epoch_time": trial.mean("epoch_seconds"),
            "wall_seconds": trial.wall_seconds,
            "samples_per_second": trial.mean("samples_per_second"),
            "peak_memory_mb": trial.peak_memory_mb,
            **counts,
            "oom_retries": trial.oom_retries,
            "trainable_percent": trial.parameters.get("trainable_percent"),
            "adapter_bytes": adapter_bytes,
        },
        "status": trial.status,
        "error": trial.error,
        "reason": trial.reason or trial.why or None,
        "timestamp": timestamp,
        "git_commit": trial.git_commit,
    }
    return (json.dumps(plain(content), indent=2, allow_nan=False) + "\n").encode()


def predictions_parquet(frame: pd.DataFrame) -> bytes:
    """The table of `analysis.load.predictions.read_predictions` (or any other) as a Parquet file."""
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False, compression="zstd")
    return buffer.getvalue()


def _identity(trial: Trial) -> dict[str, Any]:
    config = trial.config
    augment = "on" if config.get("augment") else "off"
    values = (trial.trial_id, config.get("model"), config.get("strategy"), augment, config.get("seed"))
    return dict(zip(_OF_TRIAL, values, strict=True))
