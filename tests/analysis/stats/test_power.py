"""The power by simulation, compared with statsmodels and with simulated sweeps."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.power import TTestPower

from analysis.stats.contrast import Contrast, contrast
from analysis.stats.power import players_for, power
from sousaphone.config import FEW_PLAYERS
from tests.analysis.stats.test_contrast import arm, players_of


def compared(players: int, clips: int, rates: tuple[float, float], seeds: int = 1, spread: float = 0.1) -> Contrast:
    rng = np.random.default_rng(5)
    own = np.clip(rates[0] + rng.normal(0, spread, players), 0, 1)
    first, second = arm(players, clips, seeds, own, rng), arm(players, clips, seeds, rates[1], rng)
    return contrast(first, second, players_of(first))


def test_power_of_many_players_with_many_clips_equals_statsmodels() -> None:
    found = compared(16, 400, (0.6, 0.55))
    spread = found.by_player.std(ddof=1)
    for true in (0.03, 0.06, 0.1):
        expected = TTestPower().power(true / spread, nobs=16, alpha=0.05, alternative="two-sided")
        assert power([(found, true)]) == pytest.approx(expected, abs=0.04)
    exact = TTestPower().solve_power(0.05 / spread, power=0.8, alpha=0.05, alternative="two-sided")
    assert players_for([(found, 0.05)]) == pytest.approx(exact, rel=0.15)


def test_rule_has_less_power_than_the_t_test_alone() -> None:
    found = compared(8, 12, (0.6, 0.55))
    spread = found.by_player.std(ddof=1)
    t = TTestPower().power(0.2 / spread, nobs=8, alpha=0.05, alternative="two-sided")
    assert power([(found, 0.2)]) < t - 0.02  # the sign-flip test and the interval over clips must agree


def test_power_of_two_contrasts_is_at_most_that_of_each() -> None:
    found = compared(12, 40, (0.6, 0.55))
    alone = power([(found, 0.1)])
    assert power([(found, 0.1), (found, 0.03)]) <= power([(found, 0.03)]) + 0.03 < alone
    assert power([(found, 0.1), (found, 0.1)]) == pytest.approx(alone, abs=0.03)


def test_power_grows_with_the_true_difference_and_is_small_without_one() -> None:
    found = compared(12, 40, (0.6, 0.55))
    powers = [power([(found, true)]) for true in (0.0, 0.05, 0.1, 0.2)]
    assert powers == sorted(powers)
    assert powers[0] < 0.04
    assert power([(found, 0.1)]) == powers[2]  # the draws are fixed


def test_varying_seeds_reduce_the_power() -> None:
    rng = np.random.default_rng(6)
    wild = pd.concat([arm(10, 10, 1, rate, rng)[0] for rate in (0.1, 0.5, 0.9)], axis=1, keys=range(3))
    found = contrast(wild, wild[[1, 2, 0]], players_of(wild))
    assert power([(found, 0.1)]) < 0.2
    assert players_for([(found, 0.05)]) is None


@pytest.mark.parametrize("true", [0.05, 0.1])
def test_needed_players_are_at_least_the_fewest_of_a_verdict(true: float) -> None:
    same = compared(12, 1000, (0.99, 0.99), spread=0.0)
    assert players_for([(same, true)]) == FEW_PLAYERS


def test_contrast_without_any_variance_has_full_power_only_with_enough_clips() -> None:
    for clips, low, high in ((100, 1.0, 1.0), (1, 0.0, 0.5)):
        first = pd.DataFrame({0: [True] * 8 * clips}, index=[f"p{p}-{c}" for p in range(8) for c in range(clips)])
        found = contrast(first, first, players_of(first))
        assert low <= power([(found, 0.1)]) <= high
        assert math.isfinite(power([(found, 0.1)]))
