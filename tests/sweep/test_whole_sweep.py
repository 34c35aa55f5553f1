"""A whole sweep: eight trials of all four backbones through Ray Tune, and their files; the first start is interrupted
while the baselines are measured."""

from __future__ import annotations

import json
import signal

import pandas as pd
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sousaphone.backbones.registry import DEFAULT_SWEEP
from sousaphone.baselines.classifiers import titles
from sousaphone.rudiments import SLUGS
from sousaphone.runs.baseline_results import BASELINE_RESULTS_NAME, BaselineResults
from sousaphone.runs.trial_record import PREDICTIONS_NAME, TrialRecord
from sousaphone.training import adapter
from tests.sweep.conftest import Launcher

pytestmark = pytest.mark.slow


def test_sweep_keeps_baselines_and_writes_table_plots_curves_predictions_and_adapters(launcher: Launcher) -> None:
    options = launcher.options.copy()
    options[options.index("--epochs") + 1] = "1"
    at = options.index("--models")
    del options[at : at + 2]
    run = launcher.storage / "run"
    driver = launcher.start(*options, "--baselines")
    launcher.wait_until((run / BASELINE_RESULTS_NAME).exists, driver)  # the first is measured
    driver.send_signal(signal.SIGINT)
    assert driver.wait() == 130, launcher.log
    assert "Traceback" not in launcher.log
    assert "to resume: python launch.py --resume --name run" in launcher.log
    assert "0 of 8 trials ended" in (run / "STATUS.md").read_text()
    assert not (run / "trials").exists()
    first = json.loads((run / BASELINE_RESULTS_NAME).read_text())
    assert len(first["inference"]) == 0

    assert launcher.start("--resume", "--baselines", "--timing").wait() == 0, launcher.log
    table = pd.read_csv(run / "report" / "comparison_table.csv")
    assert len(table) == 8
    assert set(table["model"]) == set(DEFAULT_SWEEP)
    assert table["status"].eq("completed").all()
    assert table["test_acc"].between(0, 1).all()
    assert "cannot rank the published models" in (run / "report" / "summary_report.md").read_text()
    pictures = {path.name for path in (run / "report" / "plots").iterdir()}
    assert pictures >= {"accuracy_comparison.png", "efficiency_scatter.png", "training_time.png", "confusion.png"}

    baseline_results = BaselineResults.read(run)
    assert baseline_results is not None
    assert [each.name for each in baseline_results.baselines] == list(titles(DEFAULT_SWEEP))
    kept = [each for each in first["baselines"] if not each["why"]]
    assert {each["why"] for each in first["baselines"][len(kept) :]} == {"not measured"}
    assert [each.seconds for each in baseline_results.baselines[: len(kept)]] == [each["seconds"] for each in kept]
    assert all((run / "baselines" / f"{name}.parquet").is_file() for name in titles(DEFAULT_SWEEP))
    assert {each.model for each in baseline_results.inference if each.ms} == set(DEFAULT_SWEEP)

    for trial_id in table["trial_id"]:
        directory = run / "trials" / trial_id
        board = EventAccumulator(str(directory)).Reload()
        assert {"train_loss", "train_ce", "val_acc", "val_macro_f1", "test_acc"} <= set(board.Tags()["scalars"])
        predictions = pd.read_parquet(directory / PREDICTIONS_NAME)
        logits = predictions[[f"logit_{slug}" for slug in SLUGS]].to_numpy()
        record = TrialRecord.read(directory)
        assert record is not None
        hits = logits.argmax(1) == predictions["rudiment"].map(list(SLUGS).index)
        assert hits.mean() == pytest.approx(record.test["test_acc"])
        assert record.lora["matches"]
        assert sum(tensor.numel() for tensor in adapter.read(directory).values()) == record.parameters["trainable"]
