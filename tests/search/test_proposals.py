"""Proposals find a planted optimum, and are functions of the records."""

from __future__ import annotations

import dataclasses
import math
import random
import statistics
from collections.abc import Sequence

import optuna
import pytest

from sousaphone.config import TrainConfig
from sousaphone.errors import UserError
from sousaphone.search.dimensions import Dimension, configured, space_around
from sousaphone.search.proposals import Sampler, propose
from sousaphone.search.rungs import Tried
from tests.search.simulation import begin, outcome, run

SPACE = {
    "learning_rate": Dimension("loguniform", 1e-4, 1e-1),
    "lora_r": Dimension("choice", values=(2, 4, 8, 16, 32)),
    "head_dropout": Dimension("uniform", 0.0, 0.5),
}


def surface(learning_rate: float, lora_r: int, head_dropout: float) -> float:
    """A score with its maximum, 1, at 0.003, 16 and 0.1."""
    rank = ((math.log2(lora_r) - 4) / 4) ** 2
    return 1 - math.log10(learning_rate / 0.003) ** 2 / 2 - rank - (head_dropout - 0.1) ** 2


def best_found(sampler: Sampler, seed: int, count: int) -> float:
    points: list[dict[str, float]] = [{"learning_rate": 0.1, "lora_r": 2, "head_dropout": 0.5}]
    scores = [surface(**points[0])]  # type: ignore[arg-type]
    while len(points) < count:
        trials = [Tried(number, ((10, score),), ended=True) for number, score in enumerate(scores)]
        points.append(propose(SPACE, sampler, seed, "ast", points, trials, full=10))
        scores.append(surface(**points[-1]))  # type: ignore[arg-type]
    return max(scores)


