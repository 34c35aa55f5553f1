"""Killed and failed trials, and a killed run that Ray restores without this program."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import psutil
import pytest

from sousaphone.config import TrainConfig
from sousaphone.data.prepare import open_trial_data
from sousaphone.model import build_model
from sousaphone.rudiments import SLUGS
from sousaphone.training import checkpoint
from sousaphone.training.loop import fit
from tests.sweep.conftest import ROOT, JumpingClocks, Launcher, name_of
from tests.sweep.test_ray_process import left_of

EPOCHS = 60
CLOCK = {"epoch_seconds", "processor_seconds", "wall_seconds", "samples_per_second", "peak_memory_mb"}

pytestmark = pytest.mark.slow


def uninterrupted(launcher: Launcher, trial_id: str) -> list[dict[str, object]]:
    """Return the history of the same trial by `fit`, in this process."""
    plan = json.loads((launcher.storage / "run" / "run.json").read_text())
    config = TrainConfig(**plan["trials"][plan["trial_ids"].index(trial_id)])
    model = build_model(config, len(SLUGS))
    data = open_trial_data(config, model.backbone.spec.sample_rate)
    return [epoch.metrics for epoch in fit(config, model, data)]


def test_killed_launch_leaves_no_process_and_no_file_of_ray_and_plain_python_restores_it(launcher: Launcher) -> None:
    temporary = Path(tempfile.mkdtemp(dir="/tmp"))  # a short path: Ray puts sockets there
    launcher.environment["RAY_TMPDIR"] = str(temporary)
    driver = launcher.start(*launcher.options, "--augment", "off", "--epochs", str(EPOCHS), "--yes")
    # Ray must have written its first snapshot, some seconds later.
    experiment = launcher.storage / "run" / "tune" / "001"
    launcher.wait_until(lambda: launcher.epochs("off") >= 2 and any(experiment.glob("experiment_state-*")), driver)
    assert any(temporary.iterdir())
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    assert not left_of(launcher.storage / "cache")
    temporary.rmdir()  # which fails unless it is empty
    del launcher.environment["RAY_TMPDIR"]
    program = (
        "from ray import tune; from sousaphone.sweep import train_fn\n"
        f"results = tune.Tuner.restore({str(experiment)!r}, train_fn).fit()\n"
        "print('errors', results.num_errors, 'epoch', results[0].metrics['epoch'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=launcher.environment, capture_output=True, text=True
    )
    assert f"errors 0 epoch {EPOCHS}" in done.stdout, done.stderr
    record = launcher.record("off")
    assert record is not None
    assert record.status == "completed"
    assert [row["epoch"] for row in record.history] == list(range(1, EPOCHS + 1))


def test_killed_worker_failed_trial_and_a_clock_that_jumps_forwards_end_no_other_trial(
    launcher: Launcher, trial_config: Callable[..., TrainConfig]
) -> None:
    config = trial_config(seed=9, epochs=1)
    model = build_model(config, len(SLUGS))
    (epoch,) = fit(config, model, open_trial_data(config, model.backbone.spec.sample_rate))
    clocks = JumpingClocks(launcher)
    # Two at a time.
    options = ["--augment", "off", "--seeds", "0", "1", "2", "--time-limit", "30m", "--epochs", "30", "--yes"]
    driver = launcher.start(*launcher.options, *options)
    first, second, third = (launcher.storage / "run" / "trials" / f"ast-lora-aug-off-s{seed}" for seed in range(3))
    launcher.wait_until(lambda: all((each / "trial.json").exists() for each in (first, second)), driver)
    clocks.jump("time", 3600)  # backwards: in test_limits
    # The third trial finds a checkpoint of another base model in its directory, and refuses to resume from it.
    third.mkdir(parents=True, exist_ok=True)
    checkpoint.save(third, 1, "abc", epoch.state)
    family = psutil.Process(driver.pid).children(recursive=True)
    next(process for process in family if "ImplicitFunc" in name_of(process)).kill()
    assert driver.wait() == 1, launcher.log
    table = pd.read_csv(launcher.storage / "run" / "report" / "comparison_table.csv").set_index("trial_id")
    assert sorted(table.loc[[first.name, second.name], "status"]) == ["completed", "failed"]
    errors = table["error"].dropna()
    assert len(errors) == 2
    assert "base model" in errors.pop(third.name)
    assert "actor died unexpectedly" in errors.item()
    assert all(f"{name}  failed: " in launcher.log for name in (third.name, errors.index[0]))
    assert "Traceback" not in launcher.log
