"""Onsets are assigned to the strokes of a sticking, or not at all."""

from __future__ import annotations

import numpy as np
import pytest

from sousaphone.deploy.page.strokes import FEWEST, align, levels, main_strokes, measurable, without_graces
from sousaphone.rudiments import RUDIMENTS, Rudiment
from tests.deploy.page.performances import STEP, exchanged, play

MEASURABLE = [rudiment for rudiment in RUDIMENTS.values() if measurable(rudiment)]
PARADIDDLE, SINGLES = RUDIMENTS["single_paradiddle"], RUDIMENTS["single_stroke_roll"]


def test_rudiments_with_drags_and_buzzes_are_not_measurable() -> None:
    assert len(MEASURABLE) == 28
    for slug in ("drag", "multiple_bounce_roll", "flam_drag", "lesson_25"):
        times, level, _ = play(RUDIMENTS[slug])
        assert align(times, level, RUDIMENTS[slug], begins=True) is None


@pytest.mark.parametrize("even", [True, False])
@pytest.mark.parametrize("rudiment", MEASURABLE, ids=lambda each: each.slug)
def test_hands_are_right_wherever_a_performance_begins(rudiment: Rudiment, even: bool) -> None:
    for first in range(len(main_strokes(rudiment))):
        times, level, hands = play(rudiment, first=first, jitter_ms=5, even=even, seed=first)
        found = align(times, level, rudiment, begins=False)
        assert found is not None
        assert found.basis in ("loudness", "rhythm")
        assert found.hands in (hands, exchanged(hands))
        assert len(found.times) == len(times)
        assert found.outside == 0


def test_beginning_is_assumed_only_after_silence() -> None:
    """Without accents and differences between the hands, nothing shows where the sticking begins."""
    times, level, hands = play(PARADIDDLE, accent_db=0, hand_db=0)
    assumed, unknown = (align(times, level, PARADIDDLE, begins) for begins in (True, False))
    assert assumed is not None
    assert unknown is not None
    assert (assumed.basis, assumed.hands) == ("start", hands)
    assert (unknown.basis, unknown.hands) == (None, "")


def test_hands_that_alternate_need_no_beginning() -> None:
    times, level, hands = play(SINGLES, first=3, hand_db=0)
    found = align(times, level, SINGLES, begins=False)
    assert found is not None
    assert found.hands in (hands, exchanged(hands))


def test_stretch_ends_at_a_missing_stroke() -> None:
    times, level, hands = play(PARADIDDLE, strokes=40, jitter_ms=4)
    kept = np.arange(40) != 10
    found = align(times[kept], level[kept], PARADIDDLE, begins=True)
    assert found is not None
    assert found.times.tolist() == times[11:].tolist()
    assert found.hands in (hands[11:], exchanged(hands[11:]))
    assert found.outside == 10


def test_stretch_ends_at_an_additional_stroke() -> None:
    times, level, _ = play(PARADIDDLE, strokes=40, jitter_ms=4)
    times, level = np.insert(times, 30, times[29] + STEP / 2), np.insert(level, 30, -20)
    found = align(times, level, PARADIDDLE, begins=True)
    assert found is not None
    assert found.times.tolist() == times[:30].tolist()


@pytest.mark.parametrize("rudiment", MEASURABLE, ids=lambda each: each.slug)
def test_nothing_is_assigned_with_many_missing_and_additional_strokes(rudiment: Rudiment) -> None:
    for seed in range(5):
        rng = np.random.default_rng(seed)
        times, level, _ = play(rudiment, strokes=40, seed=seed)
        kept = np.arange(40) % 7 != rng.integers(7)
        times, level = times[kept], level[kept]
        added = rng.uniform(times[0], times[-1], 6)
        times, level = np.append(times, added), np.append(level, np.full(6, -22.0))
        order = np.argsort(times)
        assert align(times[order], level[order], rudiment, begins=True) is None


def test_irregular_strokes_are_not_assigned() -> None:
    rng = np.random.default_rng(0)
    times = np.cumsum(rng.exponential(STEP, 60))
    assert align(times, np.full(60, -20.0), SINGLES, begins=True) is None


def test_few_strokes_are_not_assigned() -> None:
    times, level, _ = play(SINGLES, strokes=FEWEST)
    assert align(times, level, SINGLES, begins=True) is not None
    assert align(times[1:], level[1:], SINGLES, begins=True) is None
    assert align(np.zeros(0), np.zeros(0), SINGLES, begins=True) is None


def test_grace_notes_are_left_out_of_flams_only() -> None:
    onsets = np.array([0.16, 0.2, 0.6, 0.96, 1.0])
    assert without_graces(onsets, RUDIMENTS["flam"]).tolist() == [False, True, True, False, True]
    assert without_graces(onsets, SINGLES).all()


def test_level_is_the_peak_after_an_onset() -> None:
    wave = np.zeros(8_000, np.float32)
    wave[1_010], wave[4_010], wave[6_000] = 0.5, -0.1, 1.0
    assert levels(wave, 8_000, np.array([1_000, 4_000]) / 8_000) == pytest.approx([-6.02, -20], abs=0.01)
