"""The strokes of a segment are detected in its sound."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sousaphone.deploy.page.detection import MOST_SECONDS, detect, part
from sousaphone.deploy.page.evenness import evenness
from sousaphone.rudiments import RUDIMENTS
from tests.deploy.page.performances import RATE, play, prediction, sound


def test_strokes_and_hands_are_found(tmp_path: Path) -> None:
    times, levels, hands = play(RUDIMENTS["single_paradiddle"], jitter_ms=3, left_late_ms=9)
    wave = sound(times, levels)
    found = detect(*prediction(tmp_path / "take.wav", wave, 0.0, len(wave) / RATE), 0)
    assert len(found.onsets) == found.main == len(times)
    assert np.abs(found.onsets - times).max() < 0.006
    assert found.alignment is not None
    assert found.alignment.hands == hands
    compared = evenness(found.alignment).hands
    assert compared is not None
    assert compared.late == pytest.approx(9, abs=compared.uncertainty + 1)


def test_segment_is_decoded_at_its_place(tmp_path: Path) -> None:
    times, levels, _ = play(RUDIMENTS["single_paradiddle"], strokes=120)
    wave = sound(times, levels)
    long = prediction(tmp_path / "long.wav", wave, 0.0, 7.5, 12.0)
    found, rate = part(tmp_path / "long.wav", 7.5, 12.0)
    assert rate == RATE
    assert np.array_equal(found, wave[round(7.5 * RATE) : 12 * RATE])
    second = detect(*long, 1)
    inside = times[(times > 7.5) & (times < 12)]
    assert abs(len(second.onsets) - len(inside)) <= 1
    assert len(second.wave) == round(4.5 * RATE)


def test_beginning_of_a_segment_without_a_pause_is_not_that_of_the_sticking(tmp_path: Path) -> None:
    times, _, _ = play(RUDIMENTS["single_paradiddle"], strokes=120)
    joined = prediction(tmp_path / "joined.wav", sound(times, np.full(120, -20.0)), 0.0, 7.0, 14.0)
    first, second = detect(*joined, 0).alignment, detect(*joined, 1).alignment
    assert first is not None
    assert second is not None
    assert (first.basis, second.basis) == ("start", None)


def test_undecided_answers_are_not_aligned(tmp_path: Path) -> None:
    times, levels, _ = play(RUDIMENTS["single_paradiddle"])
    found = detect(*prediction(tmp_path / "take.wav", sound(times, levels), 0.0, 6.0, undecided=True), 0)
    assert found.alignment is None
    assert found.main > 40


def test_long_segments_are_measured_in_part(tmp_path: Path) -> None:
    times, levels, _ = play(RUDIMENTS["single_paradiddle"], strokes=600)
    found = detect(*prediction(tmp_path / "take.wav", sound(times, levels), 0.0, 72.0), 0)
    assert len(found.wave) == MOST_SECONDS * RATE
    assert found.onsets.max() < MOST_SECONDS
