"""Confusion counts, the worst pairs and F1, against what can be counted by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from analysis.stats.confusion import Pair, counts_of, f1_of_each, worst_pairs
from sousaphone.rudiments import SLUGS

FLAM, DRAG, FLAM_TAP = "flam", "drag", "flam_tap"


def said(*rows: tuple[str, str, int], trial: str = "t0") -> pd.DataFrame:
    """(true, predicted, how often) as predictions."""
    pairs = [(true, predicted) for true, predicted, count in rows for _ in range(count)]
    table = pd.DataFrame(pairs, columns=["rudiment", "predicted"])
    return table.assign(trial_id=trial, sample_id=[f"c{i}" for i in range(len(table))])


HEARD = said((FLAM, FLAM, 6), (FLAM, DRAG, 3), (FLAM, FLAM_TAP, 1), (DRAG, FLAM, 3), (DRAG, DRAG, 1))


def test_a_row_is_what_was_played_and_a_column_what_it_was_taken_for() -> None:
    counts = counts_of(HEARD, ["t0"])
    flam, drag = SLUGS.index(FLAM), SLUGS.index(DRAG)
    assert counts.shape == (40, 40)
    assert counts.sum() == 14
    assert counts[flam, drag] == counts[drag, flam] == 3
    assert counts[flam].sum() == 10


def test_seeds_are_summed_and_other_trials_left_out() -> None:
    both = pd.concat([HEARD, said((FLAM, FLAM, 5), trial="t1"), said((DRAG, FLAM, 7), trial="other")])
    for table in (both, both.astype({"rudiment": "category", "predicted": "category", "trial_id": "category"})):
        counts = counts_of(table, ["t0", "t1"])
        assert counts.sum() == 19
        assert counts[SLUGS.index(FLAM), SLUGS.index(FLAM)] == 11


def test_the_worst_pairs_are_those_that_cost_the_most_clips() -> None:
    pairs = worst_pairs(counts_of(HEARD, ["t0"]))
    # Equal counts: the larger share of its rudiment first.
    assert pairs == [Pair(DRAG, FLAM, 3, 4), Pair(FLAM, DRAG, 3, 10), Pair(FLAM, FLAM_TAP, 1, 10)]
    assert [pair.share for pair in pairs] == [0.75, 0.3, 0.1]
    assert worst_pairs(counts_of(HEARD, ["t0"]), most=1) == pairs[:1]


def test_a_faultless_model_and_one_without_clips_have_no_worst_pair() -> None:
    assert worst_pairs(counts_of(said((FLAM, FLAM, 3)), ["t0"])) == []
    assert worst_pairs(counts_of(HEARD, ["nobody"])) == []


def test_f1_is_the_harmonic_mean_of_precision_and_recall_and_unknown_for_what_was_not_heard() -> None:
    scores = f1_of_each(counts_of(HEARD, ["t0"]))
    precision, recall = 6 / 9, 6 / 10
    assert scores[SLUGS.index(FLAM)] == pytest.approx(2 * precision * recall / (precision + recall))
    assert scores[SLUGS.index(DRAG)] == pytest.approx(2 * 1 / (4 + 4))
    assert np.isnan(scores[SLUGS.index(FLAM_TAP)])  # predicted, never played
    assert np.isnan(scores).sum() == 38
