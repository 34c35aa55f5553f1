"""`--tracker wandb`: offline, one W&B run per trial, complete after a kill; an error without the package."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import psutil
import pytest

import launch
from sousaphone.cli.command import EXIT_INPUT, EXIT_INTERRUPTED
from sousaphone.config import TrainConfig
from sousaphone.errors import UserError
from sousaphone.runs.directory import RunDirectory
from sousaphone.sweep.wandb_logger import TrackerCallback, check_tracker, close_trackers, sync_line, wandb_id
from tests.analysis.run_builders import arm, record, write_run
from tests.sweep.conftest import EPOCHS, Launcher, environment_of


@pytest.fixture(autouse=True)
def _no_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without any W&B configuration."""
    for name in os.environ:
        if name.startswith("WANDB_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def test_missing_package_is_one_line_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "wandb" else real(name, *a))
    assert launch.main(["--tracker", "wandb", "--storage", str(tmp_path / "runs")]) == EXIT_INPUT
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "pip install 'wandb" in line
    assert not (tmp_path / "runs").exists()


def test_account_is_needed_only_online(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    with pytest.raises(UserError, match="WANDB_MODE is 'online'"):
        check_tracker()
    monkeypatch.delenv("WANDB_MODE")
    check_tracker()
    assert os.environ["WANDB_MODE"] == "offline"


def test_wandb_id_is_unique_to_trial_and_run(tmp_path: Path) -> None:
    run = write_run(tmp_path / "first", [arm()])
    here = wandb_id(run, "ast-lora-aug-on-s0")
    assert here.startswith("ast-lora-aug-on-s0-")
    assert wandb_id(RunDirectory(run.path.rename(tmp_path / "moved")), "ast-lora-aug-on-s0") == here
    assert wandb_id(write_run(tmp_path / "second", [arm()]), "ast-lora-aug-on-s0") != here


def test_sync_command_exists_only_for_offline_files(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "my run")
    assert sync_line(run) is None
    (run.path / "wandb" / "offline-run-20260101_000000-x").mkdir(parents=True)
    assert sync_line(run) == f"wandb sync '{run.path}/wandb'/offline-run-*"


class _Trial:
    """The attributes of Ray's trial that a tracker uses."""

    def __init__(self, run: RunDirectory, config: TrainConfig) -> None:
        self.name, self.config = config.trial_id, dataclasses.asdict(config)
        self.storage = SimpleNamespace(trial_fs_path=str(run.tune / "001" / self.name))

    def __str__(self) -> str:
        return self.name


def test_stopped_and_restarted_tracker_has_the_rows_of_the_record(tmp_path: Path) -> None:
    from tests.sweep.wandb_files import history, is_finished

    written = record(arm(), "running", epochs=2)
    run = write_run(tmp_path / "run", [arm()], [written])
    tracker, trial = TrackerCallback(), _Trial(run, TrainConfig(**arm()))
    for _ in range(2):
        tracker.on_trial_start(trial)
        tracker.on_trial_result(trial, {"epoch": 2})
        written = record(arm(), "completed", epochs=3)
        written.write(run.trial(str(trial)))
        close_trackers()
        (path,) = _files(run.path).values()
        assert history(path) == _rows(written.history)
        assert is_finished(path)
    tracker.on_trial_result(trial, {"epoch": 3})  # after its end


def _files(run: Path) -> dict[str, Path]:
    """Return the offline file of each trial, of which there must be one."""
    from tests.sweep.wandb_files import run_info

    found: dict[str, Path] = {}
    for path in run.glob("wandb/offline-run-*/run-*.wandb"):
        name = run_info(path).display_name
        assert name not in found
        found[name] = path
    return found


def _of_wandb(launcher: Launcher) -> list[str]:
    """Return the W&B processes among those of the launcher."""
    mine = [
        process
        for process in psutil.process_iter()
        if environment_of(process).get("SOUSAPHONE_CACHE") == launcher.environment["SOUSAPHONE_CACHE"]
    ]
    lines = []
    for process in mine:
        try:
            lines.append(" ".join(process.cmdline()[:1]))
        except psutil.Error:
            continue
    return [line for line in lines if "wandb" in line.lower()]


def _wait_until_nothing_runs_for_wandb(launcher: Launcher) -> None:
    """Wait until the W&B processes have ended: a worker ends after its raylet."""
    deadline = time.monotonic() + 30
    while running := _of_wandb(launcher):
        assert time.monotonic() < deadline, running
        time.sleep(0.5)


def _rows(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if value is not None} for row in history]


@pytest.mark.slow
def test_every_trial_is_one_offline_run_with_the_rows_of_its_record(launcher: Launcher) -> None:
    from tests.sweep.wandb_files import history, is_finished, run_info

    driver = launcher.start(*launcher.options, "--tracker", "wandb", "--max-concurrent", "1")
    # One trial at a time, the second in the process of the first.
    launcher.wait_until(lambda: launcher.epochs("off") >= 2 or launcher.epochs("on") >= 2, driver)
    assert _of_wandb(launcher)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    _wait_until_nothing_runs_for_wandb(launcher)

    # The run keeps its tracker.
    resumed = launcher.start("--resume")
    assert resumed.wait() == 0, launcher.log
    run = launcher.storage / "run"
    assert f"wandb sync {run}/wandb/offline-run-*" in launcher.log
    assert json.loads((run / "run.json").read_text())["tracker"] == "wandb"
    _wait_until_nothing_runs_for_wandb(launcher)
    files = _files(run)
    assert set(files) == {"ast-lora-aug-on-s0", "ast-lora-aug-off-s0"}
    for augment in ("on", "off"):
        found = launcher.record(augment)
        assert found is not None
        path, info = files[found.trial_id], run_info(files[found.trial_id])
        rows = history(path)
        assert rows == _rows(found.history)
        assert [row["epoch"] for row in rows] == list(range(1, EPOCHS + 1))
        assert "test_acc" in rows[-1]
        assert is_finished(path)
        assert (info.run_id, info.run_group) == (wandb_id(RunDirectory(run), found.trial_id), "run")
        assert info.project == "sousaphone"
        settings = {item.key: json.loads(item.value_json) for item in info.config.update}
        assert {key: settings[key] for key in found.config} == found.config


@pytest.mark.slow
def test_run_interrupted_by_two_signals_at_once_keeps_its_logged_rows_and_has_a_report(launcher: Launcher) -> None:
    from tests.sweep.wandb_files import history, is_finished

    driver = launcher.start(*launcher.options, "--tracker", "wandb", "--augment", "on", "--epochs", "60")
    launcher.wait_until(lambda: launcher.log.count("train_loss") >= 3, driver)
    os.killpg(driver.pid, signal.SIGINT)  # as a terminal does
    driver.terminate()
    assert driver.wait() == EXIT_INTERRUPTED, launcher.log
    assert "Traceback" not in launcher.log
    table = pd.read_csv(launcher.storage / "run" / "report" / "comparison_table.csv")
    assert table["status"].tolist() == ["interrupted"]
    (path,) = _files(launcher.storage / "run").values()
    assert is_finished(path)
    found = launcher.record("on")
    assert found is not None
    rows = history(path)
    assert len(rows) >= 3
    assert [row["val_acc"] for row in rows] == [row["val_acc"] for row in found.history[: len(rows)]]
