"""`sousaphone evaluate` prints and writes the scores of a model on labelled recordings."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from sousaphone.cli.command import EXIT_INPUT, EXIT_OK
from sousaphone.cli.evaluate import main
from sousaphone.config import DATASET_SIZES, TrainConfig
from sousaphone.deploy.trained_trials import best_arm
from sousaphone.runs.directory import RunDirectory
from tests.deploy.conftest import finished_run


def test_test_split_has_the_accuracy_of_the_report(
    run: RunDirectory, model: Path, small_sousa: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "scores.json"
    assert main([str(model), str(small_sousa), "--split", "test", "--output", str(output)]) == EXIT_OK
    found = json.loads(output.read_text())
    test = best_arm(run)[0].record.test
    assert found["centre_window"]["accuracy"] == pytest.approx(test["test_acc"])
    assert found["centre_window"]["macro_f1"] == pytest.approx(test["test_macro_f1"])
    assert found["averaged"]["accuracy"] == pytest.approx(test.get("test_averaged_acc", found["averaged"]["accuracy"]))
    assert f"{test['test_acc']:.1%}" in capsys.readouterr().out
    assert sum(map(sum, found["confusion"])) == found["averaged"]["clips"] == 6


def test_all_clips_are_scored_by_default_with_a_warning_on_training_data(
    model: Path, small_sousa: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(model), str(small_sousa)]) == EXIT_OK
    captured = capsys.readouterr()
    assert "24 clips of 4 players" in captured.out
    assert "--split test" in captured.err


def test_all_clips_are_recognised_if_the_model_was_trained_on_a_part_of_them(
    small_sousa: Path,
    trial_config: Callable[..., TrainConfig],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(DATASET_SIZES, "mini", 10)
    data = tmp_path / "data"
    shutil.copytree(small_sousa, data)
    table = pd.read_parquet(data / "labels" / "samples.parquet")
    table.loc[::2, "soundfont"] = "Brass"
    table.to_parquet(data / "labels" / "samples.parquet")
    config = trial_config(epochs=1, limit_train_batches=1, dataset="mini", hold_out="soundfont=Brass")
    run = finished_run(tmp_path / "run", [dataclasses.replace(config, data_dir=str(data))])
    assert main([str(run.path), str(data)]) == EXIT_OK
    assert "--split test" in capsys.readouterr().err
    assert main([str(run.path), str(small_sousa)]) == EXIT_OK  # which has no such soundfont
    assert "warning" not in capsys.readouterr().err


@pytest.mark.parametrize(("data", "named"), [("/nowhere", "/nowhere"), ("{model}", "model"), ("hub:x", "hub:x")])
def test_wrong_data_are_one_line(model: Path, capsys: pytest.CaptureFixture[str], data: str, named: str) -> None:
    assert main([str(model), data.format(model=model)]) == EXIT_INPUT
    (line,) = capsys.readouterr().err.splitlines()
    assert named in line
