"""Build run directories of searches whose scores are a known function of the settings, without training."""

from __future__ import annotations

import dataclasses
import math
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from sousaphone.config import TrainConfig
from sousaphone.rudiments import SLUGS
from sousaphone.runs.directory import RunDirectory
from sousaphone.runs.statuses import Cause
from sousaphone.runs.trial_record import TrialRecord, predictions_name
from tests.analysis.run_builders import REAL, clips_of, history, record, write_predictions, write_run
from tests.search.simulation import STEPS, Objective, begin, run

MODELS = ("ast", "beats")
BEST_RATE = 2.0  # times the untuned default, where `planted` is highest


def planted(trial: TrainConfig, epoch: int, noise: float = 0.02) -> float:
    """A score that depends on the learning rate alone, in a curve with a maximum, and rises with the epochs."""
    default = {"ast": 5e-3, "beats": 1e-3}[trial.model]
    distance = math.log(trial.learning_rate / (BEST_RATE * default))
    own = np.random.default_rng([zlib.crc32(trial.trial_id.encode()), epoch])
    score = {"ast": 0.55, "beats": 0.7}[trial.model] - 0.08 * distance**2 - 0.3 / epoch + noise * own.normal()
    return float(np.clip(score, 0.01, 0.99))


def diverging(trial: TrainConfig, epoch: int) -> float:
    """`planted`, but trials with a high learning rate diverge in their second epoch."""
    if epoch > 1 and trial.learning_rate > {"ast": 1.5e-2, "beats": 3e-3}[trial.model]:
        raise ArithmeticError
    return planted(trial, epoch)


def search_run(
    path: Path,
    objective: Objective = planted,
    models: Sequence[str] = MODELS,
    configurations: int = 8,
    seeds: tuple[int, ...] = (0, 1),
    players: int = 4,
    epochs_trained: int | None = None,
) -> RunDirectory:
    """Write the run directory of a search.

    Args:
        seeds: of the finalists; none if the search has not ended.
        players: of the validation clips; 0: no predictions on them.
        epochs_trained: the search is killed after so many.
    """
    progress = run(begin(tuple(models), configurations=configurations), objective, killed_after=epochs_trained)
    trials = {name: dataclasses.asdict(trial) | REAL for name, trial in progress.trials.items()}
    finals = progress.final_trials(seeds)
    records = [_record(trials[name], found) for name, found in progress.records.items()]
    for each in finals:
        ended = TrialRecord(each.trial_id, {})
        for epoch in range(1, each.epochs + 1):
            ended.history.append({"val_macro_f1": objective(each, epoch)})
        ended.end(Cause.ALL_EPOCHS, "")
        records.append(_record(dataclasses.asdict(each) | REAL, ended))
    plan = [*trials.values(), *(dataclasses.asdict(each) | REAL for each in finals)]
    made_run = write_run(path, plan, records)
    made_run.write_plan({**made_run.read_plan(), "config": "search", "search": dataclasses.asdict(progress.search)})
    for each in records:  # tuned models are better on test as well
        untuned = each.config["learning_rate"] in (5e-3, 1e-3)
        write_predictions(made_run, [each], players=8, clips=240, skill=2.0 if untuned else 3.5)
    for each in records:
        if players and each.status.is_full:
            table = validation_predictions(each.best["val_macro_f1"], players, seed=zlib.crc32(each.trial_id.encode()))
            table.to_parquet(made_run.trial(each.trial_id) / predictions_name("val"))
    return made_run


def _record(config: dict[str, object], found: TrialRecord) -> TrialRecord:
    """The record of a trial as the program writes it, with the scores of `found`."""
    whole = record(config, "completed")
    whole.status, whole.cause, whole.reason = found.status, found.cause, found.reason or None
    test = {k: v for k, v in whole.history[-1].items() if k.startswith(("test_", "temperature"))}
    rows, best = history(len(found.history), 0, test=False), 0
    for number, (row, score) in enumerate(zip(rows, (each["val_macro_f1"] for each in found.history), strict=True)):
        best = number if score > rows[best]["val_macro_f1"] or number == 0 else best
        row |= {"val_macro_f1": score, "val_acc": score, "best_epoch": best + 1, "steps": STEPS * (number + 1)}
    if rows and found.status.is_full and config["score_test"]:
        rows[-1] |= test
    whole.history, whole.data = rows, {"fingerprint": "aaaa", "clips": {"validation": 100}}
    return whole


def validation_predictions(accuracy: float, players: int, clips: int = 160, seed: int = 0) -> pd.DataFrame:
    """Return predictions of validation clips, of which this fraction is correct, and the players differ."""
    rng, labels = np.random.default_rng(seed), clips_of(players, clips, seed=5)
    skill = accuracy + np.linspace(-0.1, 0.1, players)[labels.player.str[-2:].astype(int)]
    true = labels.rudiment.map({slug: label for label, slug in enumerate(SLUGS)}).to_numpy()
    predicted = np.where(rng.random(clips) < skill, true, rng.integers(0, len(SLUGS), clips))
    logits = np.eye(len(SLUGS), dtype=np.float32)[predicted]
    names = [f"logit_{slug}" for slug in SLUGS]
    return pd.concat([labels, pd.DataFrame(logits, columns=names)], axis=1)
