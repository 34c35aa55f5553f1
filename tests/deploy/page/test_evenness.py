"""Planted deviations of strokes are measured."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from sousaphone.deploy.page.evenness import evenness
from sousaphone.deploy.page.strokes import Alignment, align
from sousaphone.rudiments import RUDIMENTS
from tests.deploy.page.performances import STEP, play


def aligned(slug: str, **settings: float) -> Alignment:
    times, level, _ = play(RUDIMENTS[slug], **settings)
    found = align(times, level, RUDIMENTS[slug], begins=True)
    assert found is not None
    return found


@pytest.mark.parametrize("slug", ["single_stroke_roll", "single_paradiddle", "flam_tap", "nine_stroke_roll"])
@pytest.mark.parametrize(("jitter", "late"), [(0.0, 0.0), (2.0, 8.0), (6.0, -5.0), (10.0, 0.0)])
def test_jitter_and_a_late_left_hand_are_measured(slug: str, jitter: float, late: float) -> None:
    found = [
        evenness(aligned(slug, strokes=80, jitter_ms=jitter, left_late_ms=late, seed=seed, drift=0.05))
        for seed in range(20)
    ]
    hands = [each.hands for each in found if each.hands is not None]
    assert len(hands) == 20
    assert np.mean([each.late for each in hands]) == pytest.approx(late, abs=0.2 + 0.1 * jitter)
    for spread in ([each.right for each in hands], [each.left for each in hands]):
        assert np.mean(spread) == pytest.approx(jitter, abs=0.2 + 0.1 * jitter)
    covered = [abs(each.late - late) <= each.uncertainty + 0.2 for each in hands]
    assert np.mean(covered) >= 0.8
    assert np.mean([each.interval for each in found]) == pytest.approx(1050 * STEP, rel=0.01)


@pytest.mark.parametrize("jitter", [2.0, 8.0])
def test_deviation_of_intervals_is_that_of_two_strokes(jitter: float) -> None:
    found = [evenness(aligned("single_stroke_roll", jitter_ms=jitter, seed=seed)).deviation for seed in range(20)]
    assert np.mean(found) == pytest.approx(np.sqrt(2) * jitter, rel=0.1)


def test_late_hand_makes_intervals_uneven() -> None:
    assert evenness(aligned("single_stroke_roll", left_late_ms=10)).deviation == pytest.approx(10, rel=0.1)


def test_slow_change_of_tempo_is_not_a_deviation() -> None:
    assert evenness(aligned("single_stroke_roll", drift=0.2)).deviation < 0.5


def test_one_hand_may_vary_more() -> None:
    played = aligned("single_stroke_roll", strokes=96)
    rng = np.random.default_rng(0)
    left = np.array([hand == "L" for hand in played.hands])
    times = played.times + np.where(left, 0.010, 0.003) * rng.standard_normal(96)
    hands = evenness(dataclasses.replace(played, times=times)).hands
    assert hands is not None
    assert hands.left == pytest.approx(10, rel=0.3)
    assert hands.right == pytest.approx(3, rel=0.3)


def test_hands_are_not_compared_if_unknown() -> None:
    played = aligned("single_stroke_roll")
    assert evenness(dataclasses.replace(played, basis=None, hands="")).hands is None


@pytest.mark.parametrize("strokes", range(8, 60))
def test_every_number_of_strokes_is_measured(strokes: int) -> None:
    found = evenness(aligned("single_stroke_roll", strokes=strokes, jitter_ms=3))
    assert 0 < found.deviation < 15
