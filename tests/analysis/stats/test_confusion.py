"""Confusion counts, the most frequent confusions and F1, compared with counts by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from analysis.stats.confusion import Pair, counts_of, f1_of_each, worst_pairs
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
