"""Statistics compared with scipy, statsmodels, cases computed by hand, and simulation."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

from analysis.stats.statistics import contrast, holm, mean_interval, sign_flip_p


def arm(players: int, clips: int, seeds: int, rate: float | np.ndarray, rng: np.random.Generator) -> pd.DataFrame:
    """Return random answers: rows are clips named by player and number, columns are seeds; `rate` is per player."""
    names = [f"p{p:02d}-{c:03d}" for p in range(players) for c in range(clips)]
    rates = np.repeat(np.broadcast_to(rate, players), clips)
    return pd.DataFrame(rng.random((players * clips, seeds)) < rates[:, None], index=names)


def players_of(arm: pd.DataFrame) -> pd.Series:
    return pd.Series([name.partition("-")[0] for name in arm.index], index=arm.index)


def test_interval_of_the_mean_equals_scipy() -> None:
    values = [0.1, 0.4, 0.35, 0.2, 0.9]
    mean, low, high = mean_interval(values)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (mean, low, high) == pytest.approx((np.mean(values), expected.low, expected.high))
    assert mean_interval([0.3])[0] == 0.3
    assert math.isnan(mean_interval([0.3])[1])


def test_sign_flip_test_counts_every_pattern() -> None:
    # The 8 sign patterns of 1, 2, 3 have the sums ±6, ±4, ±2, 0, 0: two are as extreme as 6, four as 4.
    assert sign_flip_p([1.0, 2.0, 3.0]) == 2 / 8
    assert sign_flip_p([-1.0, 2.0, 3.0]) == 4 / 8
    assert sign_flip_p([0.0, 0.0]) == 1.0
    assert sign_flip_p([0.1] * 8) == 2 / 256


def test_sign_flip_test_equals_scipys_permutation_test() -> None:
    values = np.random.default_rng(1).normal(0.4, 1, 10)
    reference = stats.permutation_test(
        (values,), np.sum, permutation_type="samples", n_resamples=np.inf, alternative="two-sided"
    )
    assert sign_flip_p(values) == pytest.approx(reference.pvalue)


def test_sign_flip_test_of_many_players_approximates_the_normal_test() -> None:
    values = np.random.default_rng(2).normal(0.25, 1, 60)
    z = abs(values.sum()) / math.sqrt((values**2).sum())
    assert sign_flip_p(values) == pytest.approx(2 * stats.norm.sf(z), abs=0.01)
    assert sign_flip_p(values) == sign_flip_p(values)


def test_holm_equals_statsmodels() -> None:
    p_values = [0.01, 0.04, 0.03, 0.005, 0.5, 0.04]
    assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1])
    assert holm([]) == []


def test_contrast_of_one_seed_is_the_paired_t_test_over_players() -> None:
    rng = np.random.default_rng(0)
    first, second = arm(10, 20, 1, 0.7, rng), arm(10, 20, 1, 0.5, rng)
    players = players_of(first)
    found = contrast(first, second, players)
    means = [side[0].groupby(players).mean() for side in (first, second)]
    reference = stats.ttest_rel(*means)
    interval = reference.confidence_interval(0.95)
    assert found.difference == pytest.approx((means[0] - means[1]).mean())
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.df == pytest.approx(9)
    assert (found.players, found.clips, found.seeds, found.seed_parts) == (10, 200, (1, 1), [])
    assert found.p == pytest.approx(max(reference.pvalue, found.p_flip))


@pytest.mark.parametrize(("seeds", "known"), [((3, 1), False), ((2, 3), False), ((3, 3), True)])
def test_variance_between_seeds_needs_three_seeds_in_both_arms(seeds: tuple[int, int], known: bool) -> None:
    rng = np.random.default_rng(5)
    first, second = arm(8, 20, seeds[0], 0.7, rng), arm(8, 20, seeds[1], 0.5, rng)
    found = contrast(first, second, players_of(first))
    assert (found.seeds, len(found.seed_parts)) == (seeds, 2 * known)
    assert found.low < found.difference < found.high
    assert (found.df == 7) != known


def test_variance_is_split_into_within_and_between_players() -> None:
    rng = np.random.default_rng(6)
    first, second = arm(10, 5, 1, rng.random(10), rng), arm(10, 5, 1, 0.2, rng)
    found = contrast(first, second, players_of(first))
    groups = (first[0].astype(float) - second[0].astype(float)).groupby(players_of(first))
    within = np.mean([stats.tvar(values) for _, values in groups])
    assert found.within == pytest.approx(within)
    assert found.between == pytest.approx(stats.tvar(groups.mean()) - within / 5)
    assert found.between > 0


def test_contrast_uses_common_clips_in_any_order() -> None:
    rng = np.random.default_rng(3)
    first, second = arm(8, 5, 1, 0.7, rng), arm(8, 5, 1, 0.5, rng)
    players = players_of(first)
    found = contrast(first.iloc[:-3].sample(frac=1, random_state=0), second, players)
    assert found.clips == 37
    assert found.difference == pytest.approx(contrast(first.iloc[:-3], second.iloc[:-3], players).difference)
    with pytest.raises(ValueError, match="players in common"):
        contrast(first[:5], second, players)


def test_variance_of_three_seeds_widens_the_interval() -> None:
    # All players have equal answers, so only seeds vary.
    index = [f"p{p:02d}-{c}" for p in range(10) for c in range(2)]
    rates = [0.0, 0.5, 1.0]
    first = pd.DataFrame({s: [c < 2 * rate for _ in range(10) for c in range(2)] for s, rate in enumerate(rates)})
    second = pd.DataFrame({s: [True, False] * 10 for s in range(3)})
    first.index = second.index = pd.Index(index)
    found = contrast(first, second, players_of(first))
    # The seeds' means are 0, 0.5 and 1: their variance is 1/4, that of their mean 1/12, with 2 degrees of freedom.
    assert found.difference == pytest.approx(0)
    assert found.seed_parts == [(pytest.approx(1 / 12), 2), (0, 2)]
    assert found.error**2 == pytest.approx(1 / 12)
    assert found.df == pytest.approx(2)
    assert found.high == pytest.approx(stats.t.ppf(0.975, 2) * math.sqrt(1 / 12))
    two = contrast(first[[0, 1]], second[[0, 1]], players_of(first))
    assert two.seed_parts == []


@pytest.mark.slow
def test_interval_has_its_nominal_coverage_when_players_and_seeds_vary() -> None:
    rng = np.random.default_rng(4)
    held = 0
    for _ in range(400):
        sides = []
        for truth in (0.6, 0.5):
            by_player, by_seed = rng.normal(0, 0.08, 10), rng.normal(0, 0.05, 3)
            right = [arm(10, 20, 1, np.clip(truth + by_player + seed, 0, 1), rng)[0] for seed in by_seed]
            sides.append(pd.concat(right, axis=1, keys=range(3)))
        found = contrast(*sides, players_of(sides[0]))
        held += found.low <= 0.1 <= found.high
    assert held >= 0.94 * 400  # conservative: the interaction of players and seeds is counted twice


def test_power_and_number_of_players_equal_statsmodels() -> None:
    rng = np.random.default_rng(5)
    first, second = arm(10, 30, 1, np.linspace(0.2, 1, 10), rng), arm(10, 30, 1, 0.55, rng)
    found = contrast(first, second, players_of(first))
    spread = found.by_player.std(ddof=1)
    reference = TTestPower()
    assert found.power(0.1) == pytest.approx(
        reference.power(0.1 / spread, nobs=10, alpha=0.05, alternative="two-sided"), abs=5e-3
    )  # statsmodels includes significant differences of the wrong sign
    exact = reference.solve_power(0.05 / spread, power=0.8, alpha=0.05, alternative="two-sided")
    assert found.players_for(0.05, 30) in (math.ceil(exact) - 1, math.ceil(exact), math.ceil(exact) + 1)


def test_more_clips_per_player_need_fewer_players() -> None:
    rng = np.random.default_rng(6)
    first, second = arm(10, 10, 1, 0.6, rng), arm(10, 10, 1, 0.5, rng)
    found = contrast(first, second, players_of(first))
    few, many = found.players_for(0.05, 10), found.players_for(0.05, 80)
    assert few is not None
    assert many is not None
    assert many < few


def test_no_number_of_players_is_enough_if_seeds_vary_too_much() -> None:
    rng = np.random.default_rng(6)
    wild = pd.concat([arm(10, 10, 1, rate, rng)[0] for rate in (0.1, 0.5, 0.9)], axis=1, keys=range(3))
    assert contrast(wild, wild[[1, 2, 0]], players_of(wild)).players_for(0.02, 1000) is None


@pytest.mark.parametrize("spread", [0.0, 0.02])
def test_number_of_players_is_the_smallest_with_the_stated_power(spread: float) -> None:
    rng = np.random.default_rng(9)
    seeds = [arm(12, 20, 1, np.linspace(0.4, 0.8, 12) + shift, rng)[0] for shift in (-spread, 0.0, spread)]
    first, second = pd.concat(seeds, axis=1, keys=range(3)), arm(12, 20, 3, 0.5, rng)
    found = contrast(first, second, players_of(first))
    needed = found.players_for(0.15, 20)
    assert needed is not None

    def power(players: int) -> float:
        parts = [((found.between + found.within / 20) / players, players - 1), *found.seed_parts]
        total = sum(variance for variance, _ in parts)
        df = total**2 / sum(variance**2 / df for variance, df in parts)
        return dataclasses.replace(found, error=math.sqrt(total), df=df).power(0.15)

    assert power(needed) >= 0.8 > power(needed - 1)


@pytest.mark.slow
def test_number_of_players_for_equivalence_makes_the_interval_narrow_enough() -> None:
    rng = np.random.default_rng(7)
    first, second = arm(10, 20, 1, 0.5, rng), arm(10, 20, 1, 0.5, rng)
    needed = contrast(first, second, players_of(first)).players_for_equivalence(0.15, 20)
    assert needed is not None
    inside = 0
    for _ in range(100):
        sides = [arm(needed, 20, 1, 0.5, rng) for _ in range(2)]
        found = contrast(*sides, players_of(sides[0]))
        inside += found.low > -0.15 and found.high < 0.15
    assert inside >= 65  # stated: 80 %; the players' variance is estimated from a small sample


def test_equal_answers_have_no_difference() -> None:
    first = arm(8, 5, 1, 0.5, np.random.default_rng(8))
    found = contrast(first, first, players_of(first))
    assert (found.difference, found.low, found.high, found.p, found.p_flip) == (0, 0, 0, 1, 1)
    assert not found.significant
