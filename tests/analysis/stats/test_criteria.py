"""The success criteria: met, not met, or not known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from analysis.load.trials import Trial
from analysis.stats.criteria import criteria
from sousaphone.runs.baseline_results import SCORES, Baseline
from sousaphone.runs.statuses import Status


def learned(val_acc: float, baseline: float | None, live: bool, **config: Any) -> bool | None:
    """Return whether a run of one finished trial meets the accuracy criterion."""
    row = {"epoch": 1, "best_epoch": 1, "val_acc": val_acc}
    trial = Trial("a", {"model": "ast", **config}, Status.COMPLETED, history=[row])
    measured = [] if baseline is None else [Baseline("knn", "neighbours", dict.fromkeys(SCORES, baseline), 1.0)]
    return criteria([trial], measured, {"a"}, live)[2].met


@pytest.mark.parametrize(
    ("val_acc", "baseline", "met"),
    [(0.6, 0.3, True), (0.6, 0.55, False), (0.3, 0.1, False), (0.6, None, None), (0.3, None, False)],
)
def test_accuracy_must_exceed_forty_percent_and_the_best_baseline_by_ten_points(
    val_acc: float, baseline: float | None, met: bool | None
) -> None:
    assert learned(val_acc, baseline, live=False) is met
    # A running trial may still improve.
    assert learned(val_acc, baseline, live=True) is (met or None)


def test_count_of_one_unfinished_trial_is_singular() -> None:
    ended, *_ = criteria(
        [Trial("a", {"model": "ast"}), Trial("b", {"model": "ast"}, Status.COMPLETED)], [], set(), True
    )
    assert ended.evidence.endswith("1 has not ended")


def test_accuracy_on_part_of_the_clips_is_not_compared_with_baselines() -> None:
    assert learned(0.6, 0.3, live=False, limit_eval_batches=2, eval_batch=16) is None


@pytest.mark.parametrize(
    ("other", "live", "met"),
    [
        ("early_stopped", False, True),
        ("failed", True, False),
        ("pending", True, None),
        ("pending", False, False),
        ("running", True, None),
    ],
)
def test_waiting_trial_fails_the_criterion_only_after_the_run(other: str, live: bool, met: bool | None) -> None:
    trials = [Trial("a", {"model": "ast"}, Status.COMPLETED), Trial("b", {"model": "ast"}, Status(other))]
    assert criteria(trials, None, set(), live)[0].met is met


def falls(*curves: Sequence[float]) -> bool | None:
    """Return whether trials with these values of train_ce meet the criterion."""
    rows = [[{"epoch": n, "best_epoch": n, "train_ce": value} for n, value in enumerate(own, 1)] for own in curves]
    trials = [Trial(f"t{n}", {"model": "ast"}, Status.COMPLETED, history=own) for n, own in enumerate(rows)]
    return criteria(trials, [], set(), False)[1].met


@pytest.mark.parametrize(
    ("curve", "met"),
    [
        ((3.0, 2.0, 1.0), None),  # three epochs in any order are no evidence
        ((4.0, 3.0, 2.0, 1.0), True),
        ((3.0, 3.2, 2.9, 3.1, 2.95), False),  # its least-squares slope is negative
        ((3.69, 3.70, 3.68, 3.69, 3.71, 3.66), False),
        ((3.5, 3.0, 3.1, 2.5, 2.4, 2.45, 2.0, 1.9), True),
        ((1.0, 2.0, 3.0, 4.0), False),
        ((3.0, 3.0, 3.0, 3.0, 3.0), False),
    ],
)
def test_train_ce_falls_only_if_its_trend_is_significant(curve: Sequence[float], met: bool | None) -> None:
    assert falls(curve) is met
    assert falls(curve, (4.0, 3.0, 2.0, 1.0)) is (met is not False)


def test_noise_seldom_counts_as_falling() -> None:
    rng = np.random.default_rng(0)
    assert sum(falls(rng.normal(3, 0.1, 8).tolist()) is True for _ in range(300)) <= 0.08 * 300


def test_chance_is_that_of_the_data() -> None:
    assert "10.0%" in criteria([], [], set(), False, chance=0.1)[2].name
    assert "chance" not in criteria([], [], set(), False)[2].name
