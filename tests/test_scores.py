"""Intervals of accuracies and calibration errors do not claim more than the clips show."""

from __future__ import annotations

import numpy as np
import pytest

from sousaphone.scores import accuracy_interval, calibration_error, confidence_bins, wilson_interval


def test_interval_of_unequal_players_is_that_of_fewer_clips() -> None:
    perfect = np.ones(3)
    _, low, _ = accuracy_interval(perfect, np.array([200, 1, 1]))
    assert low < 0.6  # two thirds of the mean rest on two clips
    assert accuracy_interval(perfect, np.array([50, 50, 50]))[1] == pytest.approx(wilson_interval(1.0, 150)[0])


def test_interval_contains_the_true_accuracy_with_unequal_players() -> None:
    rng, clips, true = np.random.default_rng(0), np.array([200, 2, 2, 2, 2, 2, 2, 2]), 0.9
    hits = rng.binomial(clips, true, size=(500, len(clips)))
    ends = [accuracy_interval(row / clips, clips)[1:] for row in hits]
    assert np.mean([low <= true <= high for low, high in ends]) > 0.93


def test_calibration_error_does_not_depend_on_the_order_of_equal_confidences() -> None:
    confidence, correct = np.full(100, 0.5), np.repeat([True, False], 50)
    assert calibration_error(confidence, correct) == 0
    many = np.round(np.random.default_rng(0).uniform(size=300), 1)
    right = many > np.random.default_rng(1).uniform(size=300)
    order = np.random.default_rng(2).permutation(300)
    assert calibration_error(many, right) == pytest.approx(calibration_error(many[order], right[order]))


@pytest.mark.parametrize("clips", [1, 7, 100, 1_003])
def test_different_confidences_are_in_bins_of_equal_numbers(clips: int) -> None:
    sizes = np.bincount(confidence_bins(np.random.default_rng(0).uniform(size=clips)))
    assert len(sizes) == min(10, clips)
    assert sizes.max() - sizes.min() <= 1
