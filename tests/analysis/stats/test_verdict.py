"""The verdict: arms selected on validation, one contrast tested over the test players."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis.load.trials import Trial
from analysis.stats.contrast import contrast
from analysis.stats.pairs import augmentation_pairs, other_pairs
from analysis.stats.statistics import holm
from analysis.stats.verdict import Outcome, Verdict, judge
from analysis.stats.verdict_text import UNKNOWN_PLAYERS, details, headline
from sousaphone.runs.deployment import Latency, RuntimeCost
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
    """Return random answers by trial with these rates, which vary by `spread` between the players of each trial."""
    rng = np.random.default_rng(seed)
    tables = []
    for name, rate in rates.items():
        own = np.clip(rate + rng.normal(0, spread, players), 0, 1)
        table = pd.DataFrame({"player": np.repeat([f"p{p}" for p in range(players)], clips)})
        table["sample_id"] = [f"c{n}" for n in range(len(table))]
        tables.append(table.assign(correct=rng.random(len(table)) < np.repeat(own, clips), trial_id=name))
    return pd.concat(tables, ignore_index=True)


TWO = [trial("ast", 0.8), trial("beats", 0.7)]


SIX = [trial(model, val, seed) for model, val in (("ast", 0.8), ("beats", 0.7)) for seed in range(3)]


def verdict(rates: Mapping[str, float], **values: Any) -> Verdict:
    """Judge two arms of one seed each."""
    return judge(TWO, answers(rates, **values), None, {})


def three_seeds(first: float, second: float, baseline: float | None = None, **values: Any) -> Verdict:
    """Judge two arms of three seeds each, and a baseline if its accuracy is given."""
    rates = {each.trial_id: first if each.config["model"] == "ast" else second for each in SIX}
    rows = answers({**rates, "baseline": baseline or 0.0}, **values)
    simple = ("neighbours", rows[rows.trial_id == "baseline"]) if baseline is not None else None
    return judge(SIX, rows[rows.trial_id != "baseline"], None, {}, baseline=simple)


def test_better_arm_is_recommended_with_its_interval() -> None:
    found = three_seeds(0.8, 0.6, baseline=0.2)
    assert found.outcome is Outcome.BETTER
    assert found.of_backbones
    assert headline(found).startswith("Use AST")
    assert "12 players, 600 clips" in headline(found)
    assert found.chosen is not None
    assert found.lead is not None
    assert min(found.chosen.low, found.lead.contrast.low) > 0


@pytest.mark.parametrize("seeds", [1, 2])
def test_fewer_than_three_seeds_say_nothing_about_backbones(seeds: int) -> None:
    trials = [each for each in SIX if each.config["seed"] < seeds]
    for first, second, outcome in ((0.9, 0.4, "better"), (0.4, 0.9, "contradicted"), (0.5, 0.5, "undecided")):
        rates = {each.trial_id: first if each.config["model"] == "ast" else second for each in trials}
        found = judge(trials, answers(rates, seed=1), None, {})
        assert (found.outcome, found.of_backbones) == (outcome, False)
        text = headline(found)
        assert "this trained" in text.lower()
        assert "--extend --seeds 0 1 2" in text
        assert not text.startswith("Use")


def test_winner_must_be_better_than_the_best_baseline() -> None:
    low = three_seeds(0.08, 0.02, baseline=0.06)
    assert low.outcome is Outcome.NOT_ABOVE_BASELINE
    assert low.lead is not None
    assert not low.lead.shown
    assert "neighbours" in headline(low)
    assert "Use" not in headline(low)
    below = three_seeds(0.5, 0.3, baseline=0.9)
    assert below.outcome is Outcome.NOT_ABOVE_BASELINE
    assert "below the best baseline" in headline(below)
    assert three_seeds(0.8, 0.6, baseline=0.5).outcome is Outcome.BETTER


def test_lead_over_baselines_is_reported_as_not_measured_without_their_predictions() -> None:
    found = three_seeds(0.8, 0.6)
    assert (found.outcome, found.lead) == (Outcome.BETTER, None)
    assert "baseline was not measured" in headline(found)
    assert not headline(found).startswith("Use")


def test_cheaper_of_equivalent_arms_is_recommended_only_above_the_baseline() -> None:
    for baseline, recommended in ((0.2, True), (0.99, False)):
        found = three_seeds(0.99, 0.99, baseline, players=20, clips=200)
        assert found.outcome is Outcome.EQUIVALENT
        assert ("Use the cheaper" in headline(found)) is recommended


def exact(*rows: tuple[int, int, int], players: int = 8) -> pd.DataFrame:
    """Answers of one seed each, from (clips of each player, correct by AST, correct by BEATs)."""
    parts = [(p, a, b) for p in range(players) for number, a, b in rows for _ in range(number)]
    table = pd.DataFrame(parts, columns=["player", "ast-on-s0", "beats-on-s0"]).astype({"player": str})
    table["sample_id"] = table.index.astype(str)
    whole = table.melt(["player", "sample_id"], var_name="trial_id", value_name="correct")
    return whole.astype({"correct": bool})


def test_no_variance_is_no_certainty() -> None:
    for rows in (exact((1, 1, 1)), exact((1, 1, 0), (1, 0, 1))):
        found = judge(TWO, rows, None, {})
        assert found.outcome is Outcome.UNDECIDED
        assert found.chosen is not None
        assert (found.chosen.difference, found.chosen.error) == (0, 0)
        assert found.chosen.high > 0.3
    many = judge(TWO, exact((40, 1, 1), (10, 0, 0)), None, {})
    assert many.outcome is Outcome.EQUIVALENT


def test_power_and_needed_players_are_given_for_fixed_true_differences() -> None:
    found = verdict({"ast-on-s0": 0.60, "beats-on-s0": 0.55}, players=8, clips=10, spread=0.1)
    assert found.outcome is Outcome.UNDECIDED
    needed = [found.players_for(true) for true in (0.05, 0.10)]
    assert all(number is not None and number >= 8 for number in needed)
    (line,) = (line for line in details(found) if "needed" in line)
    assert all(
        f"{number:,} for {points} percentage points" in line for number, points in zip(needed, (5, 10), strict=True)
    )
    assert any("power" in line.lower() and f"{found.power(0.1):.0%} for 10" in line for line in details(found))


@pytest.mark.parametrize(
    ("rates", "open_question"), [((0.8, 0.6), False), ((0.5, 0.8), False), ((0.99, 0.99), False), ((0.62, 0.6), True)]
)
def test_players_are_advised_only_while_the_question_is_open(rates: tuple[float, float], open_question: bool) -> None:
    found = verdict(dict(zip(("ast-on-s0", "beats-on-s0"), rates, strict=True)), players=20, clips=60, seed=2)
    assert any("needed" in line for line in details(found)) is open_question
    assert (found.outcome is Outcome.UNDECIDED) is open_question


def test_small_difference_with_a_narrow_interval_is_equivalent() -> None:
    found = verdict({"ast-on-s0": 0.95, "beats-on-s0": 0.95}, players=30, clips=400)
    assert found.outcome == "equivalent"
    assert "±2 percentage points" in headline(found)


def test_zero_difference_with_a_wide_interval_is_undecided() -> None:
    rows = answers({"ast-on-s0": 0.5, "beats-on-s0": 0.5}, players=8, clips=10)
    rows["correct"] = rows.player.isin(["p0", "p1", "p2", "p3"]) == (rows.trial_id == "ast-on-s0")
    found = judge(TWO, rows, None, {})
    assert found.chosen is not None
    assert found.chosen.difference == 0
    assert found.outcome == "undecided"


def test_rival_that_is_better_on_test_contradicts_validation() -> None:
    found = verdict({"ast-on-s0": 0.5, "beats-on-s0": 0.8})
    assert found.outcome == "contradicted"
    assert found.winner is not None
    assert found.winner.model == "ast"
    assert found.chosen is not None
    assert found.chosen.high < 0
    assert f"(95 % interval {-100 * found.chosen.high:+.1f} to {-100 * found.chosen.low:+.1f};" in headline(found)
    assert not any("M trainable parameters" in line for line in details(found))  # would recommend the loser


def test_test_scores_are_not_used_for_selection() -> None:
    trials = [trial("ast", 0.8), trial("beats", 0.7), trial("htsat", 0.1)]
    rates = {"ast-on-s0": 0.5, "beats-on-s0": 0.5, "htsat-on-s0": 0.99}
    found = judge(trials, answers(rates), None, {})
    assert found.winner is not None
    assert found.rival is not None
    assert (found.winner.model, found.rival.model) == ("ast", "beats")


def test_rival_is_another_backbone() -> None:
    trials = [trial("ast", 0.8), trial("ast", 0.79, augment=False), trial("beats", 0.5)]
    found = judge(trials, answers(dict.fromkeys(("ast-on-s0", "ast-off-s0", "beats-on-s0"), 0.5)), None, {})
    assert found.rival is not None
    assert found.rival.model == "beats"
    (effect,) = augmentation_pairs(found.groups, answers(dict.fromkeys(("ast-on-s0", "ast-off-s0"), 0.5)))
    assert (effect.first.augment, effect.second.augment) == (True, False)


def test_fewer_than_eight_players_give_no_winner() -> None:
    found = verdict({"ast-on-s0": 0.9, "beats-on-s0": 0.3}, players=7)
    assert found.outcome == "too_few_players"
    assert "7 players; at least 8" in headline(found)
    assert verdict({"ast-on-s0": 0.9, "beats-on-s0": 0.3}, players=1).outcome == "too_few_players"
    assert verdict({"ast-on-s0": 0.9, "beats-on-s0": 0.3}, players=8).outcome == "better"


def test_banner_replaces_the_verdict() -> None:
    found = judge(TWO, answers({"ast-on-s0": 0.9, "beats-on-s0": 0.3}), "Random weights: it says nothing.", {})
    assert (found.outcome, found.winner, details(found)) == ("none", None, [])


def test_other_pairs_are_adjusted_and_exclude_the_selected_pair() -> None:
    models = {"ast": 0.8, "beats": 0.7, "htsat": 0.6, "efficientat": 0.5}
    trials = [trial(model, val) for model, val in models.items()]
    rows = answers({t.trial_id: models[t.config["model"]] for t in trials})
    pairs = other_pairs(judge(trials, rows, None, {}).compared, rows)
    raw = [pair.contrast.p for pair in pairs]
    assert len(raw) == 5
    assert [pair.p for pair in pairs] == holm(raw) != raw
    assert not any({pair.first.model, pair.second.model} == {"ast", "beats"} for pair in pairs)


def test_limits_of_parameters_and_time_have_their_own_recommendation() -> None:
    found = judge(TWO, answers({"ast-on-s0": 0.8, "beats-on-s0": 0.7}), None, {"ast-on-s0": 30.0, "beats-on-s0": 12.0})
    (sentence,) = (line for line in details(found) if "trainable parameters" in line)
    parameters, time, _ = sentence.split("; ")
    assert "BEATs (validation macro F1 0.700)" in parameters
    assert "10 ms" in time
    assert time.endswith("none")


def test_arm_that_is_fast_enough_as_deployed_is_recommended() -> None:
    rates = {"ast-on-s0": 0.8, "beats-on-s0": 0.6}

    def clause(**milliseconds: float) -> str:
        costs = {
            name: RuntimeCost("onnx", None, 0, (Latency(1, ms, ms, 10),), 1.0, 1, 1)
            for name, ms in milliseconds.items()
        }
        deployed = {f"{name}-on-s0": cost for name, cost in costs.items()}
        found = judge(TWO, answers(rates), None, {}, deployed=deployed)
        (sentence,) = (line for line in details(found) if "50 ms" in line)
        return sentence.rpartition("; ")[2]

    assert "not measured" in clause()
    assert "AST" in clause(ast=49.0, beats=4.0)  # the better one on validation
    assert "BEATs" in clause(ast=51.0, beats=4.0)
    assert "none" in clause(ast=51.0, beats=51.0)


def test_unfinished_trials_are_not_compared() -> None:
    trials = [trial("ast", 0.8), trial("beats", 0.9, status="time_limit")]
    found = judge(trials, answers({"ast-on-s0": 0.8, "beats-on-s0": 0.7}), None, {})
    assert found.outcome == "nothing_to_compare"
    assert "only AST has finished" in headline(found)
    none = judge([dataclasses.replace(t, status=Status.FAILED) for t in TWO], answers({"x": 0.5}).iloc[:0], None, {})
    assert (none.outcome, none.winner) == ("nothing_to_compare", None)
    assert "no trial has finished" in headline(none)


def test_arms_without_predictions_or_results_are_named_with_the_reason() -> None:
    trials = [
        *TWO,
        trial("efficientat", 0.6, augment=False),
        trial("efficientat", 0.9, status="running"),
        trial("htsat", 0.9, status="failed"),
    ]
    found = judge(trials, answers({"ast-on-s0": 0.8, "beats-on-s0": 0.6, "efficientat-on-s0": 0.9}), None, {})
    (line,) = (line for line in details(found) if line.startswith("Not compared"))
    for part in (
        "EfficientAT · unaugmented (",
        "EfficientAT · augmented (running)",
        "HTS-AT (CLAP) · augmented (failed)",
    ):
        assert part in line
    assert not any("Not compared" in line for line in details(verdict({"ast-on-s0": 0.8, "beats-on-s0": 0.6})))


def test_arms_without_predictions_can_be_recommended_under_a_limit() -> None:
    cheap = [trial("ast", 0.8), trial("htsat", 0.75), trial("beats", 0.7)]
    for trials in (cheap, cheap[::-1]):
        found = judge(trials, answers({"ast-on-s0": 0.8, "beats-on-s0": 0.6}), None, {})
        assert any("2 M trainable parameters: HTS-AT" in line for line in details(found))


def test_finished_arm_without_predictions_is_not_compared() -> None:
    found = judge(TWO, answers({"ast-on-s0": 0.8}), None, {})
    assert found.outcome == "nothing_to_compare"
    assert "only AST has test predictions" in headline(found)
    (line,) = details(found)
    assert "BEATs (" in line


def test_arms_measured_under_different_conditions_have_no_winner() -> None:
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
    assert (found.outcome, found.winner) == ("not_alike", None)
    assert "(version: 1 and 2)" in headline(found)


@pytest.mark.parametrize(("players", "right"), [(12, 0.6), (12, 0.78), (7, 0.6)])
def test_groups_of_recordings_are_not_reported_as_players(players: int, right: float) -> None:
    table = answers({"ast-on-s0": 0.8, "beats-on-s0": right}, players)
    found = judge(TWO, table, None, {}, players_known=False)
    assert f"{players} groups of recordings (players unknown)" in headline(found)
    assert UNKNOWN_PLAYERS in details(found)
    text = " ".join([headline(found), *details(found)]).replace(UNKNOWN_PLAYERS, "").replace("(players unknown)", "")
    assert "player" not in text
    known = judge(TWO, table, None, {})
    assert known.outcome == found.outcome
    assert UNKNOWN_PLAYERS not in details(known)


def test_contrast_is_of_winner_and_rival() -> None:
    rows = answers({"ast-on-s0": 0.8, "beats-on-s0": 0.6})
    found = judge(TWO, rows, None, {})
    wide = rows.pivot(index="sample_id", columns="trial_id", values="correct")
    players = rows.drop_duplicates("sample_id").set_index("sample_id").player
    own = contrast(wide[["ast-on-s0"]], wide[["beats-on-s0"]], players)
    assert found.chosen is not None
    assert (found.chosen.difference, found.chosen.low) == pytest.approx((own.difference, own.low))


@pytest.mark.slow
def test_false_positive_rate_on_null_sweeps_is_at_most_five_percent() -> None:
    seeds = pd.read_parquet(SEEDS)
    assert seeds.seed.nunique() >= 24
    assert calibrate(seeds, sweeps=50).outcomes["better"] <= 2


@pytest.mark.slow
def test_power_for_ten_points_is_as_stated() -> None:
    found = calibrate(pd.read_parquet(SEEDS), sweeps=100, true=0.10)
    assert found.outcomes["better"] / 100 == pytest.approx(found.stated_power, abs=0.12)
