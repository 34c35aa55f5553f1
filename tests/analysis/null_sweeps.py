"""Null sweeps: the seeds of one arm, assigned at random to the arms of a simulated sweep.

Every "better" verdict on such a sweep is a false positive. With points added to one of two arms, it is a true positive.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.load.trials import Trial
from analysis.report import read_run
from analysis.stats.verdict import Verdict, judge
from sousaphone.runs.statuses import Status

SEEDS_PER_ARM = 3
SHOWN_POWER = 0.10  # true difference for which the power is measured
ARMS = [(model, augment) for model in ("ast", "htsat", "efficientat", "beats") for augment in (False, True)]
TWO = [("ast", False), ("htsat", False)]
COLUMNS = ["seed", "sample_id", "player", "correct", "val_macro_f1", "val_acc"]


def read_seeds(run: Path) -> pd.DataFrame:
    """Return one row per seed and test clip: seed, sample_id, player, correct, and the seed's validation scores."""
    found = read_run(run)
    best = {
        trial.trial_id: (trial.config["seed"], trial.best["val_macro_f1"], trial.best["val_acc"])
        for trial in found.trials
        if trial.full
    }
    rows = found.predictions[found.predictions.trial_id.isin(best)].reset_index(drop=True)
    scores = pd.DataFrame([best[trial_id] for trial_id in rows.trial_id], columns=["seed", "val_macro_f1", "val_acc"])
    return pd.concat([rows[["sample_id", "player", "correct"]], scores], axis=1)[COLUMNS]


@dataclass(frozen=True)
class Calibration:
    """Counts of the outcomes of sweeps, and the mean power stated in their reports."""

    outcomes: Counter[str]
    stated_power: float

    @property
    def sweeps(self) -> int:
        return self.outcomes.total()


def calibrate(seeds: pd.DataFrame, sweeps: int, true: float = 0.0, rng_seed: int = 0) -> Calibration:
    """Judge sweeps of eight equal arms, or of two arms with a `true` difference (a fraction of accuracy) between them.

    Two arms, because the rival among eight would be the luckiest of seven.

    Raises:
        ValueError: too few seeds.
    """
    arms, names = TWO if true else ARMS, sorted(seeds.seed.unique())
    if len(names) < SEEDS_PER_ARM * len(arms):
        raise ValueError(f"{len(names)} seeds; {SEEDS_PER_ARM * len(arms)} are needed")
    rng = np.random.default_rng(rng_seed)
    outcomes: Counter[str] = Counter()
    power = []
    for _ in range(sweeps):
        verdict = _verdict(seeds, arms, rng.permutation(names), true, rng)
        wrong = verdict.winner is not None and verdict.winner.model != TWO[0][0]
        outcomes["wrong arm" if true and wrong else verdict.outcome] += 1
        if verdict.chosen is not None:
            power.append(verdict.power(true or SHOWN_POWER))
    return Calibration(outcomes, float(np.mean(power)))


def _verdict(
    seeds: pd.DataFrame, arms: list[tuple[str, bool]], order: np.ndarray, true: float, rng: np.random.Generator
) -> Verdict:
    trials, tables = [], []
    for place, seed in enumerate(order[: SEEDS_PER_ARM * len(arms)]):
        model, augment = arms[place // SEEDS_PER_ARM]
        rows = seeds[seeds.seed == seed]
        scores = {name: float(rows[name].iloc[0]) for name in ("val_macro_f1", "val_acc")}
        right = rows.correct.to_numpy()
        if true and place < SEEDS_PER_ARM:
            # Correct enough wrong answers to add the difference, equally for all seeds.
            right = right | (rng.random(len(right)) < true / (1 - seeds.correct.mean()))
            scores = {name: score + true for name, score in scores.items()}
        trial = _trial(model, augment, place % SEEDS_PER_ARM, scores)
        trials.append(trial)
        tables.append(rows[["sample_id", "player"]].assign(correct=right, trial_id=trial.trial_id))
    return judge(trials, pd.concat(tables, ignore_index=True), None, {})


def _trial(model: str, augment: bool, seed: int, scores: dict[str, float]) -> Trial:
    config: dict[str, Any] = {"model": model, "strategy": "lora", "lora_targets": "all-linear", "augment": augment}
    history = [{"epoch": 1, "best_epoch": 1, "test_acc": 0.0, **scores}]
    trial = Trial(f"{model}-{augment}-{seed}", {**config, "seed": seed}, Status.COMPLETED, history=history)
    return dataclasses.replace(trial, parameters={"trainable": 1})
