"""Builds runs on disk as launch.py and its trials leave them, without training anything."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sousaphone.config import FULL_ENDS, GOOD_ENDS, TrainConfig
from sousaphone.record import TrialRecord
from sousaphone.run import SCHEMA, RunDirectory

COUNTS = {"ast": 60_000, "htsat": 40_000, "beats": 90_000, "efficientat": 150_000}
REASONS = {
    "completed": "all epochs are done",
    "early_stopped": "val_macro_f1 has not risen since epoch 2 (patience)",
    "time_limit": "its time limit of 2 h was reached in epoch 3",
    "interrupted": "Ctrl-C",
}
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def arm(model: str = "ast", **values: Any) -> dict[str, Any]:
    """A planned trial, as run.json holds it."""
    plain = dataclasses.asdict(TrainConfig(**{"epochs": 3, **values}))
    return {**plain, "model": model}


def trial_id(config: dict[str, Any]) -> str:
    return f"{config['model']}-{config['strategy']}-aug-{'on' if config['augment'] else 'off'}-s{config['seed']}"


def history(epochs: int, seed: int, test: bool) -> list[dict[str, Any]]:
    """A plausible course, the best epoch the last but one (of one: the first)."""
    rng, rows = random.Random(seed), []
    for epoch in range(1, epochs + 1):
        val_acc = 0.02 + 0.05 * epoch + 0.05 * rng.random()
        best = max(1, epochs - 1) if epoch == epochs else epoch
        row = {
            "epoch": epoch,
            "train_loss": 3.7 / epoch + rng.random() * 0.1,
            "learning_rate": 1e-3,
            "epoch_seconds": 6.0 + seed % 5,
            "samples_per_second": 100.0 + epoch,
            "peak_memory_mb": 900.0 + epoch,
            "train_ce": 3.6 / epoch,
            "val_loss": 3.7 / epoch + 0.3,
            "val_acc": val_acc,
            "val_macro_f1": 0.9 * val_acc,
            "val_top5": min(1.0, 3 * val_acc),
            "best_epoch": best,
        }
        rows.append(row)
    if test:
        rows[-1].update(test_loss=3.0, test_acc=0.8 * rows[-1]["val_acc"], test_macro_f1=0.1, test_top5=0.3)
    return rows


def record(config: dict[str, Any], status: str, epochs: int | None = None, error: str | None = None) -> TrialRecord:
    """What a trial in this state has written: all epochs of one with all its results, else one."""
    finished = epochs if epochs is not None else (config["epochs"] if status in FULL_ENDS else 1)
    seed = sum(map(ord, trial_id(config)))
    count = COUNTS[config["model"]]
    return TrialRecord(
        trial_id(config),
        config,
        status,
        reason=REASONS.get(status, error),
        error=error,
        started="2026-01-01T00:00:00+00:00",
        ended=None if status == "running" else "2026-01-01T01:00:00+00:00",
        seconds=100.0 + finished,
        history=history(finished, seed, test=status in GOOD_ENDS and finished > 0),
        parameters={"total": 10 * count, "trainable": count, "adapter": count // 2, "trainable_percent": 10.0},
        weights={"source": config["weights"], "fingerprint": "f" * 64},
        provenance={"git_commit": COMMIT},
    )


def write_run(path: Path, trials: Sequence[dict[str, Any]], records: Sequence[TrialRecord] = ()) -> RunDirectory:
    run = RunDirectory(path)
    run.write_plan(
        {
            "schema": SCHEMA,
            "created": "2026-01-01T00:00:00+00:00",
            "name": path.name,
            "command": "python launch.py --dataset tiny",
            "config": "backbones",
            "request": {},
            "trials": list(trials),
            "trial_ids": [trial_id(config) for config in trials],
            "resources": {"cpus_per_trial": 1.0, "gpus_per_trial": 0.0, "max_concurrent": None},
            "notes": ["validation: 1 player carved from the training players"],
            "data": {
                "root": "/data/sousa",
                "fingerprint": "a1b2c3d4e5f6",
                "clips": {"train": 800, "validation": 100, "test": 100},
                "players": {"train": 8, "validation": 1, "test": 1},
                "synthetic": True,
            },
            "provenance": {"git_commit": COMMIT, "git_dirty": False, "versions": {"ray": "2.60.0"}, "host": "here"},
        }
    )
    for each in records:
        each.write(made(run.trial(each.trial_id)))
    return run


def made(directory: Path) -> Path:
    """The directory, which is there now."""
    directory.mkdir(parents=True, exist_ok=True)
    return directory