def best_of_optuna(seed: int, count: int) -> float:
    """Return the best of Optuna's own loop, with its default start of ten random points."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed, multivariate=True))

    def objective(trial: optuna.Trial) -> float:
        rate = trial.suggest_float("learning_rate", 1e-4, 1e-1, log=True)
        rank = trial.suggest_categorical("lora_r", (2, 4, 8, 16, 32))
        return surface(rate, rank, trial.suggest_float("head_dropout", 0.0, 0.5))

    study.optimize(objective, n_trials=count)
    return float(study.best_value)


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


@pytest.mark.parametrize("sampler", ["tpe", "qmc"])
def test_planted_optimum_is_found_as_well_as_by_optuna_alone(sampler: Sampler) -> None:
    seeds = range(11)
    ours, theirs = (median([each(seed) for seed in seeds]) for each in (
        lambda seed: best_found(sampler, seed, 30), lambda seed: best_of_optuna(seed, 30),
    ))  # fmt: skip
    random_points = []
    for seed in seeds:
        rng = random.Random(seed)
        drawn = [{name: each.at(rng.random()) for name, each in SPACE.items()} for _ in range(30)]
        random_points.append(max(surface(**point) for point in drawn))
    print(f"{sampler}: {ours:.3f}, Optuna {theirs:.3f}, random {median(random_points):.3f}")
    assert ours >= median(random_points)
    assert sampler == "qmc" or ours >= theirs - 0.01


def noisy(trial: TrainConfig, epoch: int) -> float:
    """A learning curve whose height depends on the settings, and a learning rate that diverges."""
    if trial.learning_rate > 0.018:
        raise ArithmeticError
    height = surface(trial.learning_rate, trial.lora_r, trial.head_dropout)
    return height * (1 - math.exp(-epoch / 4)) + 0.05 * random.Random(f"{trial.trial_id} {epoch}").random()


@pytest.mark.parametrize("sampler", ["tpe", "qmc"])
def test_search_killed_at_any_point_equals_the_uninterrupted_one(sampler: Sampler) -> None:
    whole = run(begin(epochs=9, sampler=sampler), noisy)
    epochs = sum(len(record.history) for record in whole.records.values())
    assert epochs * 10 == 2 * whole.search.ladder.steps
    for moment in range(0, epochs, 5):
        progress = run(begin(epochs=9, sampler=sampler), noisy, killed_after=moment)
        resumed = run(progress, noisy)
        assert outcome(resumed) == outcome(whole)
        assert resumed.finalists() == whole.finalists()


def test_killed_parallel_search_loses_no_budget() -> None:
    for moment in range(5, 60, 11):
        progress = run(begin(epochs=9), noisy, at_once=3, killed_after=moment)
        resumed = run(progress, noisy, at_once=3)
        assert resumed.is_complete
        assert sum(len(record.history) for record in resumed.records.values()) * 10 == 2 * resumed.search.ladder.steps


def test_diverged_trials_are_not_replaced_and_never_finalists() -> None:
    progress = run(begin(("ast",), configurations=16, seed=4), noisy)
    diverged = [name for name, record in progress.records.items() if record.status == "diverged"]
    assert diverged
    assert progress.is_complete
    assert len(progress.records) == 16
    assert not {name for name, _ in progress.finalists()} & set(diverged)


def test_finalists_keep_the_settings_and_score_test_clips_with_their_own_seeds() -> None:
    progress = run(begin(), noisy)
    finals = progress.final_trials((0, 7))
    assert [trial.seed for trial in finals] == [0, 7] * 6
    assert all(trial.score_test for trial in finals)
    assert not any(trial.score_test for trial in progress.trials.values())
    assert not {trial.trial_id for trial in finals} & set(progress.trials)
    searched = [tuple(getattr(progress.trials[name], field) for field in SPACE) for name, _ in progress.finalists()]
    assert [tuple(getattr(trial, field) for field in SPACE) for trial in finals[::2]] == searched


def test_points_are_new_and_within_the_space() -> None:
    small = {"lora_r": Dimension("choice", values=(4, 8, 16))}
    points: list[dict[str, int]] = [{"lora_r": 8}]
    for _ in range(2):
        points.append(propose(small, "qmc", 0, "ast", points, [Tried(n) for n in range(len(points))], full=10))
    assert sorted(point["lora_r"] for point in points) == [4, 8, 16]
    with pytest.raises(UserError, match="ast"):
        propose(small, "qmc", 0, "ast", points, [Tried(n) for n in range(3)], full=10)


def test_default_outside_of_the_space_is_no_obstacle() -> None:
    points = [{"learning_rate": 5.0, "lora_r": 3, "head_dropout": 0.9}]
    trials = [Tried(0, ((10, 0.1),), ended=True)]
    for number in range(1, 8):
        points.append(propose(SPACE, "tpe", 0, "ast", points, trials, full=10))
        trials.append(Tried(number, ((5, 0.1 * number),)))
        assert all(SPACE[name].has(value) for name, value in points[-1].items())


def test_given_and_unused_settings_are_not_searched() -> None:
    default = TrainConfig(model="ast", strategy="lora", augment=False)
    assert set(space_around(default)) == {"learning_rate", "lora_r", "weight_decay", "head_dropout"}
    assert set(space_around(default, ["learning_rate"])) == {"lora_r", "weight_decay", "head_dropout"}
    head = TrainConfig(model="ast", strategy="head", augment=True)
    assert set(space_around(head)) == {"learning_rate", "weight_decay", "head_dropout", "mixup_alpha"}


def test_searched_rank_keeps_the_scale_of_the_adapters() -> None:
    default = TrainConfig(lora_r=8, lora_alpha=16.0)
    assert configured(default, {"lora_r": 32}).lora_alpha == 64.0
    assert configured(default, {"lora_r": 32, "lora_alpha": 8.0}).lora_alpha == 8.0
    assert configured(default, {"learning_rate": 0.1}).lora_alpha == 16.0


@pytest.mark.parametrize(
    "content",
    [
        {"type": "loguniform", "low": 0.0, "high": 1.0},
        {"type": "uniform", "low": 1.0, "high": 1.0},
        {"type": "uniform", "low": 1.0},
        {"type": "choice"},
        {"type": "normal", "low": 0.0, "high": 1.0},
    ],
)
def test_damaged_search_is_refused(content: dict[str, object]) -> None:
    saved = dataclasses.asdict(begin().search)
    assert type(begin().search).from_json(saved) == begin().search
    with pytest.raises(ValueError, match="search"):
        type(begin().search).from_json({**saved, "space": {"ast": {"head_dropout": content}}})
