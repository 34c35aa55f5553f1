"""Confusion counts, the most frequent confusions and F1, compared with counts by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest

from analysis.stats.confusion import Pair, counts_of, f1_by_rudiment, f1_of_each, macro_f1, worst_pairs
from sousaphone.rudiments import SLUGS

FLAM, DRAG, FLAM_TAP = "flam", "drag", "flam_tap"


def predicted(*rows: tuple[str, str, int], trial: str = "t0") -> pd.DataFrame:
    """Return predictions from (true, predicted, count)."""
    pairs = [(true, predicted) for true, predicted, count in rows for _ in range(count)]
    table = pd.DataFrame(pairs, columns=["rudiment", "predicted"])
    return table.assign(trial_id=trial, sample_id=[f"c{i}" for i in range(len(table))])


PREDICTIONS = predicted((FLAM, FLAM, 6), (FLAM, DRAG, 3), (FLAM, FLAM_TAP, 1), (DRAG, FLAM, 3), (DRAG, DRAG, 1))


def test_rows_are_true_and_columns_predicted_classes() -> None:
    counts = counts_of(PREDICTIONS, ["t0"])
    flam, drag = SLUGS.index(FLAM), SLUGS.index(DRAG)
    assert counts.shape == (40, 40)
    assert counts.sum() == 14
    assert counts[flam, drag] == counts[drag, flam] == 3
    assert counts[flam].sum() == 10


def test_seeds_are_summed_and_other_trials_are_left_out() -> None:
    both = pd.concat([PREDICTIONS, predicted((FLAM, FLAM, 5), trial="t1"), predicted((DRAG, FLAM, 7), trial="other")])
    for table in (both, both.astype({"rudiment": "category", "predicted": "category", "trial_id": "category"})):
        counts = counts_of(table, ["t0", "t1"])
        assert counts.sum() == 19
        assert counts[SLUGS.index(FLAM), SLUGS.index(FLAM)] == 11


def test_worst_pairs_are_sorted_by_clips_then_by_fraction() -> None:
    pairs = worst_pairs(counts_of(PREDICTIONS, ["t0"]))
    assert pairs == [Pair(DRAG, FLAM, 3, 4), Pair(FLAM, DRAG, 3, 10), Pair(FLAM, FLAM_TAP, 1, 10)]
    assert [pair.fraction for pair in pairs] == [0.75, 0.3, 0.1]
    assert worst_pairs(counts_of(PREDICTIONS, ["t0"]), most=1) == pairs[:1]


def test_no_worst_pairs_without_errors_or_clips() -> None:
    assert worst_pairs(counts_of(predicted((FLAM, FLAM, 3)), ["t0"])) == []
    assert worst_pairs(counts_of(PREDICTIONS, ["unknown"])) == []


def test_f1_is_the_harmonic_mean_of_precision_and_recall_and_nan_without_clips() -> None:
    scores = f1_of_each(counts_of(PREDICTIONS, ["t0"]))
    precision, recall = 6 / 9, 6 / 10
    assert scores[SLUGS.index(FLAM)] == pytest.approx(2 * precision * recall / (precision + recall))
    assert scores[SLUGS.index(DRAG)] == pytest.approx(2 * 1 / (4 + 4))
    assert np.isnan(scores[SLUGS.index(FLAM_TAP)])  # predicted, but without clips
    assert np.isnan(scores).sum() == 38


def test_macro_f1_is_over_the_rudiments_of_the_clips() -> None:
    # Flam taps are predicted, but no clip is one.
    scores = [2 * 6 / (10 + 9), 2 * 1 / (4 + 4)]
    assert macro_f1(PREDICTIONS, ["t0"]) == pytest.approx(np.mean(scores))


def by_players(counts: Sequence[tuple[int, int]]) -> pd.DataFrame:
    """Return rows of flams from (correct, wrong) clips of each player; wrong ones are predicted as drags."""
    tables = [
        predicted((FLAM, FLAM, right), (FLAM, DRAG, wrong)).assign(player=f"p{number}")
        for number, (right, wrong) in enumerate(counts)
    ]
    return pd.concat(tables, ignore_index=True)


def test_interval_of_f1_is_that_of_players_if_they_differ() -> None:
    (found,) = f1_by_rudiment(by_players([(20, 0), (20, 0), (20, 0), (0, 20), (0, 20), (0, 20)]))
    assert (found.slug, found.clips, found.players) == (FLAM, 120, 6)
    assert found.f1 == pytest.approx(2 * 60 / (120 + 60))
    # One to five good players of six have about 97 % of the binomial distribution.
    assert (found.low, found.high) == pytest.approx((2 * 20 / (120 + 20), 2 * 100 / (120 + 100)))
    assert f1_by_rudiment(by_players([(20, 0)] * 3 + [(0, 20)] * 3)) == [found]  # the draws are fixed


def test_few_correct_clips_are_no_certainty() -> None:
    (few,) = f1_by_rudiment(by_players([(1, 0)] * 8))
    (many,) = f1_by_rudiment(by_players([(100, 0)] * 8))
    assert few.f1 == many.f1 == few.high == 1
    assert few.low < 0.85 < 0.99 < many.low
    (none,) = f1_by_rudiment(by_players([(0, 1)] * 8))
    assert none.f1 == none.low == 0 < 0.3 < none.high


def test_interval_of_f1_needs_three_players() -> None:
    (found,) = f1_by_rudiment(by_players([(5, 5), (5, 5)]))
    assert math.isnan(found.low)
    assert math.isnan(found.high)


def test_f1_is_averaged_over_seeds() -> None:
    one, other = by_players([(6, 4)] * 3), by_players([(9, 1)] * 3).assign(trial_id="t1")
    (first,), (second,), (both,) = map(f1_by_rudiment, (one, other, pd.concat([one, other])))
    assert both.f1 == pytest.approx((first.f1 + second.f1) / 2)
    assert both.clips == first.clips == 30
