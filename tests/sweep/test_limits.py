"""Time limits of a sweep and of its trials, through Ray, and how the trials resume."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from sousaphone.runs.statuses import Cause
from sousaphone.runs.trial_record import TrialRecord
from tests.sweep.conftest import JumpingClocks, Launcher

pytestmark = pytest.mark.slow
TRIALS = tuple(f"ast-lora-aug-off-s{seed}" for seed in range(3))


def records(launcher: Launcher) -> list[TrialRecord | None]:
    return [TrialRecord.read(launcher.storage / "run" / "trials" / trial_id) for trial_id in TRIALS]


def epochs(launcher: Launcher) -> list[int]:
    return [len(record.history) if record else 0 for record in records(launcher)]


def test_sweep_limit_cuts_running_trials_and_trial_limit_counts_all_starts(launcher: Launcher) -> None:
    # Only the clock ends these trials. One more than run at a time.
    options = ["--augment", "off", "--seeds", "0", "1", "2", "--epochs", "5000", "--max-concurrent", "2"]
    options += ["--set", "patience=5000"]
    limits = ["--time-limit", "1h", "--trial-time-limit", "none", "--yes"]
    clocks = JumpingClocks(launcher)
    driver = launcher.start(*launcher.options, *options, *limits)
    launcher.wait_until(lambda: min(epochs(launcher)[:2]) >= 1, driver)
    clocks.jump("time", -7200)  # changes no limit
    before = epochs(launcher)
    launcher.wait_until(lambda: min(np.subtract(epochs(launcher), before)[:2]) >= 2, driver)
    clocks.jump("monotonic", 3600)
    assert driver.wait() == 1, launcher.log
    *cut, waiting = records(launcher)
    assert waiting is None
    assert f"{TRIALS[2]}  starts" not in launcher.log
    assert "Last result" not in launcher.log  # a message of Ray
    for record in cut:
        assert record is not None, launcher.log
        assert record.cause is Cause.SWEEP_TIME_LIMIT
        assert f"epoch {len(record.history) + 1}" in str(record.reason)
        assert 0 <= record.test["test_acc"] <= 1
    table = pd.read_csv(launcher.storage / "run" / "report" / "comparison_table.csv").set_index("trial_id")
    assert table["status"].reindex(TRIALS).tolist() == ["time_limit", "time_limit", "pending"]

    # All three resume, each for the rest of its own limit: an hour, and for the third two.
    resumed = launcher.start("--resume", "--trial-time-limit", "2h", "--yes")
    before = epochs(launcher)
    launcher.wait_until(lambda: min(np.subtract(epochs(launcher), before)[:2]) >= 1, resumed)
    clocks.jump("monotonic", 2 * 3600)
    launcher.wait_until(lambda: epochs(launcher)[2] >= 1, resumed)
    assert resumed.poll() is None
    clocks.jump("monotonic", 4 * 3600)
    assert resumed.wait() == 0, launcher.log
    ended = records(launcher)
    for record, earlier in zip(ended, [*cut, None], strict=True):
        assert record is not None
        assert record.cause is Cause.TRIAL_TIME_LIMIT
        assert "2 h" in str(record.reason)
        assert f"epoch {len(record.history) + 1}" in str(record.reason)
        assert record.seconds >= 7200
        assert len(record.history) > (len(earlier.history) if earlier else 0)

    # Under the run's new limit nothing is left, and Ray is not started.
    printed = len(launcher.log)
    assert launcher.start("--resume").wait() == 0, launcher.log
    assert "nothing is left to train" in launcher.log[printed:]
    assert records(launcher) == ended
