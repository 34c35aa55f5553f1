"""The comparison table: one row for each planned trial, in the plan's order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import pandas as pd

from analysis.load.trials import Trial
from analysis.stats.arms import settings_of
from analysis.stats.slices import Slice, possible
from sousaphone.config import lora_targets_of

INTEGERS = (
    *("seed", "epochs", "best_epoch", "total_params", "trainable_params", "adapter_params", "oom_retries"),
    *("train_clips", "val_clips", "test_clips", "test_players"),
)
# Columns from val_acc on that contain no numbers.
WORDS = (
    *("signature", "data_hash", "weights_hash", "weights_sha256", "pretraining"),
    *("version", "git_commit", "reason", "error"),
)
_SPLITS = ("val", "test", "held_out", "also")
_TEXTS = ("reason", "error")


def comparison_table(
    trials: Sequence[Trial],
    cpu_ms: Mapping[str, float] = MappingProxyType({}),
    adapter_bytes: Mapping[str, int] = MappingProxyType({}),
    tested: Mapping[str, Slice] = MappingProxyType({}),
) -> pd.DataFrame:
    """Return the table of comparison_table.csv.

    Training and validation metrics are of the best epoch, as are the metrics over whole clips (`averaged`);
    accuracies are fractions, samples_per_second is the mean over the epochs and peak_memory_mb the maximum; unknown
    values are missing. train_seconds, seconds_per_epoch and samples_per_second are in seconds of `Trial.clock`.
    `partial` marks trials that have results but neither completed nor stopped early. Only rows with the same
    `signature` are comparable. `cpu_ms` (milliseconds of one core for each clip), `adapter_bytes` (size of the file
    with the trained weights) and `tested` (test accuracy as a mean over players, with its 95 % interval) are by
    trial_id. The last columns are the settings that the sweep varies.
    """
    table = pd.DataFrame([_row(trial, cpu_ms, adapter_bytes, tested.get(trial.trial_id)) for trial in trials])
    numbers = [name for name in table.columns[table.columns.get_loc("val_acc") :] if name not in WORDS]
    table[numbers] = table[numbers].apply(pd.to_numeric)
    searched = pd.DataFrame([*settings_of(trials).values()], index=table.index)
    table = table.astype(dict.fromkeys(INTEGERS, "Int64"))
    return table.join(searched[searched.columns.difference(table.columns, sort=False)])


def to_csv(table: pd.DataFrame) -> str:
    """Return the table as CSV with one line for each trial; line breaks in errors become spaces."""
    one_line = {name: table[name].map(lambda text: " ".join(text.split()), na_action="ignore") for name in _TEXTS}
    return str(table.assign(**one_line).to_csv(index=False, lineterminator="\n"))


def _row(
    trial: Trial, cpu_ms: Mapping[str, float], adapter_bytes: Mapping[str, int], tested: Slice | None
) -> dict[str, Any]:
    clips = trial.data.get("clips") or {}
    config, best, last, parameters = trial.config, trial.best, trial.last, trial.parameters
    return {
        "trial_id": trial.trial_id,
        "model": config.get("model"),
        "strategy": config.get("strategy"),
        "lora_targets": lora_targets_of(config),
        "augment": "on" if config.get("augment") else "off",
        "seed": config.get("seed"),
        "dataset": config.get("dataset"),
        "scale": config.get("scale"),
        "precision": trial.precision,
        "weights": trial.weights,
        "status": trial.status,
        "partial": "true" if trial.partial else "false",
        "epochs": len(trial.history),
        "best_epoch": last.get("best_epoch"),
        **_pick(best, "val_acc", "val_macro_f1", "val_loss", "train_loss", "train_ce"),
        **_pick(last, "test_acc", "test_macro_f1", "held_out_acc", "held_out_macro_f1", "also_acc", "also_macro_f1"),
        **_pick(last, *(f"{split}_averaged_{metric}" for split in _SPLITS for metric in ("acc", "macro_f1"))),
        **_pick(last, "test_top5", "test_averaged_top5", "temperature", "averaged_temperature"),
        "test_acc_by_player": tested and tested.accuracy,
        "test_acc_low": tested and possible(tested.low),
        "test_acc_high": tested and possible(tested.high),
        "test_players": tested and tested.players,
        "total_params": parameters.get("total"),
        "trainable_params": parameters.get("trainable"),
        "adapter_params": parameters.get("adapter"),
        "trainable_percent": parameters.get("trainable_percent"),
        "train_seconds": trial.train_seconds,
        "wall_seconds": trial.wall_seconds,
        "train_wall_seconds": sum(trial.values("epoch_seconds")) or None,
        "seconds_per_epoch": trial.mean(trial.clock),
        "samples_per_second": trial.samples_per_second,
        "peak_memory_mb": trial.peak_memory_mb,
        "cpu_ms_per_clip": cpu_ms.get(trial.trial_id),
        "adapter_kb": None if (size := adapter_bytes.get(trial.trial_id)) is None else size / 1000,
        "oom_retries": trial.oom_retries,
        "clip_seconds": config.get("clip_seconds"),
        "signature": trial.signature if trial.data else None,
        "data_hash": trial.data.get("fingerprint"),
        "train_clips": clips.get("train"),
        "val_clips": clips.get("validation"),
        "test_clips": clips.get("test"),
        "weights_hash": trial.weights_hash or None,
        "weights_sha256": trial.began_from.get("sha256"),
        "pretraining": trial.began_from.get("pretraining"),
        "version": trial.version or None,
        "git_commit": trial.git_commit,
        "reason": trial.reason or trial.why or None,
        "error": trial.error,
    }


def _pick(metrics: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: metrics.get(name) for name in names}
