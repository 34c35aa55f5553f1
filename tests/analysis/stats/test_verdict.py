"""The verdict: chosen on validation, tested once over players, and silent where nothing may be said."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis.load.trials import Trial
from analysis.stats.statistics import contrast, holm
from analysis.stats.verdict import UNKNOWN_PLAYERS, Verdict, judge
from sousaphone.runs.statuses import Status
from tests.analysis.null_sweeps import calibrate

SEEDS = Path(__file__).parents[1] / "data" / "null_seeds.parquet"


def trial(model: str, val: float, seed: int = 0, augment: bool = True, status: str = "completed") -> Trial:
    config: dict[str, Any] = {"model": model, "strategy": "lora", "lora_targets": "all-linear", "augment": augment}
    row = {"epoch": 1, "best_epoch": 1, "val_macro_f1": val, "val_acc": val, "test_acc": 0.5}
    name = f"{model}-{'on' if augment else 'off'}-s{seed}"
    counts = {"trainable": {"ast": 3_000_000, "beats": 1_000_000}.get(model, 500_000)}
    return Trial(name, {**config, "seed": seed}, Status(status), history=[row], parameters=counts)


def answers(
    rates: Mapping[str, float], players: int = 12, clips: int = 50, spread: float = 0.0, seed: int = 0
) -> pd.DataFrame:
    """Who is right, by trial: with these rates, give or take a spread that each player has for each trial."""
    rng = np.random.default_rng(seed)
    tables = []
    for name, rate in rates.items():
        own = np.clip(rate + rng.normal(0, spread, players), 0, 1)
        table = pd.DataFrame({"player": np.repeat([f"p{p}" for p in range(players)], clips)})
        table["sample_id"] = [f"c{n}" for n in range(len(table))]
        tables.append(table.assign(correct=rng.random(len(table)) < np.repeat(own, clips), trial_id=name))
    return pd.concat(tables, ignore_index=True)


TWO = [trial("ast", 0.8), trial("beats", 0.7)]


def verdict(rates: Mapping[str, float], **values: Any) -> Verdict:
    return judge(TWO, answers(rates, **values), None, {})


def test_the_better_of_two_is_named_with_its_interval() -> None:
    found = verdict({"ast-on-s0": 0.8, "beats-on-s0": 0.6})
    assert found.outcome == "better"
    assert found.headline.startswith("Use AST: it is better than BEATs, by ")
    assert "12 players, 600 clips" in found.headline
    assert found.chosen is not None
    assert found.chosen.low > 0


def test_two_of_a_kind_are_equivalent_and_the_cheaper_one_will_do() -> None:
    found = verdict({"ast-on-s0": 0.95, "beats-on-s0": 0.95}, players=30, clips=400)
    assert found.outcome == "equivalent"
    assert "within ±2 points" in found.headline


def test_what_cannot_be_told_is_undecided_and_the_players_it_takes_are_named() -> None:
    found = verdict({"ast-on-s0": 0.60, "beats-on-s0": 0.55}, players=8, clips=10, spread=0.1)
    assert found.outcome == "undecided"
    assert any("test players with 10 clips each" in line for line in found.details)
    assert any("would be found in" in line for line in found.details)


def test_no_difference_on_average_is_not_equivalent_where_the_interval_is_wide() -> None:
    rows = answers({"ast-on-s0": 0.5, "beats-on-s0": 0.5}, players=8, clips=10)
    rows["correct"] = rows.player.isin(["p0", "p1", "p2", "p3"]) == (rows.trial_id == "ast-on-s0")
    found = judge(TWO, rows, None, {})
    assert found.chosen is not None
    assert found.chosen.difference == 0
    assert found.outcome == "undecided"


def test_validation_chooses_and_test_may_contradict() -> None:
    found = verdict({"ast-on-s0": 0.5, "beats-on-s0": 0.8})
    assert found.outcome == "contradicted"
    assert found.winner is not None
    assert found.winner.model == "ast"
    assert "on the test players BEATs is better" in found.headline
    assert found.chosen is not None
    assert found.chosen.high < 0
    assert f"(95 % interval {-100 * found.chosen.high:+.1f} to {-100 * found.chosen.low:+.1f};" in found.headline


def test_test_scores_have_no_part_in_choosing() -> None:
    trials = [trial("ast", 0.8), trial("beats", 0.7), trial("htsat", 0.1)]
    rates = {"ast-on-s0": 0.5, "beats-on-s0": 0.5, "htsat-on-s0": 0.99}
    found = judge(trials, answers(rates), None, {})
    assert found.winner is not None
    assert found.rival is not None
    assert (found.winner.model, found.rival.model) == ("ast", "beats")


def test_the_rival_is_of_another_backbone() -> None:
    trials = [trial("ast", 0.8), trial("ast", 0.79, augment=False), trial("beats", 0.5)]
    found = judge(trials, answers(dict.fromkeys(("ast-on-s0", "ast-off-s0", "beats-on-s0"), 0.5)), None, {})
    assert found.rival is not None
    assert found.rival.model == "beats"
    (effect,) = found.augmentation
    assert (effect.first.augment, effect.second.augment) == (True, False)


def test_fewer_than_eight_players_name_no_winner() -> None:
    found = verdict({"ast-on-s0": 0.9, "beats-on-s0": 0.3}, players=7)
    assert found.outcome == "too_few_players"
    assert found.headline.startswith("No winner: the test clips are of 7 players, and it takes 8")
    assert verdict({"ast-on-s0": 0.9, "beats-on-s0": 0.3}, players=1).outcome == "too_few_players"
    assert verdict({"ast-on-s0": 0.9, "beats-on-s0": 0.3}, players=8).outcome == "better"


def test_nano_or_random_weights_have_a_banner_and_no_verdict_at_all() -> None:
    found = judge(TWO, answers({"ast-on-s0": 0.9, "beats-on-s0": 0.3}), "Random weights: it says nothing.", {})
    assert (found.outcome, found.winner, found.details) == ("none", None, ())


@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_with_three_seeds_it_speaks_of_backbones_and_before_of_trained_models(seeds: int) -> None:
    trials = [trial(model, val, seed) for model, val in (("ast", 0.8), ("beats", 0.7)) for seed in range(seeds)]
    rates = {t.trial_id: 0.9 if t.config["model"] == "ast" else 0.4 for t in trials}
    found = judge(trials, answers(rates), None, {})
    assert found.chosen is not None
    assert found.chosen.spread_known == (seeds == 3)
    told = " ".join(found.details)
    assert ("speaks of these trained models, not of the backbones" in told) == (seeds < 3)
    assert ("speaks of the backbones" in told) == (seeds == 3)


def test_the_other_pairs_are_adjusted_and_the_one_that_was_chosen_is_not_among_them() -> None:
    models = {"ast": 0.8, "beats": 0.7, "htsat": 0.6, "efficientat": 0.5}
    trials = [trial(model, val) for model, val in models.items()]
    found = judge(trials, answers({t.trial_id: models[t.config["model"]] for t in trials}), None, {})
    raw = [pair.contrast.p for pair in found.others]
    assert len(raw) == 5
    assert [pair.p for pair in found.others] == holm(raw) != raw
    assert not any({pair.first.model, pair.second.model} == {"ast", "beats"} for pair in found.others)


def test_what_is_scarce_decides_otherwise_in_one_sentence() -> None:
    found = judge(TWO, answers({"ast-on-s0": 0.8, "beats-on-s0": 0.7}), None, {"ast-on-s0": 30.0, "beats-on-s0": 12.0})
    (sentence,) = (line for line in found.details if "trainable parameters" in line)
    assert sentence == (
        "Under 2 M trainable parameters choose BEATs (validation macro F1 0.700); none stays under 10 ms a clip on "
        "this CPU."
    )


def test_unfinished_trials_are_not_compared() -> None:
    trials = [trial("ast", 0.8), trial("beats", 0.9, status="time_limit")]
    found = judge(trials, answers({"ast-on-s0": 0.8, "beats-on-s0": 0.7}), None, {})
    assert found.outcome == "nothing_to_compare"
    assert "only AST has run to its end" in found.headline
    none = judge([dataclasses.replace(t, status=Status.FAILED) for t in TWO], answers({"x": 0.5}).iloc[:0], None, {})
    assert none.headline == "No verdict yet: no trial has run to its end."


def test_arms_that_are_not_judged_are_named_with_the_reason_and_count_where_something_is_scarce() -> None:
    trials = [
        *TWO,
        trial("efficientat", 0.6, augment=False),
        trial("efficientat", 0.9, status="running"),
        trial("htsat", 0.9, status="failed"),
    ]
    found = judge(trials, answers({"ast-on-s0": 0.8, "beats-on-s0": 0.6, "efficientat-on-s0": 0.9}), None, {})
    assert found.headline.startswith("Use AST · augmented: ")
    assert (
        "Not compared: EfficientAT · unaugmented (its test predictions cannot be read), EfficientAT · augmented "
        "(running), HTS-AT (CLAP) · augmented (failed)."
    ) in found.details
    cheap = [trial("ast", 0.8), trial("htsat", 0.75), trial("beats", 0.7)]
    found = judge(cheap, answers({"ast-on-s0": 0.8, "beats-on-s0": 0.6}), None, {})
    assert any(line.startswith("Under 2 M trainable parameters choose HTS-AT") for line in found.details)
    found = judge(cheap[::-1], answers({"ast-on-s0": 0.8, "beats-on-s0": 0.6}), None, {})
    assert any(line.startswith("Under 2 M trainable parameters choose HTS-AT") for line in found.details)
    assert not any("Not compared" in line for line in verdict({"ast-on-s0": 0.8, "beats-on-s0": 0.6}).details)


def test_an_arm_that_lost_its_predictions_has_run_to_its_end() -> None:
    found = judge(TWO, answers({"ast-on-s0": 0.8}), None, {})
    assert found.headline.startswith("No verdict: only AST has left its test predictions, ")
    assert found.details == ["Not compared: BEATs (its test predictions cannot be read)."]


def test_arms_that_were_measured_under_other_conditions_have_no_winner() -> None:
    trials = [
        dataclasses.replace(each, data={"fingerprint": "aaaa"}, version=version)
        for each, version in (
            (trial("ast", 0.8), "1"),
            (trial("beats", 0.7), "1"),
            (trial("beats", 0.6, 0, False), "2"),
        )
    ]
    rates = {each.trial_id: 0.9 if each.config["model"] == "ast" else 0.5 for each in trials}
    assert judge(trials[:2], answers(rates), None, {}).outcome == "better"
    found = judge(trials, answers(rates), None, {})
    assert (found.outcome, found.winner, found.augmentation) == ("not_alike", None, [])
    assert found.headline == ("No winner: the arms were not measured under the same conditions (version: 1 and 2).")


@pytest.mark.parametrize(("players", "right"), [(12, 0.6), (12, 0.78), (7, 0.6)])
def test_groups_of_recordings_are_not_called_players(players: int, right: float) -> None:
    table = answers({"ast-on-s0": 0.8, "beats-on-s0": right}, players)
    found = judge(TWO, table, None, {}, players_known=False)
    assert f"{players} groups of recordings (players unknown)" in found.headline
    assert UNKNOWN_PLAYERS in found.details
    told = " ".join([found.headline, *found.details]).replace(UNKNOWN_PLAYERS, "").replace("(players unknown)", "")
    assert "player" not in told
    known = judge(TWO, table, None, {})
    assert known.outcome == found.outcome
    assert UNKNOWN_PLAYERS not in known.details


def test_the_contrast_is_of_the_two_that_were_chosen() -> None:
    rows = answers({"ast-on-s0": 0.8, "beats-on-s0": 0.6})
    found = judge(TWO, rows, None, {})
    wide = rows.pivot(index="sample_id", columns="trial_id", values="correct")
    players = rows.drop_duplicates("sample_id").set_index("sample_id").player
    own = contrast(wide[["ast-on-s0"]], wide[["beats-on-s0"]], players)
    assert found.chosen is not None
    assert (found.chosen.difference, found.chosen.low) == pytest.approx((own.difference, own.low))


@pytest.mark.slow
def test_sweeps_of_one_arms_seeds_in_which_nothing_differs_are_hardly_ever_called_better() -> None:
    seeds = pd.read_parquet(SEEDS)
    assert seeds.seed.nunique() >= 24
    assert calibrate(seeds, sweeps=50).outcomes["better"] <= 2


@pytest.mark.slow
def test_a_true_difference_of_ten_points_is_found_as_often_as_the_report_says() -> None:
    found = calibrate(pd.read_parquet(SEEDS), sweeps=100, true=0.10)
    assert found.outcomes["better"] / 100 == pytest.approx(found.stated_power, abs=0.12)
