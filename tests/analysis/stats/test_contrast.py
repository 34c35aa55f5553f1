"""The difference of two arms, compared with scipy, cases computed by hand, and simulation."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis.stats.contrast import contrast, seed_spread


def arm(players: int, clips: int, seeds: int, rate: float | np.ndarray, rng: np.random.Generator) -> pd.DataFrame:
    """Return random answers: rows are clips named by player and number, columns are seeds; `rate` is per player."""
    names = [f"p{p:02d}-{c:03d}" for p in range(players) for c in range(clips)]
    rates = np.repeat(np.broadcast_to(rate, players), clips)
    return pd.DataFrame(rng.random((players * clips, seeds)) < rates[:, None], index=names)


def players_of(arm: pd.DataFrame) -> pd.Series:
    return pd.Series([name.partition("-")[0] for name in arm.index], index=arm.index)


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


def test_equal_answers_differ_by_zero_with_the_uncertainty_of_few_clips() -> None:
    first = arm(8, 5, 1, 0.5, np.random.default_rng(8))
    found = contrast(first, first, players_of(first))
    assert (found.difference, found.error, found.discordant, found.p, found.p_flip) == (0, 0, 0, 1, 1)
    assert (found.low, found.high) == pytest.approx((-3.84 / 43.84, 3.84 / 43.84), abs=1e-4)
    assert not found.significant


def test_players_have_the_same_weight_also_in_the_interval_over_clips() -> None:
    index = [f"p0-{c}" for c in range(90)] + [f"p{p}-{c}" for p in range(1, 10) for c in range(10)]
    first = pd.DataFrame({0: [name.startswith("p0") for name in index]}, index=index)
    second = ~first
    found = contrast(first, second, players_of(first))
    assert found.difference == pytest.approx((1 - 9) / 10)
    assert found.low < found.difference < found.high
    assert found.clips_each == pytest.approx(10 / (1 / 90 + 9 / 10))
    assert found.discordant == pytest.approx(1)


def test_baseline_has_no_seeds() -> None:
    rng = np.random.default_rng(5)
    first, second = arm(8, 20, 3, 0.7, rng), arm(8, 20, 1, 0.2, rng)
    players = players_of(first)
    assert contrast(first, second, players).seed_parts == []
    assert len(contrast(first, second, players, fixed=True).seed_parts) == 1


def test_variance_between_seeds_is_pooled_over_arms() -> None:
    rng = np.random.default_rng(6)
    sides = arm(8, 20, 3, 0.7, rng), arm(8, 20, 3, 0.5, rng)
    players = players_of(sides[0])
    accuracies = [[0.5, 0.6, 0.7], [0.2, 0.2, 0.2], [0.9]]
    pooled = seed_spread(accuracies)
    assert pooled == pytest.approx((0.02 / (2 * 0.24 + 2 * 0.16), 4))
    assert seed_spread([[0.9], [0.5]]) is None
    own, found = contrast(*sides, players), contrast(*sides, players, pooled=(1.0, 16.0))
    means = [side.groupby(players).mean().mean().mean() for side in sides]
    assert found.seed_parts == [(pytest.approx(sum(mean * (1 - mean) for mean in means) / 3), 16)]
    assert found.high - found.low > own.high - own.low
    # Arms that vary more than the others keep their variance, with its degrees of freedom.
    assert contrast(*sides, players, pooled=(1e-9, 16.0)).seed_parts == own.seed_parts


def test_arms_that_vary_more_than_the_others_keep_their_own_degrees_of_freedom() -> None:
    """Otherwise two arms of equal accuracy would often differ significantly."""
    rng, number, significant = np.random.default_rng(0), 300, 0
    for _ in range(number):
        unstable, calm = rng.normal(0.75, 0.06, (2, 3)), rng.normal(0.75, 0.005, (6, 3))
        sides = [pd.concat([arm(12, 60, 1, rate, rng) for rate in own], axis=1, ignore_index=True) for own in unstable]
        found = contrast(*sides, players_of(sides[0]), pooled=seed_spread([*unstable.tolist(), *calm.tolist()]))
        significant += found.significant
    assert significant / number < 0.085
