"""Pauses, windows and changes of rudiment, on made-up levels and probabilities."""

from __future__ import annotations

import numpy as np
import pytest

from sousaphone.deploy.segments import FRAME_SECONDS, PAUSE_SECONDS, changes, phrases, window_starts


def levels(*parts: tuple[float, float]) -> np.ndarray:
    """Levels of parts of (seconds, dB)."""
    return np.concatenate([np.full(round(seconds / FRAME_SECONDS), db, np.float32) for seconds, db in parts])


def test_pauses_divide_and_shorter_gaps_do_not() -> None:
    found = phrases(
        levels((2, -90), (3, -12), (PAUSE_SECONDS + 0.2, -70), (1, -30), (PAUSE_SECONDS - 0.2, -70), (1, -12))
    )
    assert np.allclose(found, [(2.0, 5.0), (6.2, 9.0)], atol=0.25)


def test_recording_without_sound_has_no_phrase() -> None:
    assert phrases(levels((5, -120))) == []
    assert phrases(np.empty(0, np.float32)) == []


def test_gate_is_relative_to_the_loudest_part() -> None:
    quiet = levels((2, -80), (3, -42), (3, -79))
    assert len(phrases(quiet + 20)) == len(phrases(quiet)) == 1
    room = levels((3, -10), (2, -45), (3, -10))
    assert len(phrases(room)) == 1
    assert len(phrases(room, gate_db=30.0)) == 2


@pytest.mark.parametrize("samples", [1, 99, 100, 101, 149, 150, 151, 1000])
def test_windows_cover_a_clip_and_end_at_its_end(samples: int) -> None:
    starts = window_starts(samples, window=100, hop=50)
    assert starts[0] == 0
    assert starts[-1] == max(0, samples - 100)
    assert (np.diff(starts) > 0).all()
    assert (np.diff(starts) <= 50).all()


def evidence(*runs: tuple[int, int], certainty: float = 0.9, classes: int = 5) -> np.ndarray:
    """Log probabilities of runs of (number of windows, class)."""
    labels = np.repeat([label for _, label in runs], [count for count, _ in runs])
    rest = (1 - certainty) / (classes - 1)
    return np.log(np.where(np.arange(classes) == labels[:, None], certainty, rest))


def test_changes_are_found_where_the_class_changes() -> None:
    assert changes(evidence((6, 0), (5, 3), (4, 0)), 0.5).tolist() == [0, 6, 11]


def test_single_doubtful_windows_are_no_change() -> None:
    doubtful = evidence((5, 0), (1, 2), (5, 0), certainty=0.6)
    assert changes(doubtful, 0.5).tolist() == [0]
    assert changes(evidence((1, 2)), 0.5).tolist() == [0]


def test_uninformative_windows_have_no_changes() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.3, (40, 40))
    assert len(changes(noise - np.log(np.exp(noise).sum(1, keepdims=True)), 0.5)) == 1
