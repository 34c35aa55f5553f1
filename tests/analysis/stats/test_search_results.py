"""What a search spent and found, the interval of a validation score, and the gain of tuning."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.load.trials import Trial
from analysis.report import read_run
from analysis.stats.confusion import macro_f1
from analysis.stats.gain import gain, score_interval
from analysis.stats.search_results import SearchResults
from sousaphone.rudiments import SLUGS
from sousaphone.runs.statuses import Status
from sousaphone.search.design import Search
from sousaphone.search.dimensions import Dimension
from sousaphone.search.rungs import Ladder
from tests.analysis.run_builders import arm
from tests.analysis.search_runs import search_run


def results(path: Path, **values: object) -> SearchResults:
    found = read_run(search_run(path, **values).path).search  # type: ignore[arg-type]
    assert found is not None
    return found


def by_hand(scores: list[list[float]], rungs: tuple[int, ...], places: tuple[Status, ...]) -> SearchResults:
    """A search of one backbone, whose configurations have these scores after each epoch of 10 steps."""
    space = {"ast": {"learning_rate": Dimension("loguniform", 1e-4, 1e-2)}}
    names = [f"trial{number}" for number in range(len(scores))]
    search = Search(space, len(scores), rungs=rungs, proposals=dict.fromkeys(names, "ast"), finalists=1)
    trials = []
    for number, (name, own, status) in enumerate(zip(names, scores, places, strict=True)):
        rows = [{"epoch": n, "steps": 10 * n, "val_macro_f1": s, "best_epoch": n} for n, s in enumerate(own, start=1)]
        trials.append(Trial(name, arm(learning_rate=1e-3 + 1e-4 * number), status, history=rows))
    return SearchResults.of(search, trials)


def test_course_follows_the_order_in_which_one_trial_at_a_time_trains() -> None:
    # Rungs at 10 and 30 steps; 4 configurations reach the first, 2 the second: the default, and the best of the others.
    scores = [[0.1, 0.2, 0.3], [0.2], [0.5, 0.6, 0.55], [0.4]]
    done, stopped = Status.COMPLETED, Status.PRUNED
    found = by_hand(scores, (10, 30), (done, stopped, done, stopped))
    assert found.search.ladder == Ladder((10, 30), (4, 2))
    # 0 and 1 reach the rung, the default goes on to 30 steps; 2 and 3 reach the rung, 2 goes on.
    assert found.course("ast") == [
        *[(10, 0.1), (20, 0.2)],
        *[(30, 0.2), (40, 0.3)],
        *[(50, 0.5), (60, 0.5), (70, 0.6), (80, 0.6)],
    ]
    assert found.steps("ast") == (80, 0)
    assert found.reached("ast") == [4, 2]
    best, tuned = found.best("ast"), found.tuned("ast")
    assert best is tuned
    assert best is not None
    assert (best.number, best.score) == (2, 0.6)
    assert "rank 3 of 4" in found.outcome(found.configurations["ast"][1])


@pytest.mark.parametrize("killed", [None, 0, 1, 7, 20])
def test_course_has_every_step_of_an_unfinished_search(tmp_path: Path, killed: int | None) -> None:
    found = results(tmp_path, epochs_trained=killed, seeds=())
    for model in found.configurations:
        course = found.course(model)
        assert [steps for steps, _ in course] == sorted({steps for steps, _ in course})
        assert (course[-1][0] if course else 0) == found.steps(model)[0]
        scores = [score for _, score in course]
        assert scores == sorted(scores)


def test_steps_are_equal_for_every_backbone(tmp_path: Path) -> None:
    found = results(tmp_path)
    searched, finals = zip(*(found.steps(model) for model in found.configurations), strict=True)
    assert len(set(searched)) == 1
    assert searched[0] == found.search.ladder.steps
    assert finals == (6 * found.full_length, 6 * found.full_length)  # three finalists with two seeds


def test_configurations_that_diverged_count_as_zero() -> None:
    done, diverged, failed = Status.COMPLETED, Status.DIVERGED, Status.FAILED
    found = by_hand([[0.1, 0.2, 0.3], [], [], [0.5]], (10, 30), (done, diverged, failed, Status.PRUNED))
    assert found.compared("ast")[1] == [0.1, 0.0, 0.5]


def predictions(players: int, clips: int, accuracy: float, spread: float, seed: int) -> pd.DataFrame:
    """Predictions of `clips` clips of each player, whose accuracies differ by `spread` (standard deviation)."""
    rng = np.random.default_rng(seed)
    true, player = np.tile(np.arange(clips) % len(SLUGS), players), np.repeat(np.arange(players), clips)
    skill = np.clip(accuracy + spread * rng.normal(size=players), 0, 1)[player]
    predicted = np.where(rng.random(len(true)) < skill, true, rng.integers(0, len(SLUGS), len(true)))
    columns = {"rudiment": np.array(SLUGS)[true], "predicted": np.array(SLUGS)[predicted]}
    return pd.DataFrame({"trial_id": "a", "player": [f"player{p}" for p in player], **columns})


def scored(rows: pd.DataFrame) -> Trial:
    row = {"epoch": 1, "best_epoch": 1, "val_macro_f1": macro_f1(rows, ["a"])}
    return Trial("a", {}, history=[row], data={"clips": {"validation": len(rows)}})


def test_interval_of_a_score_contains_its_mean_over_repetitions() -> None:
    tables = [predictions(6, 40, 0.7, 0.08, seed) for seed in range(100)]
    trials = [scored(rows) for rows in tables]
    mean = np.mean([trial.best["val_macro_f1"] for trial in trials])
    found = [score_interval(trial, rows) for trial, rows in zip(trials, tables, strict=True)]
    assert np.mean([each.low <= mean <= each.high for each in found]) >= 0.88  # 95 %, three standard errors less
    assert np.mean([each.high - each.low for each in found]) < 0.3
    assert found[0].over == "6 players"


def test_interval_is_over_clips_without_players() -> None:
    rows = predictions(2, 100, 0.7, 0.0, seed=0)
    assert score_interval(scored(rows), rows).over == "200 clips"
    assert score_interval(scored(rows), rows.iloc[:0]) == score_interval(scored(rows), rows)
    limited = dataclasses.replace(scored(rows), config={"limit_eval_batches": 1, "eval_batch": 50})
    assert score_interval(limited, rows).over == "50 clips"


def test_gain_is_measured_on_the_test_clips_with_the_same_seeds(tmp_path: Path) -> None:
    run = read_run(search_run(tmp_path, players=0).path)
    assert run.search is not None
    found = gain(run.search, "beats", run.predictions)
    assert found is not None
    assert found.seeds == 2
    assert 0 < found.interval.low < found.difference < found.interval.high  # they are better by construction
    assert found.interval.over == "8 players"


def test_gain_of_a_single_player_has_an_interval_over_clips(tmp_path: Path) -> None:
    run = read_run(search_run(tmp_path).path)
    assert run.search is not None
    found = gain(run.search, "ast", run.predictions.assign(player="one"))
    assert found is not None
    assert found.interval.over == "240 clips"
    assert found.interval.low < found.difference < found.interval.high


def test_without_test_predictions_no_gain_is_given(tmp_path: Path) -> None:
    assert gain(results(tmp_path), "ast", pd.DataFrame()) is None
