"""Files for other programs: they read back equal, and a value that is not finite is null."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

import pandas as pd
import pytest

from analysis.compare.experiments import of_trials, read_experiments
from analysis.load.predictions import read_predictions
from analysis.load.trials import Trial, read_trials
from analysis.write.exports import epochs_csv, predictions_parquet, trial_json
from sousaphone.runs.directory import RunDirectory
from sousaphone.runs.trial_record import PREDICTIONS_NAME
from tests.analysis.run_builders import arm, made, record, write_predictions, write_run


def a_run(path: Path) -> tuple[RunDirectory, list[Trial]]:
    plan = [arm("ast"), arm("beats", augment=False), arm("ast", seed=1), arm("htsat"), arm("efficientat")]
    states = ["completed", "early_stopped", "time_limit", "failed"]
    records = [
        record(config, status, error="RuntimeError: <b>no</b>" if status == "failed" else None)
        for config, status in zip(plan, states, strict=False)
    ]
    run = write_run(path, plan, records)
    write_predictions(run, records, players=3, clips=60)
    return run, read_trials(run, run.read_plan(), {})


def test_epochs_csv_contains_every_epoch_of_every_trial(tmp_path: Path) -> None:
    _, trials = a_run(tmp_path)
    table = pd.read_csv(io.BytesIO(epochs_csv(trials)))
    assert list(table.columns[:6]) == ["trial_id", "model", "strategy", "augment", "seed", "epoch"]
    assert len(table) == sum(len(trial.history) for trial in trials)
    for trial in trials:
        rows = table[table.trial_id == trial.trial_id].to_dict("records")
        own = [{key: value for key, value in row.items() if key in trial.last and value == value} for row in rows]
        assert own == trial.history
        assert {row["augment"] for row in rows} <= {"on" if trial.config["augment"] else "off"}


def test_epochs_csv_without_epochs_has_a_header() -> None:
    assert epochs_csv([Trial("x", arm())]) == b"trial_id,model,strategy,augment,seed,epoch\n"


def test_trial_json_has_earlier_and_own_keys(tmp_path: Path) -> None:
    _, trials = a_run(tmp_path)
    content = json.loads(trial_json(trials[0], 123_456))
    assert list(content["config"])[:5] == ["model", "strategy", "augmentation", "data", "max_epochs"]
    assert {"metrics", "efficiency", "status", "error", "timestamp", "git_commit", "experiment_id"} <= content.keys()
    assert content["experiment_id"] == trials[0].trial_id
    assert content["config"].items() >= trials[0].config.items()
    assert content["metrics"]["val_acc"] == trials[0].best["val_acc"]
    assert content["metrics"]["test_acc"] == trials[0].last["test_acc"]
    assert content["metrics"]["test_f1_macro"] == trials[0].last["test_macro_f1"]
    assert content["metrics"]["trainable_params"] == trials[0].trainable_params
    assert content["efficiency"]["training_time_seconds"] == pytest.approx(trials[0].train_seconds)
    assert content["efficiency"]["adapter_bytes"] == 123_456
    assert (content["timestamp"], content["error"]) == ("2026-01-01T00:00:00+00:00", None)
    failed = json.loads(trial_json(trials[3]))
    assert (failed["status"], failed["error"]) == ("failed", "RuntimeError: <b>no</b>")
    assert "test_acc" not in failed["metrics"]
    assert "val_acc" not in json.loads(trial_json(trials[4]))["metrics"]


def test_non_finite_metric_is_null(tmp_path: Path) -> None:
    _, trials = a_run(tmp_path)
    trials[0].history[-1].update(test_loss=math.nan, test_acc=-math.inf)
    metrics = json.loads(trial_json(trials[0]))["metrics"]
    assert metrics["test_loss"] is metrics["test_acc"] is None


def test_directory_of_trial_json_reads_back_as_the_run(tmp_path: Path) -> None:
    _, trials = a_run(tmp_path / "run")
    for trial in trials:
        (made(tmp_path / "files") / f"{trial.trial_id}.json").write_bytes(trial_json(trial))
    read, damaged = read_experiments(tmp_path / "files")
    assert damaged == []
    known = {each.name: each for each in of_trials(trials)}
    for each in read:
        own = known[each.name]
        assert (each.arm, each.status, each.scores, each.commit) == (own.arm, own.status, own.scores, own.commit)
        assert (each.total_params, each.trainable_params) == (own.total_params, own.trainable_params)
        assert {key: each.config[key] for key in own.config} == own.config
    assert len(read) == len(trials)


def test_predictions_read_back_equal(tmp_path: Path) -> None:
    run, trials = a_run(tmp_path)
    frame, _ = read_predictions(run, trials)
    assert len(frame) == 3 * 60
    pd.testing.assert_frame_equal(pd.read_parquet(io.BytesIO(predictions_parquet(frame))), frame)


@pytest.mark.parametrize("column", ["tempo_bpm", "sample_id"])
def test_invalid_predictions_give_a_remark(tmp_path: Path, column: str) -> None:
    run, trials = a_run(tmp_path)
    path = run.trial(trials[0].trial_id) / PREDICTIONS_NAME
    table = pd.read_parquet(path).drop(columns=column)
    (table.assign(tempo_bpm=[{"a": 1}] * len(table)) if column == "tempo_bpm" else table).to_parquet(path)
    frame, (remark,) = read_predictions(run, trials)
    assert trials[0].trial_id in remark
    assert "predictions.parquet" in remark
    assert len(frame) == 2 * 60
