"""Time limits of a sweep and of its trials, through Ray, and how the trials resume."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from sousaphone.runs.statuses import Cause
from sousaphone.runs.trial_record import TrialRecord
from tests.sweep.conftest import Launcher, with_jumping_clock

pytestmark = pytest.mark.slow
TRIALS = tuple(f"ast-lora-aug-off-s{seed}" for seed in range(3))


def records(launcher: Launcher) -> list[TrialRecord | None]:
    return [TrialRecord.read(launcher.storage / "run" / "trials" / trial_id) for trial_id in TRIALS]


def test_sweep_limit_cuts_running_trials_and_trial_limit_counts_all_starts(launcher: Launcher) -> None:
    # More epochs than the limit allows, and one trial more than run at a time.
    options = ["--augment", "off", "--seeds", "0", "1", "2", "--epochs", "5000", "--max-concurrent", "2"]
    options += ["--set", "patience=5000"]  # only the clock ends these trials
    limits = ["--time-limit", "30s", "--trial-time-limit", "none", "--yes"]
    now = with_jumping_clock(launcher, -3600.0)
    driver = launcher.start(*launcher.options, *options, *limits)
    launcher.wait_until(lambda: f"{TRIALS[0]}  starts" in launcher.log, driver)
    now.touch()  # changes no limit
    assert driver.wait(timeout=90) == 1, launcher.log
    now.unlink()
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

    # All three resume, each for the rest of its own limit.
    limit = math.ceil(max(record.seconds for record in cut if record is not None)) + 2
    resumed = launcher.start("--resume", "--trial-time-limit", f"{limit}s", "--yes")
    assert resumed.wait(timeout=120) == 0, launcher.log
    ended = records(launcher)
    for record, earlier in zip(ended, [*cut, None], strict=True):
        assert record is not None
        assert record.cause is Cause.TRIAL_TIME_LIMIT
        assert f"{limit} s" in str(record.reason)
        assert f"epoch {len(record.history) + 1}" in str(record.reason)
        assert limit <= record.seconds < limit + 5
        assert len(record.history) > (len(earlier.history) if earlier else 0)

    # Under the run's new limit nothing is left, and Ray is not started.
    before = len(launcher.log)
    assert launcher.start("--resume").wait(timeout=60) == 0, launcher.log
    assert "nothing is left to train" in launcher.log[before:]
    assert records(launcher) == ended
