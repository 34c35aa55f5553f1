"""Simulated sweeps: their true accuracies are as stated, and the verdict keeps its error rates on them.

`python -m tests.benchmarks.verdict` measures many more.
"""

from __future__ import annotations

import numpy as np
import pytest

from analysis.stats.arms import arms
from analysis.stats.verdict import Outcome
from tests.analysis.simulated_sweeps import Cell, simulate
from tests.benchmarks.verdict import measure


def test_true_accuracies_are_those_of_the_cell() -> None:
    cell = Cell(players=400, clips=4_000, accuracy=0.8, step=0.1, seeds=3, seed_deviation=0.1)
    sweep = simulate(cell, np.random.default_rng(0))
    for arm in arms(sweep.trials):
        names = [trial.trial_id for trial in arm.trials]
        own = sweep.predictions[sweep.predictions.trial_id.isin(names)]
        assert own.groupby("player").correct.mean().mean() == pytest.approx(
            np.mean([sweep.truth[name] for name in names]), abs=0.03
        )
    first, last = arms(sweep.trials)[0], arms(sweep.trials)[-1]
    assert sweep.true_difference(first, last, of_backbones=True) == 0.3
    assert sweep.true_difference(first, last, of_backbones=False) == pytest.approx(0.3, abs=0.06)


def test_models_without_deviation_between_seeds_are_as_good_as_their_arm() -> None:
    sweep = simulate(Cell(8, 100, 0.5, 0.02, seeds=1, seed_deviation=0.0), np.random.default_rng(1))
    assert sweep.truth == pytest.approx(sweep.of_arm)


def test_sweeps_are_reproducible() -> None:
    one, same = (simulate(Cell(8, 50, 0.5), np.random.default_rng(2)) for _ in range(2))
    assert one.predictions.equals(same.predictions)


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [(1, 0.0), (3, 0.2)])
def test_equal_backbones_are_seldom_called_better(seeds: tuple[int, float]) -> None:
    found = measure(Cell(8, 400, 0.5, 0.0, *seeds), sweeps=150)
    assert found.better.bounds(0.001)[0] < 0.05
    assert found.coverage.bounds(0.001)[1] > 0.95


@pytest.mark.slow
def test_two_points_are_seldom_called_equivalent() -> None:
    found = measure(Cell(8, 1000, 0.98, 0.02, 1, 0.0), sweeps=150)
    assert found.equivalent.total == 150
    assert found.equivalent.bounds(0.001)[0] < 0.05


@pytest.mark.slow
def test_ten_points_are_found_about_as_often_as_stated() -> None:
    found = measure(Cell(12, 1000, 0.5, 0.1), sweeps=100)
    assert found.stated == pytest.approx(found.realised.value, abs=0.15)
    assert found.outcomes[Outcome.BETTER] >= 60
