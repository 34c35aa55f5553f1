"""A real Ray Tune experiment, two trials long, one of which raises: what ExperimentAnalysis knows of it, and who wins
where it and the trials' own records differ."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import ray
from ray import tune
from ray.tune.logger import CSVLoggerCallback, JsonLoggerCallback

from analysis.ray_log import by_epoch, read_ray_log
from analysis.report import write_report
from sousaphone.run import RunDirectory
from tests.analysis.run_builders import arm, history, record, trial_id, write_run

GOOD, BAD = arm(epochs=2, seed=0), arm(epochs=2, seed=1)


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """RUN/tune of two trials that end at once and leave no records."""
    run = tmp_path_factory.mktemp("ray") / "study"
    reports = {0: history(2, 0, test=True), 1: history(1, 1, test=False)}

    def trainable(config: dict[str, Any]) -> None:
        for row in reports[config["seed"]]:
            tune.report({**row, "training_iteration": row["epoch"]})
        if config["seed"] == 1:
            raise RuntimeError("no luck today")

    ray.init(num_cpus=1, include_dashboard=False, object_store_memory=100 * 2**20, log_to_driver=False)
    try:
        tune.Tuner(
            trainable,
            param_space={**GOOD, "seed": tune.grid_search([0, 1])},
            tune_config=tune.TuneConfig(trial_dirname_creator=lambda trial: trial_id(trial.config), reuse_actors=True),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=str(run),
                verbose=0,
                callbacks=[JsonLoggerCallback(), CSVLoggerCallback()],  # as our own runs have them
            ),
        ).fit()
    finally:
        ray.shutdown()
    return run / "tune"


@pytest.fixture
def run(experiment: Path, tmp_path: Path) -> RunDirectory:
    """A copy of the experiment in a run that planned its two trials; moved, as runs are."""
    shutil.copytree(experiment, tmp_path / "study" / "tune")
    return write_run(tmp_path / "study", [GOOD, BAD])


def table(run: RunDirectory) -> pd.DataFrame:
    return pd.read_csv(write_report(run.path) / "comparison_table.csv").set_index("trial_id")


def test_without_records_ray_tells_history_status_and_error(run: RunDirectory) -> None:
    known, remark = read_ray_log(run.experiment)
    assert remark is None
    assert known[trial_id(GOOD)].history == by_epoch(known[trial_id(GOOD)].history)
    rows = table(run)
    assert rows.status.to_list() == ["completed", "failed"]
    assert rows.epochs.to_list() == [2, 1]
    assert rows.error[trial_id(BAD)] == "RuntimeError: no luck today"
    assert rows.test_acc[trial_id(GOOD)] == history(2, 0, test=True)[-1]["test_acc"]
    assert rows.total_params.isna().all()


def test_the_newer_of_ray_and_record_is_believed(run: RunDirectory) -> None:
    for each in (record(GOOD, "running", epochs=1), record(BAD, "completed", epochs=2)):
        each.write(run.trial(each.trial_id))
    rows = table(run)
    assert rows.status.to_list() == ["completed", "completed"]
    assert rows.epochs.to_list() == [2, 2]
    assert rows.val_acc[trial_id(BAD)] == record(BAD, "completed", epochs=2).best["val_acc"]
    assert rows.error.isna().all()


@pytest.mark.parametrize("content", [None, "", "{", '{"trial_data": [["x", "y"]]}'])
def test_a_state_that_cannot_be_read_is_said_and_the_records_stand(run: RunDirectory, content: str | None) -> None:
    for state in run.experiment.glob("experiment_state-*.json"):
        state.unlink() if content is None else state.write_text(content)
    record(GOOD, "completed").write(run.trial(trial_id(GOOD)))
    rows = table(run)
    assert rows.status.to_list() == ["completed", "pending"]
    assert "the trials' own records" in (run.report / "summary_report.md").read_text()


def test_an_epoch_reported_twice_counts_once_and_as_it_was_last() -> None:
    rows = [{"epoch": 1, "val_acc": 0.1}, {"epoch": 2, "val_acc": 0.2}, {"epoch": 2, "val_acc": 0.3, "test_acc": None}]
    assert by_epoch(rows) == [{"epoch": 1, "val_acc": 0.1}, {"epoch": 2, "val_acc": 0.3}]
