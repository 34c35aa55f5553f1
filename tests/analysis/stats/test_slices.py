"""Accuracy on slices of the test clips, compared with counts by hand."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from analysis.stats.slices import DIMENSIONS, accuracy_of, by_player, parts, slices_of
from sousaphone.scores import mean_interval

# Three players; two seeds that differ on the last clip.
CLIPS = pd.DataFrame(
    {
        "sample_id": ["a", "b", "c", "d", "e", "f"],
        "player": ["p", "p", "q", "q", "r", "r"],
        "skill_tier": ["professional", "professional", "beginner", "beginner", "", "beginner"],
        "tempo_bpm": [60.0, 180.0, 60.0, 121.0, math.nan, 119.0],
    }
)
ROWS = pd.concat(
    [
        CLIPS.assign(trial_id="s0", correct=[True, False, True, True, False, True]),
        CLIPS.assign(trial_id="s1", correct=[True, False, True, True, False, False]),
    ],
    ignore_index=True,
)


def cut(column: str) -> pd.Series:
    found = parts(CLIPS.set_index("sample_id"), column)
    assert found is not None
    return found


def test_accuracy_is_averaged_over_seeds_then_clips_then_players() -> None:
    assert by_player(ROWS).accuracy.to_dict() == {"p": 0.5, "q": 1.0, "r": 0.25}
    whole = accuracy_of(ROWS)
    assert (whole.accuracy, whole.low, whole.high) == mean_interval([0.5, 1.0, 0.25])
    assert (whole.clips, whole.players) == (6, 3)


def test_equal_players_do_not_make_an_accuracy_certain() -> None:
    rows = pd.DataFrame({"player": list("pqrs"), "sample_id": list("abcd"), "correct": True})
    found = accuracy_of(rows)
    assert (found.accuracy, found.high) == (1.0, 1.0)
    assert found.low == pytest.approx(4 / (4 + 3.84), abs=1e-3)


def test_slice_of_two_players_has_no_interval() -> None:
    found = slices_of(ROWS, cut("skill_tier"))
    assert list(found) == ["beginner", "professional"]  # the least skilled first
    assert (found["beginner"].accuracy, found["beginner"].clips, found["beginner"].players) == (0.75, 3, 2)
    assert found["professional"].accuracy == 0.5
    assert math.isnan(found["beginner"].low)
    assert math.isnan(found["beginner"].high)


def test_bins_have_round_edges_and_the_last_includes_its_upper_edge() -> None:
    bins = cut("tempo_bpm")
    assert list(bins.cat.categories) == ["60–80", "80–100", "100–120", "120–140", "140–160", "160–180"]
    assert bins.astype(object).to_dict() == {
        "a": "60–80",
        "b": "160–180",
        "c": "60–80",
        "d": "120–140",
        "e": pytest.approx(math.nan, nan_ok=True),
        "f": "100–120",
    }
    found = slices_of(ROWS, bins)
    assert list(found) == ["60–80", "100–120", "120–140", "160–180"]
    assert sum(part.clips for part in found.values()) == 5  # one clip has no tempo


@pytest.mark.parametrize("low", [0.0, 0.013, 1.0, 59.9, 900.0])
@pytest.mark.parametrize("span", [1e-3, 0.5, 7.0, 120.0, 999.0])
def test_every_number_is_in_one_of_a_few_bins(low: float, span: float) -> None:
    values = pd.Series(np.linspace(low, low + span, 50))
    bins = parts(pd.DataFrame({"duration_sec": values}), "duration_sec")
    assert bins is not None
    assert bins.notna().all()
    assert 2 <= bins.nunique() <= 8
    assert bins.cat.codes.is_monotonic_increasing


def test_missing_or_constant_labels_give_no_slices() -> None:
    unknown = pd.DataFrame({"tempo_bpm": [math.nan] * 3, "skill_tier": ["", "", " "], "preset": ["hall"] * 3})
    for column, _, _ in DIMENSIONS:
        assert parts(unknown, column) is None


@pytest.mark.parametrize("values", [(120.0, 120.0), (2.4, 2.4000000000000004), (180.0, 180.0 + 1e-7), (0.0, 0.0)])
def test_numbers_that_differ_only_by_rounding_give_no_slices(values: tuple[float, float]) -> None:
    assert parts(pd.DataFrame({"duration_sec": values}), "duration_sec") is None


def test_names_with_the_most_clips_are_kept() -> None:
    names = [f"kit{i:02d}" for i in range(30) for _ in range(1 + i)]
    kept = parts(pd.DataFrame({"soundfont": names}), "soundfont")
    assert kept is not None
    assert list(kept.cat.categories) == [f"kit{i}" for i in range(18, 30)]
