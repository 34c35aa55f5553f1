"""Reading the log of two real Ray Tune experiments of one run, with and without the trials' own records."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import ray
from ray import tune
from ray.tune.logger import CSVLoggerCallback, JsonLoggerCallback

from analysis.load.ray_log import by_epoch, read_ray_log
from analysis.report import write_report
from sousaphone.runs.directory import RunDirectory
from sousaphone.runs.seal import pickles, seal
from tests.analysis.run_builders import arm, history, made, record, trial_id, write_run

GOOD, BAD, MUTE = (arm(epochs=2, seed=seed) for seed in range(3))
FIRST, LATER = history(1, 1, test=False), history(2, 7, test=True)


@pytest.fixture(scope="module")
def experiments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """RUN/tune without records: in 001 one trial ends and another raises after its first epoch; in 002 that one repeats
    the epoch with other results and ends, and a third raises before its first epoch ends."""
    tune_directory = tmp_path_factory.mktemp("ray") / "study" / "tune"
    ray.init(num_cpus=1, include_dashboard=False, object_store_memory=100 * 2**20, log_to_driver=False)
    try:
        _experiment(tune_directory / "001", {0: history(2, 0, test=True), 1: FIRST}, raising=1)
        _experiment(tune_directory / "002", {1: LATER, 2: []}, raising=2)
    finally:
        ray.shutdown()
    return tune_directory


def _experiment(path: Path, reports: dict[int, list[dict[str, Any]]], raising: int) -> None:
    """Run a Ray experiment with one trial per seed, which reports its rows; one trial raises after them."""

    def trainable(config: dict[str, Any]) -> None:
        for row in reports[config["seed"]]:
            tune.report({**row, "training_iteration": row["epoch"]})
        if config["seed"] == raising:
            raise RuntimeError("raised by the test")

    tune.Tuner(
        trainable,
        param_space={**GOOD, "seed": tune.grid_search(list(reports))},
        tune_config=tune.TuneConfig(trial_dirname_creator=lambda trial: trial_id(trial.config), reuse_actors=True),
        run_config=tune.RunConfig(
            name=path.name,
            storage_path=str(path.parent),
            verbose=0,
            callbacks=[JsonLoggerCallback(), CSVLoggerCallback()],  # as in a sweep
        ),
    ).fit()
    seal(path, pickles(path))


@pytest.fixture
def run(experiments: Path, tmp_path: Path) -> RunDirectory:
    """A moved run of two trials with the first experiment only."""
    shutil.copytree(experiments / "001", tmp_path / "study" / "tune" / "001")
    return write_run(tmp_path / "study", [GOOD, BAD])


@pytest.fixture
def resumed(experiments: Path, tmp_path: Path) -> RunDirectory:
    """A moved run of three trials with both experiments."""
    shutil.copytree(experiments, tmp_path / "study" / "tune")
    return write_run(tmp_path / "study", [GOOD, BAD, MUTE])


def table(run: RunDirectory) -> pd.DataFrame:
    return pd.read_csv(write_report(run.path) / "comparison_table.csv").set_index("trial_id")


@pytest.mark.slow
def test_history_status_and_error_are_read_without_records(run: RunDirectory) -> None:
    known, remarks = read_ray_log(run.experiments)
    assert remarks == []
    assert known[trial_id(GOOD)].history == by_epoch(known[trial_id(GOOD)].history)
    rows = table(run)
    assert rows.status.to_list() == ["completed", "failed"]
    assert rows.epochs.to_list() == [2, 1]
    assert rows.error[trial_id(BAD)] == "RuntimeError: raised by the test"
    assert rows.test_acc[trial_id(GOOD)] == history(2, 0, test=True)[-1]["test_acc"]
    assert rows.total_params.isna().all()


@pytest.mark.slow
def test_trial_of_several_experiments_has_all_epochs_and_the_last_state(resumed: RunDirectory) -> None:
    rows = table(resumed)
    assert rows.status.to_list() == ["completed", "completed", "failed"]
    assert rows.epochs.to_list() == [2, 2, 0]
    assert rows.val_acc[trial_id(BAD)] == LATER[0]["val_acc"] != FIRST[0]["val_acc"]  # the later report of epoch 1
    assert pd.isna(rows.error[trial_id(BAD)])
    # Epochs that are not in the last experiment are kept.
    shutil.copytree(resumed.tune / "001", resumed.tune / "003")
    known, _ = read_ray_log(resumed.experiments)
    assert [row["epoch"] for row in known[trial_id(BAD)].history] == [1, 2]
    assert (known[trial_id(BAD)].state, known[trial_id(BAD)].error) == ("ERROR", "RuntimeError: raised by the test")


@pytest.mark.slow
def test_unreadable_experiment_does_not_affect_others(resumed: RunDirectory) -> None:
    for state in (resumed.tune / "001").glob("experiment_state-*.json"):
        state.write_text("{")
    (resumed.tune / "003").mkdir()
    rows = table(resumed)
    assert rows.status.to_list() == ["pending", "completed", "failed"]
    _, remarks = read_ray_log(resumed.experiments)
    assert ["001" in remarks[0], "003" in remarks[1]] == [True, True]
    assert all(remark in (resumed.report / "report.html").read_text().replace("&#x27;", "'") for remark in remarks)


@pytest.mark.slow
def test_ray_prints_nothing(resumed: RunDirectory) -> None:
    for name in ("result.json", "progress.csv"):  # missing if a trial stopped in its first epoch
        for path in resumed.tune.glob(f"*/*/{name}"):
            path.unlink()
    # In a separate process, where the test runner does not capture log messages.
    command = [sys.executable, "-m", "analysis", str(resumed.path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == (f"report: {resumed.report}\n", "")


@pytest.mark.slow
def test_newer_of_log_and_record_is_used(run: RunDirectory) -> None:
    for each in (record(GOOD, "running", epochs=1), record(BAD, "completed", epochs=2)):
        each.write(made(run.trial(each.trial_id)))
    old_copy = run.trial(trial_id(GOOD)) / "trial.json"
    content = json.loads(old_copy.read_text())
    old_copy.write_text(json.dumps({**content, "updated": "2026-01-01T00:00:00+00:00"}))
    rows = table(run)
    assert rows.status.to_list() == ["completed", "completed"]
    assert rows.epochs.to_list() == [2, 2]
    assert rows.val_acc[trial_id(BAD)] == record(BAD, "completed", epochs=2).best["val_acc"]
    assert rows.error.isna().all()


@pytest.mark.slow
@pytest.mark.parametrize("content", [None, "", "{", '{"trial_data": [["x", "y"]]}'])
def test_unreadable_state_is_reported_and_records_are_used(run: RunDirectory, content: str | None) -> None:
    for state in (run.tune / "001").glob("experiment_state-*.json"):
        state.unlink() if content is None else state.write_text(content)
    record(GOOD, "completed").write(made(run.trial(trial_id(GOOD))))
    rows = table(run)
    assert rows.status.to_list() == ["completed", "pending"]
    assert "Ray Tune" in (run.report / "summary_report.md").read_text().partition("## Notes")[2]


def test_last_report_of_an_epoch_is_kept() -> None:
    rows = [{"epoch": 1, "val_acc": 0.1}, {"epoch": 2, "val_acc": 0.2}, {"epoch": 2, "val_acc": 0.3, "test_acc": None}]
    assert by_epoch(rows) == [{"epoch": 1, "val_acc": 0.1}, {"epoch": 2, "val_acc": 0.3}]
