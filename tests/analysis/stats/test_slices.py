"""Accuracy on parts of the test clips: equal to a hand count, with the interval over players."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from analysis.stats.slices import DIMENSIONS, accuracy_of, by_player, parts, slices_of
from analysis.stats.statistics import mean_interval

# Three players; two seeds, who disagree on the last clip.
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


def test_seeds_are_averaged_first_then_a_players_clips_then_players() -> None:
    assert by_player(ROWS).to_dict() == {"p": 0.5, "q": 1.0, "r": 0.25}
    whole = accuracy_of(ROWS)
    assert (whole.accuracy, whole.low, whole.high) == mean_interval([0.5, 1.0, 0.25])
    assert (whole.clips, whole.players) == (6, 3)


def test_a_slice_is_what_a_hand_count_says_and_has_an_interval_from_three_players_on() -> None:
    found = slices_of(ROWS, cut("skill_tier"))
    assert list(found) == ["beginner", "professional"]  # from the least skilled on
    assert (found["beginner"].accuracy, found["beginner"].clips, found["beginner"].players) == (0.75, 3, 2)
    assert found["professional"].accuracy == 0.5
    assert math.isnan(found["beginner"].low)
    assert math.isnan(found["beginner"].high)


def test_numbers_fall_into_round_bins_the_last_with_its_upper_end() -> None:
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
    assert sum(part.clips for part in found.values()) == 5  # the clip without a tempo is in none


@pytest.mark.parametrize("low", [0.0, 0.013, 1.0, 59.9, 900.0])
@pytest.mark.parametrize("span", [1e-3, 0.5, 7.0, 120.0, 999.0])
def test_every_number_falls_into_one_of_a_few_bins(low: float, span: float) -> None:
    values = pd.Series(np.linspace(low, low + span, 50))
    bins = parts(pd.DataFrame({"duration_sec": values}), "duration_sec")
    assert bins is not None
    assert bins.notna().all()
    assert 2 <= bins.nunique() <= 8
    assert bins.cat.codes.is_monotonic_increasing


def test_what_the_data_set_does_not_know_is_no_slice() -> None:
    unknown = pd.DataFrame({"tempo_bpm": [math.nan] * 3, "skill_tier": ["", "", " "], "preset": ["hall"] * 3})
    for column, _, _ in DIMENSIONS:
        assert parts(unknown, column) is None


@pytest.mark.parametrize("values", [(120.0, 120.0), (2.4, 2.4000000000000004), (180.0, 180.0 + 1e-7), (0.0, 0.0)])
def test_numbers_that_differ_by_rounding_alone_are_no_parts(values: tuple[float, float]) -> None:
    assert parts(pd.DataFrame({"duration_sec": values}), "duration_sec") is None


def test_of_many_names_those_with_the_most_clips_are_kept() -> None:
    names = [f"kit{i:02d}" for i in range(30) for _ in range(1 + i)]
    kept = parts(pd.DataFrame({"soundfont": names}), "soundfont")
    assert kept is not None
    assert list(kept.cat.categories) == [f"kit{i}" for i in range(18, 30)]
