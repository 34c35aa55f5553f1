"""Statistics compared with scipy, statsmodels, and cases computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from analysis.stats.statistics import holm, sign_flip_p, tango_interval
from sousaphone.scores import mean_interval, wilson_interval


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


@pytest.mark.parametrize(("hits", "number"), [(0, 8), (3, 10), (40, 40), (61, 200)])
def test_wilson_interval_equals_statsmodels(hits: int, number: int) -> None:
    expected = proportion_confint(hits, number, method="wilson")
    assert wilson_interval(hits / number, number) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("gained", "lost", "number"), [(0, 1, 44), (12, 2, 50), (3.5, 1.25, 100), (8, 8, 16), (0, 9, 9)]
)
def test_both_ends_of_tangos_interval_have_the_critical_score(gained: float, lost: float, number: int) -> None:
    low, high = tango_interval(gained, lost, number)
    assert -1 <= low < (gained - lost) / number < high <= 1 or (low, lost) == (-1, number)
    for end in (low, high):
        if abs(end) < 1:
            # The likelihood of the fraction that the second arm gains, if the difference is `end`, by a fine grid.
            fractions = np.linspace(max(0, -end), (1 - end) / 2, 200_001)[1:-1]
            likelihood = lost * np.log(fractions) + (number - gained - lost) * np.log(1 - 2 * fractions - end)
            likelihood += gained * np.log(fractions + end)
            variance = number * (2 * fractions[likelihood.argmax()] + end * (1 - end))
            assert abs(gained - lost - number * end) / math.sqrt(variance) == pytest.approx(1.96, abs=0.01)


def test_no_discordant_clips_leave_the_uncertainty_of_the_number_of_clips() -> None:
    assert tango_interval(0, 0, 8)[1] > 0.3
    assert tango_interval(0, 0, 100)[1] == pytest.approx(-tango_interval(0, 0, 100)[0], abs=1e-9)
    # About the rule of three for 97.5 %: 3.84 of n.
    assert tango_interval(0, 0, 1000)[1] == pytest.approx(3.84 / 1003.84, rel=1e-3)
    assert tango_interval(8, 8, 16)[1] > 0.4  # the arms disagree on every clip
