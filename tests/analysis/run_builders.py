"""Build run directories as launch.py and its trials write them, without training."""

from __future__ import annotations

import dataclasses
import random
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sousaphone.config import TrainConfig, trial_id
from sousaphone.rudiments import FAMILIES, SLUGS
from sousaphone.runs.directory import SCHEMA, RunDirectory
from sousaphone.runs.statuses import Status
from sousaphone.runs.trial_record import PREDICTIONS_NAME, TrialRecord

COUNTS = {"ast": 60_000, "htsat": 40_000, "beats": 90_000, "efficientat": 150_000}
REASONS = {
    "completed": "all epochs are done",
    "early_stopped": "val_macro_f1 has not risen since epoch 2 (patience)",
    "time_limit": "its time limit of 2 h was reached in epoch 3",
    "interrupted": "Ctrl-C",
}
COMMIT = "0123456789abcdef0123456789abcdef01234567"
ALARM = "<script>alert(1)</script>"
REAL = {"scale": "base", "weights": "/weights/ast.pt"}


def arm(model: str = "ast", **values: Any) -> dict[str, Any]:
    """Return a planned trial as in run.json."""
    return {**dataclasses.asdict(TrainConfig(**{"epochs": 3, **values})), "model": model}


def history(epochs: int, seed: int, test: bool) -> list[dict[str, Any]]:
    """Return plausible metrics; the best epoch is the last but one (or the only one)."""
    rng, rows = random.Random(seed), []
    for epoch in range(1, epochs + 1):
        val_acc = 0.02 + 0.05 * epoch + 0.05 * rng.random()
        best = max(1, epochs - 1) if epoch == epochs else epoch
        row = {
            "epoch": epoch,
            "train_loss": 3.7 / epoch + rng.random() * 0.1,
            "learning_rate": 1e-3,
            "epoch_seconds": 6.0 + seed % 5,
            "processor_seconds": 5.0 + seed % 5,
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
        for split in ("val", "test"):
            names = (f"{split}_averaged_{name}" for name in ("loss", "acc", "macro_f1", "top5"))
            rows[-1].update(zip(names, (2.9, 0.9 * rows[-1]["val_acc"], 0.12, 0.35), strict=True))
        rows[-1].update(temperature=0.8, averaged_temperature=0.7)
    return rows


def record(config: dict[str, Any], status: str, epochs: int | None = None, error: str | None = None) -> TrialRecord:
    """Return the record of a trial with this status: all epochs if it has all its results, else one."""
    finished = epochs if epochs is not None else (config["epochs"] if Status(status).is_full else 1)
    seed = sum(map(ord, trial_id(config)))
    count = COUNTS.get(config["model"], 70_000)
    return TrialRecord(
        trial_id(config),
        config,
        Status(status),
        reason=REASONS.get(status, error),
        error=error,
        started="2026-01-01T00:00:00+00:00",
        ended=None if status == "running" else "2026-01-01T01:00:00+00:00",
        seconds=100.0 + finished,
        history=history(finished, seed, test=Status(status).is_good and finished > 0),
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


# Margin of the true class's logit for each backbone, and the effect of augmentation on it.
SKILL = {"ast": 2.6, "htsat": 2.2, "efficientat": 3.0, "beats": 3.2}
AUGMENTED = 0.4
TIERS = ("beginner", "intermediate", "advanced", "professional")
SOUNDFONTS = ("FluidR3_GM", "Marching_Snare", "GeneralUser_GS")
PRESETS = ("clean_studio", "practice_room", "concert_hall", "phone_recording")


def clips_of(players: int, clips: int, seed: int = 0) -> pd.DataFrame:
    """Return labels of test clips with balanced rudiments, in all columns that a trial saves besides its logits."""
    rng = np.random.default_rng(seed)
    number = np.arange(clips)
    player = number % players
    rudiment = np.array(SLUGS)[number // players % len(SLUGS)]
    ids = [f"p{p:02d}_{slug}_{n:04d}" for p, slug, n in zip(player, rudiment, number, strict=True)]
    return pd.DataFrame(
        {
            "sample_id": ids,
            "player": [f"player{p:02d}" for p in player],
            "rudiment": rudiment,
            "tempo_bpm": rng.integers(60, 181, clips).astype(float),
            "skill_tier": np.array(TIERS)[player % len(TIERS)],
            "soundfont": rng.choice(SOUNDFONTS, clips),
            "preset": rng.choice(PRESETS, clips),
            "duration_sec": rng.uniform(1.5, 12.0, clips).round(3),
            "audio_path": [f"audio/{slug}/{sample}.flac" for slug, sample in zip(rudiment, ids, strict=True)],
        }
    )


def logits_for(config: dict[str, Any], clips: pd.DataFrame, skill: float | None = None) -> np.ndarray:
    """Return plausible logits of a model on these clips, float32 [N, 40].

    Players differ in difficulty (equally for all models), fast and short clips are harder, and most confusions are with
    a neighbour in the same family. The logits are deterministic and differ between seeds of an arm.
    """
    name = f"{config['model']}-{config['strategy']}-{config['lora_targets']}-{config['augment']}"
    own = np.random.default_rng([zlib.crc32(name.encode()), config["seed"]])
    shared = np.random.default_rng(1)
    labels = clips.rudiment.map({slug: label for label, slug in enumerate(SLUGS)}).to_numpy()
    difficulty = dict(zip(sorted(clips.player.unique()), shared.normal(0, 0.7, clips.player.nunique()), strict=True))
    base = SKILL.get(config["model"], 2.0) if skill is None else skill
    strength = base + AUGMENTED * config["augment"] + own.normal(0, 0.1)
    strength += clips.player.map(difficulty).to_numpy() - 0.01 * (clips.tempo_bpm.to_numpy() - 120)
    strength += 0.1 * (clips.duration_sec.to_numpy() - 6) + shared.normal(0, 0.8, len(SLUGS))[labels]
    logits = own.normal(0, 1, (len(clips), len(SLUGS)))
    logits[np.arange(len(clips)), labels] += strength
    for step, boost in ((1, 1.4), (-1, 0.7)):
        near = (labels + step) % len(SLUGS)
        same = np.array([FAMILIES[SLUGS[a]] == FAMILIES[SLUGS[b]] for a, b in zip(labels, near, strict=True)])
        logits[np.arange(len(clips)), near] += boost * same
    return logits.astype(np.float32)


def write_predictions(
    run: RunDirectory,
    records: Sequence[TrialRecord],
    players: int = 5,
    clips: int = 200,
    skill: float | None = None,
    averaged: bool = True,
) -> pd.DataFrame:
    """Write predictions.parquet of every trial with test metrics, and set its test_acc accordingly.

    Args:
        skill: margin of every model; by default that of each backbone.
        averaged: False writes no scores over windows and no temperatures, as in older runs.

    Returns:
        The labels of the test clips, which are the same for all trials.
    """
    labels = clips_of(players, clips)
    for each in records:
        if not each.test:
            continue
        logits = logits_for(each.config, labels, skill)
        directory = made(run.trial(each.trial_id))
        ways = {"": logits}
        if averaged:
            other = logits_for({**each.config, "seed": each.config["seed"] + 1_000}, labels, skill)
            ways["averaged_"] = (logits + other) / 2
        frames = [labels.assign(windows=2) if averaged else labels]
        for prefix, values in ways.items():
            frames.append(pd.DataFrame(values, columns=[f"{prefix}logit_{slug}" for slug in SLUGS]))
            right = np.array(SLUGS)[values.argmax(1)] == labels.rudiment
            each.history[-1][f"test_{prefix}acc"] = float(right.mean())
        pd.concat(frames, axis=1).to_parquet(directory / PREDICTIONS_NAME)
        if not averaged:
            last = each.history[-1]
            each.history[-1] = {k: v for k, v in last.items() if "averaged" not in k and k != "temperature"}
        each.write(directory)
    return labels


def made(directory: Path) -> Path:
    """Create a directory and return it."""
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def trials_in(states: list[str], **values: Any) -> tuple[list[dict[str, Any]], list[TrialRecord]]:
    """Return a plan with one trial per state, and the records of those that have started."""
    plan = [arm(seed=seed, **values) for seed in range(len(states))]
    pairs = zip(plan, states, strict=True)
    return plan, [
        record(c, s, error=f"RuntimeError: {ALARM}" if s == "failed" else None) for c, s in pairs if s != "pending"
    ]
