"""Metrics equal hand-computed cases and scikit-learn's definition."""

from __future__ import annotations

import math

import pytest
import torch

from sousaphone.training import metrics

# Four clips, three classes: predictions 0, 1, 1, 0.
LOGITS = torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0], [0.0, 1.0, 0.5], [1.0, 0.0, 0.9]])
LABELS = torch.tensor([0, 1, 2, 2])


def test_accuracy_and_top_k_are_fractions_of_hits() -> None:
    assert metrics.accuracy(LOGITS, LABELS) == 0.5
    assert metrics.top_k(LOGITS, LABELS, 2) == 1.0
    assert metrics.top_k(LOGITS, LABELS, 5) == 1.0


def test_macro_f1_averages_over_the_classes_that_occur() -> None:
    # F1 is 2/3 for classes 0 and 1, 0 for class 2; a fourth class that never occurs does not count.
    assert metrics.macro_f1(LOGITS, LABELS) == pytest.approx(4 / 9)
    padded = torch.cat((LOGITS, torch.full((4, 1), -9.0)), 1)
    assert metrics.macro_f1(padded, LABELS) == pytest.approx(4 / 9)


def test_class_that_is_only_predicted_does_not_count() -> None:
    assert metrics.macro_f1(torch.eye(4)[[0, 2, 1]], torch.tensor([0, 0, 1])) == pytest.approx((2 / 3 + 1) / 2)


def test_cross_entropy_of_equal_logits_is_the_log_of_the_classes() -> None:
    assert metrics.cross_entropy(torch.zeros(5, 40), torch.arange(5)) == pytest.approx(math.log(40))
