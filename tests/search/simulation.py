"""A search without training: the records of trials whose scores are a known function of their settings."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from sousaphone.config import TrainConfig
from sousaphone.runs.statuses import Cause
from sousaphone.runs.trial_record import TrialRecord
from sousaphone.search.design import Search
from sousaphone.search.progress import Progress

STEPS = 10  # of an epoch
Objective = Callable[[TrainConfig, int], float]  # the score of a trial after an epoch; raises ArithmeticError: diverges


def begin(models: tuple[str, ...] = ("ast", "beats"), epochs: int = 9, **design: Any) -> Progress:
    """Return a search of these backbones that has not trained yet."""
    rates = {"ast": 5e-3, "beats": 1e-3}
    defaults = [
        TrainConfig(model=m, augment=False, epochs=epochs, learning_rate=rates[m], score_test=False, seed=1)
        for m in models
    ]
    search = Search.around(defaults, (), **{"configurations": 8, "seed": 1, **design}).over(epochs, STEPS)
    search, trials = search.begun(defaults)
    return Progress(search, {trial.trial_id: trial for trial in trials})


def run(
    progress: Progress,
    objective: Objective,
    at_once: int = 1,
    killed_after: int | None = None,
    rng: random.Random | None = None,
    steps: int = STEPS,
) -> Progress:
    """Train until nothing is left, or for so many epochs, as a driver does: `at_once` trials at a time, which finish
    their epochs in random order. Only `trials`, proposals and records survive a kill."""
    rng, live, done = rng or random.Random(0), {}, 0
    records = dict(progress.records)
    while killed_after is None or done < killed_after:
        while len(live) < at_once and (found := progress.next_trial(live)):
            progress, name, rung = found
            live[name] = rung
            records.setdefault(name, TrialRecord(name, {}))
            progress = Progress(progress.search, progress.trials, records)
        if not live:
            break
        name = rng.choice(list(live))
        record, trial = records[name], progress.trials[name]
        done += 1
        epoch = len(record.history) + 1
        try:
            score = objective(trial, epoch)
        except ArithmeticError:
            record.end(Cause.LOSS_NOT_FINITE, "")
            del live[name]
            continue
        record.history.append({"epoch": epoch, "best_epoch": epoch, "steps": epoch * steps, "val_macro_f1": score})
        if epoch == trial.epochs:
            record.end(Cause.ALL_EPOCHS, "")
            del live[name]
        elif progress.stops(name, live):
            record.end(Cause.SCHEDULER, "")
            del live[name]
        elif record.history[-1]["steps"] >= progress.search.rungs[live[name]]:
            live[name] += 1
    return progress


def steps_by_model(progress: Progress) -> dict[str, int]:
    return {model: sum(t.steps for t in progress.tried(model)) for model in progress.search.models}


def outcome(progress: Progress) -> list[tuple[str, int]]:
    """Return the trials in the order of proposal within each backbone, and the epochs of each."""
    names = [name for model in progress.search.models for name in progress.search.own(model)]
    return [(name, len(progress.records[name].history)) for name in names]
