"""Pauses, windows and changes of rudiment, on made-up levels and probabilities."""

from __future__ import annotations

import numpy as np
import pytest

from sousaphone.deploy.segments import (
    FRAME_SECONDS,
    PAUSE_SECONDS,
    Change,
    Score,
    changes,
    divide,
    phrases,
    window_starts,
)


def levels(*parts: tuple[float, float]) -> np.ndarray:
    """Levels of parts of (seconds, dB)."""
    return np.concatenate([np.full(round(seconds / FRAME_SECONDS), db, np.float32) for seconds, db in parts])


def test_pauses_divide_and_shorter_gaps_do_not() -> None:
    found = phrases(
        levels((2, -90), (3, -12), (PAUSE_SECONDS + 0.2, -70), (1, -30), (PAUSE_SECONDS - 0.2, -70), (1, -12))
    )
    assert np.allclose(found, [(2.0, 5.0), (6.2, 9.0)], atol=0.25)


@pytest.mark.parametrize(("frames", "parts"), [(50, 1), (51, 2)])
def test_pause_is_longer_than_a_second_wherever_it_is(frames: int, parts: int) -> None:
    for before in range(1, 500):
        recording = np.full(before + frames + 1, -70, np.float32)
        recording[[before - 1, -1]] = -12
        recording[:before] = -12
        assert len(phrases(recording)) == parts


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


@pytest.mark.parametrize(("hop", "gap"), [(1.0, 1), (0.5, 3), (0.25, 5)])
def test_changes_are_found_where_the_class_changes(hop: float, gap: int) -> None:
    mixed = (gap - 1, 4)  # windows that contain two rudiments, with the name of a third
    found = changes(evidence((16, 0), mixed, (15, 3), mixed, (14, 0)), hop, gap)
    first = 16 + gap - 1
    second = first + 15 + gap - 1
    assert found == [Change(15, 0, first, 3), Change(first + 14, 3, second, 0)]


def test_single_doubtful_windows_are_no_change() -> None:
    doubtful = evidence((5, 0), (1, 2), (5, 0), certainty=0.6)
    assert changes(doubtful, 0.5, 3) == []
    assert changes(evidence((1, 2)), 0.5, 3) == []


def test_uninformative_windows_have_no_changes() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.3, (40, 40))
    assert changes(noise - np.log(np.exp(noise).sum(1, keepdims=True)), 0.5, 3) == []


WINDOW, HOP = 100, 50


def windows_of(*runs: tuple[int, int], certainty: float = 0.9, classes: int = 5) -> Score:
    """The scores of a recording of runs of (samples, class): a window gives to each class its fraction of the window,
    and no class the rest."""
    labels = np.repeat([label for _, label in runs], [count for count, _ in runs])

    def score(starts: np.ndarray) -> np.ndarray:
        own = np.stack([np.bincount(labels[start : start + WINDOW], minlength=classes) for start in starts]) / WINDOW
        purity = certainty * own.max(1, keepdims=True) ** 4
        named = np.arange(classes) == own.argmax(1)[:, None]
        return np.log(np.where(named, purity, (1 - purity) / (classes - 1)))

    return score


@pytest.mark.parametrize("lengths", [(300, 330), (407, 211, 389), (1_000, 203, 1_003, 777), (2_000,), (90,)])
def test_phrases_are_divided_within_half_a_hop(lengths: tuple[int, ...]) -> None:
    score = windows_of(*((length, number % 3) for number, length in enumerate(lengths)))
    bounds = divide(0, sum(lengths), WINDOW, HOP, score)
    assert len(bounds) == len(lengths) + 1
    assert np.abs(np.array(bounds) - [0, *np.cumsum(lengths)]).max() <= HOP / 2


def test_bounds_are_those_of_the_phrase() -> None:
    lengths = [(400, 3), (300, 0), (300, 1), (400, 2)]
    first, middle, last = divide(400, 1_000, WINDOW, HOP, windows_of(*lengths))
    assert (first, last) == (400, 1_000)
    assert abs(middle - 700) <= HOP / 2


def test_doubtful_part_does_not_divide_a_rudiment() -> None:
    """A part in which the model is hardly surer of another rudiment, as in a fill or a mistake."""
    sure, doubtful = windows_of((1_500, 0)), windows_of((1_500, 1), certainty=0.4)

    def score(starts: np.ndarray) -> np.ndarray:
        return np.where(((starts > 600) & (starts < 750))[:, None], doubtful(starts), sure(starts))

    assert divide(0, 1_500, WINDOW, HOP, score) == [0, 1_500]


@pytest.mark.parametrize("hop", [20, 33, 50, 99, 100])
def test_every_segment_has_at_least_a_window(hop: int) -> None:
    """Even if each window has another class, or a random one."""
    rng = np.random.default_rng(0)
    window, table = 100, 12 * rng.standard_normal((2_000, 5))

    def noise(starts: np.ndarray) -> np.ndarray:
        return table[starts] - np.log(np.exp(table[starts]).sum(1, keepdims=True))

    def alternating(starts: np.ndarray) -> np.ndarray:
        return np.log(np.where(np.arange(5) == (starts // window % 5)[:, None], 0.96, 0.01))

    for score in (noise, alternating):
        for end in (99, 100, 199, 200, 201, 1_000, 1_777):
            bounds = divide(0, end, window, hop, score)
            assert (bounds[0], bounds[-1]) == (0, end)
            assert len(bounds) == 2 or np.diff(bounds).min() >= window
