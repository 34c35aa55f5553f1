"""A stop while the baselines are measured, before the first trial."""

from __future__ import annotations

import json
import signal

import pytest

from sousaphone.runs.baseline_results import BASELINE_RESULTS_NAME, BaselineResults
from tests.sweep.conftest import Launcher

pytestmark = pytest.mark.slow


def test_measured_baselines_are_kept_and_the_run_resumes(launcher: Launcher) -> None:
    run = launcher.storage / "run"
    driver = launcher.start(*launcher.options, "--augment", "off", "--epochs", "1", "--baselines")
    launcher.wait_until((run / BASELINE_RESULTS_NAME).exists, driver)  # the first is measured
    driver.send_signal(signal.SIGINT)
    assert driver.wait() == 130, launcher.log
    assert "Traceback" not in launcher.log
    assert "to resume: python launch.py --resume --name run" in launcher.log
    assert "0 of 1 trials ended" in (run / "STATUS.md").read_text()
    assert not (run / "trials").exists()
    first = json.loads((run / BASELINE_RESULTS_NAME).read_text())
    assert len(first["inference"]) == 0

    resumed = launcher.start("--resume", "--baselines")
    assert resumed.wait() == 0, launcher.log
    found = BaselineResults.read(run)
    assert found is not None
    assert [each.name for each in found.baselines] == ["majority", "length", "onsets", "strokes", "logmel", "knn-ast"]
    kept = [each for each in first["baselines"] if not each["why"]]
    assert {each["why"] for each in first["baselines"][len(kept) :]} == {"not measured"}
    assert [each.seconds for each in found.baselines[: len(kept)]] == [each["seconds"] for each in kept]
    assert launcher.epochs("off") == 1
