"""Plans that grow: a searcher's proposals are in run.json before their trials start, and results are learned again."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
from optuna.samplers import TPESampler
from ray import tune
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from sousaphone.config import Sweep, TrainConfig
from sousaphone.runs.directory import RunDirectory
from sousaphone.runs.statuses import Cause, Status
from sousaphone.runs.trial_record import TrialRecord
from sousaphone.sweep.proposals import SearcherProposals
from tests.analysis.run_builders import write_run

START = 6  # random points of TPE
BEST = 1e-4  # learning rate


def sweep(samples: int, **space: Any) -> Sweep:
    space = {"model": "ast", "augment": False, **(space or {"learning_rate": tune.loguniform(1e-5, 1e-1)})}
    return Sweep(space, num_samples=samples)


def begun(path: Path, sweep: Sweep) -> RunDirectory:
    first = dataclasses.replace(sweep, searcher=object()).trials()
    run = write_run(path, [dataclasses.asdict(trial) for trial in first])
    run.write_plan({**run.read_plan(), "planned": sweep.num_samples})
    return run


def optuna() -> SearcherProposals:
    return SearcherProposals(OptunaSearch(sampler=TPESampler(seed=0, n_startup_trials=START)))


def end(run: RunDirectory, trial: TrainConfig, score: float, status: Status = Status.COMPLETED) -> None:
    directory = run.trial(trial.trial_id)
    directory.mkdir(parents=True, exist_ok=True)
    row = {"epoch": 1, "best_epoch": 1, "steps": 5, "val_macro_f1": score}
    TrialRecord(trial.trial_id, dataclasses.asdict(trial), status, history=[row]).write(directory)


def left(run: RunDirectory) -> list[TrainConfig]:
    trials = [TrainConfig(**config) for config in run.read_plan()["trials"]]
    records = [run.record(trial.trial_id) for trial in trials]
    return [t for t, record in zip(trials, records, strict=True) if record is None or not record.status.has_ended]


def distance(trial: TrainConfig) -> float:
    """Return the decades between a trial's rate and the best one."""
    return abs(math.log10(trial.learning_rate / BEST))


def search(run: RunDirectory, sweep: Sweep, stops: int = 0) -> list[TrainConfig]:
    """Run trials with a known surface, whose best rate is BEST, one at a time; after every `stops` trials, with a new
    searcher, as after a resume."""
    ran: list[TrainConfig] = []
    proposals = optuna()
    proposals.begin(run, sweep, left(run))
    while isinstance(config := proposals.suggest(name := f"ray-{len(ran)}"), dict):
        trial = TrainConfig(**config)
        assert trial.trial_id in run.read_plan()["trial_ids"]
        end(run, trial, 1 - distance(trial))
        proposals.on_trial_complete(name, {})
        ran.append(trial)
        if stops and len(ran) % stops == 0:
            proposals = optuna()
            proposals.begin(run, sweep, left(run))
    assert config == Searcher.FINISHED
    return ran


def test_searcher_learns_and_every_planned_trial_runs_once(tmp_path: Path) -> None:
    space = sweep(40)
    run = begun(tmp_path / "run", space)
    ran = search(run, space)
    assert [trial.trial_id for trial in ran] == run.read_plan()["trial_ids"]
    assert len({trial.trial_id for trial in ran}) == 40
    near = [distance(trial) < 0.5 for trial in ran]
    assert sum(near[-20:]) > sum(near[:START]) + 5


def test_resumed_searcher_knows_the_results_of_earlier_starts(tmp_path: Path) -> None:
    space = sweep(40)
    run = begun(tmp_path / "run", space)
    ran = search(run, space, stops=10)
    assert [trial.trial_id for trial in ran] == run.read_plan()["trial_ids"]
    near = [distance(trial) < 0.5 for trial in ran]
    # A searcher without these results would draw START of 10 points at random after each start, a quarter of them near.
    assert sum(near[-20:]) > 9


def test_space_without_further_points_ends_the_search(tmp_path: Path) -> None:
    space = sweep(50, lora_r=tune.choice([4, 8]))
    run = begun(tmp_path / "run", space)
    assert sorted(trial.lora_r for trial in search(run, space)) == [4, 8]
    assert run.read_plan()["planned"] == 2


def test_trial_that_a_kill_left_unfinished_is_run_before_others_are_proposed(tmp_path: Path) -> None:
    space = sweep(3)
    run = begun(tmp_path / "run", space)
    first = optuna()
    first.begin(run, space, left(run))
    waiting = [first.suggest("a"), first.suggest("b")]
    again = optuna()
    again.begin(run, space, left(run))
    assert [again.suggest("c"), again.suggest("d")] == waiting
    assert again.suggest("e") not in waiting
    assert again.suggest("f") == Searcher.FINISHED


def test_trial_that_the_scheduler_stopped_is_pruned_and_one_that_crashed_is_not(tmp_path: Path) -> None:
    space = sweep(2)
    run = begun(tmp_path / "run", space)
    proposals = optuna()
    proposals.begin(run, space, left(run))
    with run.held():
        for name, error in (("a", False), ("b", True)):
            config = proposals.suggest(name)
            assert isinstance(config, dict)
            trial = TrainConfig(**config)
            end(run, trial, 0.1, Status.RUNNING)
            proposals.on_trial_complete(name, {}, error=error)
            record = run.record(trial.trial_id)
            assert record is not None
            assert (record.cause is Cause.SCHEDULER) is not error


def test_searcher_that_accepts_no_earlier_results_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Forgetful(Searcher):
        def suggest(self, trial_id: str) -> dict[str, Any]:
            return {"learning_rate": 0.5}

        def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None: ...

    space = sweep(2)
    run = begun(tmp_path / "run", space)
    end(run, left(run)[0], 0.1)
    proposals = SearcherProposals(Forgetful())
    proposals.begin(run, space, [])
    assert "Forgetful" in capsys.readouterr().out
    config = proposals.suggest("a")
    assert isinstance(config, dict)
    assert config["learning_rate"] == 0.5
