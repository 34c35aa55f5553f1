"""Spaces of Ray Tune: the trials that they give, their names, and spaces that are refused."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from ray import tune

from sousaphone.backbones.registry import DEFAULT_SWEEP
from sousaphone.config import PerModel, Sweep, TrainConfig, check_trials
from sousaphone.errors import UserError
from tests.test_tune_configs import request
from tune_configs import backbones, rates

MODELS = ("ast", "beats")


def sweep(samples: int = 1, models: tuple[str, ...] = MODELS, seeds: tuple[int, ...] = (0,), **space: Any) -> Sweep:
    usual = backbones.sweep(request(models=models, seeds=seeds, augment=(False,)))
    return dataclasses.replace(usual, param_space={**usual.param_space, **space}, num_samples=samples)


def test_names_of_the_default_sweep_and_of_the_rates_have_no_hash() -> None:
    usual = request(models=DEFAULT_SWEEP, seeds=(0, 1), lora_targets="sweep")
    expected = [f"{m}-lora-sweep-aug-{a}-s{s}" for m in DEFAULT_SWEEP for a in ("on", "off") for s in (0, 1)]
    assert [trial.trial_id for trial in backbones.sweep(usual).trials()] == expected
    searched = rates.sweep(request(models=("ast",), augment=(False,))).trials()
    found = [trial.trial_id for trial in searched]
    assert found == [f"ast-lora-aug-off-lr{rate:g}-s0" for rate in (0.0005, 0.0015, 0.005, 0.015)]
    # Plans of versions without tags keep their names.
    assert [dataclasses.replace(trial, tag="").trial_id for trial in searched] == found


def test_grid_of_ranks_and_targets_gives_every_combination_its_own_readable_or_hashed_name() -> None:
    grid = sweep(lora_r=tune.grid_search([4, 16]), lora_targets=tune.grid_search(["qv", "attention"]))
    trials = grid.trials()
    check_trials(trials)
    assert {(t.model, t.lora_r, t.lora_targets) for t in trials} == {
        (m, r, t) for m in MODELS for r in (4, 16) for t in ("qv", "attention")
    }
    assert "ast-lora-qv-aug-off-r4-s0" in {trial.trial_id for trial in trials}
    two = sweep(lora_r=tune.grid_search([4, 16]), weight_decay=tune.grid_search([0.0, 0.1])).trials()
    check_trials(two)
    assert len({trial.tag for trial in two}) == 4
    assert {t.tag for t in two if t.model == "ast"} == {t.tag for t in two if t.model == "beats"}


def test_names_and_values_stay_when_backbones_seeds_or_points_are_added() -> None:
    space = {"lora_r": tune.randint(2, 64), "learning_rate": tune.loguniform(1e-4, 1e-2)}
    few = sweep(3, ("ast",), **space).trials()
    more = sweep(5, ("ast", "beats"), (0, 1), **space).trials()
    assert set(few) < set(more)
    drawn: dict[str, set[tuple[str, int]]] = {}
    for trial in more:
        drawn.setdefault(f"{trial.lora_r} {trial.learning_rate}", set()).add((trial.model, trial.seed))
    assert len(drawn) == 5
    assert all(cells == {(m, s) for m in MODELS for s in (0, 1)} for cells in drawn.values())


def test_every_kind_of_domain_is_drawn() -> None:
    trials = sweep(
        40,
        ("ast",),
        lora_r=tune.choice([4, 8, 16]),
        lora_alpha=tune.sample_from(lambda config: 2.0 * config["lora_r"]),
        lora_dropout=tune.uniform(0.0, 0.5),
        learning_rate=tune.loguniform(1e-4, 1e-2),
        head_dropout=tune.quniform(0.0, 0.4, 0.1),
        patience=tune.randint(5, 9),
    ).trials()
    assert len(trials) == 40
    assert {trial.lora_r for trial in trials} == {4, 8, 16}
    assert all(trial.lora_alpha == 2 * trial.lora_r for trial in trials)
    assert {round(10 * trial.head_dropout) for trial in trials} == {0, 1, 2, 3, 4}
    assert {trial.patience for trial in trials} == {5, 6, 7, 8}
    assert sum(trial.learning_rate < 1e-3 for trial in trials) in range(10, 31)  # half of them on the log scale
    assert len({trial.lora_dropout for trial in trials}) == 40


def test_points_drawn_twice_are_one_trial() -> None:
    trials = sweep(30, ("ast",), lora_r=tune.choice([4, 8])).trials()
    assert sorted(trial.lora_r for trial in trials) == [4, 8]
    check_trials(trials)


def test_value_grid_and_domain_may_depend_on_the_backbone() -> None:
    space = {
        "lora_r": PerModel({"ast": tune.grid_search([4, 8]), "beats": 16}),
        "learning_rate": PerModel({"ast": 1e-3, "beats": tune.uniform(0.1, 0.2)}),
    }
    trials = sweep(**space).trials()
    assert [(trial.model, trial.lora_r) for trial in trials] == [("ast", 4), ("ast", 8), ("beats", 16)]
    assert [trial.learning_rate > 0.05 for trial in trials] == [False, False, True]
    with pytest.raises(UserError, match=r"lora_r.*beats"):
        sweep(lora_r=PerModel({"ast": 8})).trials()


@pytest.mark.parametrize(
    "name",
    ["learning_rate", "weight_decay", "warmup_epochs", "label_smoothing", "head_dropout", "lora_alpha", "lora_dropout",
     "gain_db", "shift_ms", "noise_snr_db", "speed", "freq_mask", "time_mask_ms", "mixup_alpha", "max_grad_norm"],
)  # fmt: skip
def test_setting_can_be_searched(name: str) -> None:
    low, high = 0.01, 0.1
    values = [getattr(trial, name) for trial in sweep(4, ("ast",), **{name: tune.uniform(low, high)}).trials()]
    assert len(set(values)) == 4
    assert all(low <= value <= high for value in values)


@pytest.mark.parametrize(
    ("space", "parts"),
    [
        ({"rank": tune.grid_search([4, 8])}, ["'rank'", "lora_r"]),
        ({"lora_r": tune.grid_search([4, 0])}, ["lora_r=0", "1 or more"]),
        ({"lora_r": tune.randint(0, 9)}, ["lora_r=0"]),
        ({"lora_r": tune.uniform(1, 9)}, ["lora_r=1.0", "int"]),
        ({"lora_dropout": tune.uniform(0.0, 1.5)}, ["lora_dropout=1.5"]),
        ({"lora_targets": tune.choice(["qkv", "everything"])}, ["'everything'", "qkv"]),
        ({"learning_rate": PerModel({"ast": tune.uniform(-1e-3, 1), "beats": 1.0})}, ["learning_rate=-0.001"]),
        ({"device": tune.choice(["cpu", "cuda"])}, ["'device'"]),
        ({"dataset": tune.grid_search(["tiny", "small"])}, ["'dataset'"]),
        ({"micro_batch": tune.choice([8, 16])}, ["'micro_batch'"]),
        ({"lora_r": tune.grid_search([])}, ["'lora_r'", "no values"]),
        ({"lora_r": tune.choice([])}, ["'lora_r'", "no values"]),
        ({"learning_rate": tune.uniform(0.5, 0.1)}, ["'learning_rate'", "no values"]),
        ({"lora_r": tune.sample_from(lambda config: config["nothing"])}, ["'lora_r'", "KeyError", "'nothing'"]),
        ({"lora_r": tune.grid_search([*range(1, 2000)]), "seed": tune.grid_search([*range(2000)])}, ["10000 points"]),
        ({"samples": 0}, ["num_samples=0"]),
        ({"samples": 2.5}, ["num_samples=2.5"]),
        ({"samples": 10**9}, ["num_samples=1000000000"]),
    ],
)
def test_wrong_space_is_one_line(space: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(UserError) as refused:
        sweep(**space).trials()
    assert "\n" not in str(refused.value)
    assert all(part in str(refused.value) for part in parts)


def test_space_without_backbones_and_grid_for_a_searcher_are_refused() -> None:
    with pytest.raises(UserError, match="'model'"):
        Sweep({"lora_r": 8})
    with pytest.raises(UserError, match=r"'model'.*tune\.choice"):
        dataclasses.replace(sweep(), searcher=object())


def test_clip_length_differs_only_if_the_space_varies_it() -> None:
    trials = sweep(clip_seconds=tune.grid_search([1.0, 2.0])).trials()
    check_trials(trials, ["clip_seconds"])
    with pytest.raises(UserError, match="clips of 1, 2 s"):
        check_trials(trials)


@pytest.mark.parametrize("tag", ["../up", "A", "a b", "x" * 41])
def test_tag_that_is_no_part_of_a_file_name_is_refused(tag: str) -> None:
    with pytest.raises(UserError, match="tag"):
        TrainConfig(tag=tag)
