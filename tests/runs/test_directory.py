"""The lock of a run, a full disk, and the warning above its results."""

from __future__ import annotations

import errno
import json
import sys
import time
from pathlib import Path

import psutil
import pytest

from sousaphone import files
from sousaphone.errors import UserError
from sousaphone.runs.directory import DriverGoneError, DriverWatch, Limits, RunDirectory, banner

FILE = "/weights/file"


@pytest.mark.parametrize(
    ("arms", "reason"),
    [
        ([("ast", "base", FILE), ("beats", "base", FILE)], None),
        ([("ast", "nano", FILE)], "nano-sized backbones"),
        ([("ast", "base", "random"), ("ast", "base", "random")], "random weights"),
        ([("ast", "nano", "random"), ("beats", "nano", "random")], "nano-sized backbones and random weights"),
        ([("ast", "base", "random"), ("beats", "base", FILE)], "random weights in AST"),
        (
            [("ast", "nano", "random"), ("efficientat", "nano", FILE), ("beats", "nano", "random")],
            "nano-sized backbones and random weights in AST and BEATs",
        ),
    ],
)
def test_warning_names_nano_sizes_and_random_weights(arms: list[tuple[str, str, str]], reason: str | None) -> None:
    warning = banner(arms)
    assert reason in warning if reason and warning else warning is reason


@pytest.mark.skipif(sys.platform != "linux", reason="only on Linux does psutil's start time move with the clock")
def test_driver_is_found_after_the_system_clock_is_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create_time = psutil.Process.create_time
    with RunDirectory(tmp_path).held():
        watch = DriverWatch.begin(tmp_path)
        monkeypatch.setattr(psutil.Process, "create_time", lambda process: create_time(process) + 3600)
        watch.check()
        assert DriverWatch.begin(tmp_path).lived


def test_driver_whose_process_number_is_reused_has_ended(tmp_path: Path) -> None:
    with RunDirectory(tmp_path).held():
        driver = json.loads((tmp_path / "driver.json").read_text())
        (tmp_path / "driver.json").write_text(json.dumps({**driver, "started": driver["started"] - 1}))
        assert not DriverWatch.begin(tmp_path).lived
        with pytest.raises(DriverGoneError, match="driver"):
            DriverWatch(tmp_path, {**driver, "started": driver["started"] - 1}, lived=True).check()


def test_deadline_of_an_ended_driver_is_ignored_and_its_other_limits_hold(tmp_path: Path) -> None:
    limits = Limits(trial_seconds=60.0, deadline=5.0)
    with RunDirectory(tmp_path).held(limits):
        assert DriverWatch.begin(tmp_path).limits == limits
        driver = json.loads((tmp_path / "driver.json").read_text())
        (tmp_path / "driver.json").write_text(json.dumps({**driver, "started": driver["started"] - 1}))
        assert DriverWatch.begin(tmp_path).limits == Limits(trial_seconds=60.0)


def test_deadline_is_converted_to_another_machines_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with RunDirectory(tmp_path).held(Limits(deadline=time.monotonic() + 60.0)):
        began = time.monotonic() - 5_000.0
        monkeypatch.setattr("time.monotonic", lambda real=time.monotonic: real() - began)
        monkeypatch.setattr("socket.gethostname", lambda: "elsewhere")
        deadline = DriverWatch.begin(tmp_path).limits.deadline
        assert deadline is not None
        assert deadline - time.monotonic() == pytest.approx(60.0, abs=5.0)


def test_full_disk_is_one_line_and_releases_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path) -> None:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    run = RunDirectory(tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(files, "flush", full)
        with pytest.raises(UserError, match=r"run.*Disk quota exceeded"), run.held():
            pass
        with pytest.raises(UserError, match="Disk quota exceeded"):
            run.write_plan({})
    assert run.is_empty  # the name can be used again
    with run.held():
        pass
