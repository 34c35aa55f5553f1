"""Real processes, really killed: what is lost, and that `--resume` finishes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import psutil
import pytest

from sousaphone import checkpoint
from sousaphone.config import TrainConfig
from sousaphone.data.prepare import open_trial_data
from sousaphone.model import build_model
from sousaphone.record import TrialRecord
from sousaphone.rudiments import SLUGS
from sousaphone.training import fit

ROOT = Path(__file__).resolve().parents[2]
EPOCHS = 8
CLOCK = {"epoch_seconds", "samples_per_second", "peak_memory_mb"}

pytestmark = pytest.mark.slow


class Launcher:
    """launch.py as a user starts it, on a small data set, with everything it writes under one directory."""

    def __init__(self, data: Path, storage: Path) -> None:
        self.storage = storage
        self.environment = {**os.environ, "SOUSAPHONE_CACHE": str(storage / "cache")}
        settings = ["clip_seconds=1.0", "micro_batch=2", "learning_rate=0.001", "patience=99"]
        self.options = ["--data-dir", str(data), "--models", "ast", "--scale", "nano", "--epochs", str(EPOCHS)]
        self.options += ["--set", *settings]

    def start(self, *options: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(ROOT / "launch.py"), "--name", "run", "--storage", str(self.storage), *options]
        log = (self.storage / "log.txt").open("a")
        return subprocess.Popen(
            command, cwd=self.storage, env=self.environment, stdout=log, stderr=log, text=True, start_new_session=True
        )

    @property
    def log(self) -> str:
        return (self.storage / "log.txt").read_text()

    def record(self, augment: str) -> TrialRecord | None:
        return TrialRecord.read(self.storage / "run" / "tune" / f"ast-lora-aug-{augment}-s0")

    def epochs(self, augment: str) -> int:
        record = self.record(augment)
        return len(record.history) if record else 0

    def wait_until(self, condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
        deadline = time.monotonic() + 240
        while not condition():
            assert process.poll() is None, self.log
            assert time.monotonic() < deadline, self.log
            time.sleep(0.05)


@pytest.fixture
def launcher(small_sousa: Path, tmp_path: Path) -> Iterator[Launcher]:
    """A launcher whose processes, Ray's included, are gone after the test."""
    before = set(psutil.pids())
    yield Launcher(small_sousa, tmp_path)
    for process in psutil.process_iter():
        if process.pid not in before and "ray" in " ".join(_command(process)):
            process.kill()


def _command(process: psutil.Process) -> list[str]:
    try:
        command: list[str] = process.cmdline()
    except psutil.Error:
        return []
    return command


def _uninterrupted(launcher: Launcher, trial_id: str) -> list[dict[str, object]]:
    """The history of the same trial by `fit` alone, in this process."""
    plan = json.loads((launcher.storage / "run" / "run.json").read_text())
    config = TrainConfig(**plan["trials"][plan["trial_ids"].index(trial_id)])
    model = build_model(config, len(SLUGS))
    data = open_trial_data(config, model.backbone.spec.sample_rate)
    return [epoch.metrics for epoch in fit(config, model, data)]


def test_a_killed_driver_loses_at_most_the_epoch_in_work_and_resume_repeats_the_uninterrupted_run(
    launcher: Launcher,
) -> None:
    driver = launcher.start(*launcher.options)
    launcher.wait_until(lambda: launcher.epochs("on") >= 3, driver)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    # Orphaned workers see at their next write that the driver is gone.
    time.sleep(1.0)
    finished = launcher.epochs("on")
    assert 3 <= finished < EPOCHS
    killed_at = len(launcher.log)

    resumed = launcher.start("--resume")
    assert resumed.wait(timeout=300) == 0, launcher.log
    log = launcher.log[killed_at:]
    first = next(line for line in log.splitlines() if "ast-lora-aug-on-s0" in line and "epoch" in line)
    assert f"epoch {finished + 1}/{EPOCHS}" in first

    table = pd.read_csv(launcher.storage / "run" / "report" / "comparison_table.csv")
    assert table["status"].tolist() == ["completed"] * 2
    assert table["epochs"].tolist() == [EPOCHS] * 2
    for augment in ("on", "off"):
        record = launcher.record(augment)
        assert record is not None
        assert [row["epoch"] for row in record.history] == list(range(1, EPOCHS + 1))
        for row, expected in zip(record.history, _uninterrupted(launcher, record.trial_id), strict=True):
            assert {k: v for k, v in row.items() if k not in CLOCK} == {
                k: v for k, v in expected.items() if k not in CLOCK
            }


def test_a_terminated_run_names_its_end_and_the_line_that_resumes(launcher: Launcher) -> None:
    driver = launcher.start(*launcher.options)
    launcher.wait_until(lambda: launcher.epochs("on") >= 1, driver)
    driver.terminate()
    assert driver.wait(timeout=120) == 130, launcher.log
    assert "--resume --name run" in launcher.log
    table = pd.read_csv(launcher.storage / "run" / "report" / "comparison_table.csv")
    assert set(table["status"]) <= {"interrupted", "pending"}
    assert launcher.start("--resume").wait(timeout=300) == 0, launcher.log


def test_a_trial_that_raises_does_not_stop_the_other(launcher: Launcher, trial_config: Callable[..., TrainConfig]) -> None:
    driver = launcher.start(*launcher.options, "--augment", "off", "--seeds", "0", "1", "--max-concurrent", "1")
    launcher.wait_until(lambda: launcher.epochs("off") >= 1, driver)
    # The second trial finds a checkpoint of another base model in its directory, and refuses to go on from it.
    config = trial_config(seed=9, epochs=1)
    model = build_model(config, len(SLUGS))
    (epoch,) = fit(config, model, open_trial_data(config, model.backbone.spec.sample_rate))
    victim = launcher.storage / "run" / "tune" / "ast-lora-aug-off-s1"
    victim.mkdir(parents=True, exist_ok=True)
    checkpoint.save(victim, 1, "abc", epoch.state)
    assert driver.wait(timeout=300) == 1, launcher.log
    table = pd.read_csv(launcher.storage / "run" / "report" / "comparison_table.csv").set_index("trial_id")
    assert table.loc["ast-lora-aug-off-s0", "status"] == "completed"
    assert table.loc["ast-lora-aug-off-s1", "status"] == "failed"
    assert "base model" in table.loc["ast-lora-aug-off-s1", "error"]
    assert "base model" in launcher.log
