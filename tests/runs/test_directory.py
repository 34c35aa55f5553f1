"""Who holds a run, what a full disk does to that, and what stands above a run's results."""

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
TOLD = ": this run shows that the tool works; it says nothing about the published models."


@pytest.mark.parametrize(
    ("arms", "said"),
    [
        ([("ast", "base", FILE), ("beats", "base", FILE)], None),
        ([("ast", "nano", FILE)], "Nano-sized backbones"),
        ([("ast", "base", "random"), ("ast", "base", "random")], "Random weights"),
        ([("ast", "nano", "random"), ("beats", "nano", "random")], "Nano-sized backbones and random weights"),
        ([("ast", "base", "random"), ("beats", "base", FILE)], "Random weights in AST"),
        (
            [("ast", "nano", "random"), ("efficientat", "nano", FILE), ("beats", "nano", "random")],
            "Nano-sized backbones and random weights in AST and BEATs",
        ),
    ],
)
def test_the_banner_names_what_says_nothing_about_published_models(
    arms: list[tuple[str, str, str]], said: str | None
) -> None:
    assert banner(arms) == (said and f"{said}{TOLD}")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a process's start does not move with the clock")
def test_a_driver_lives_on_when_the_systems_clock_is_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create_time = psutil.Process.create_time
    with RunDirectory(tmp_path).held():
        watch = DriverWatch.begin(tmp_path)
        monkeypatch.setattr(psutil.Process, "create_time", lambda process: create_time(process) + 3600)
        watch.check()
        assert DriverWatch.begin(tmp_path).lived


def test_a_driver_whose_number_another_process_has_is_gone(tmp_path: Path) -> None:
    with RunDirectory(tmp_path).held():
        driver = json.loads((tmp_path / "driver.json").read_text())
        (tmp_path / "driver.json").write_text(json.dumps({**driver, "started": driver["started"] - 1}))
        assert not DriverWatch.begin(tmp_path).lived
        with pytest.raises(DriverGoneError, match="is gone"):
            DriverWatch(tmp_path, {**driver, "started": driver["started"] - 1}, lived=True).check()


def test_the_deadline_of_a_dead_driver_means_nothing_and_its_other_limits_hold(tmp_path: Path) -> None:
    limits = Limits(trial_seconds=60.0, deadline=5.0)
    with RunDirectory(tmp_path).held(limits):
        assert DriverWatch.begin(tmp_path).limits == limits
        driver = json.loads((tmp_path / "driver.json").read_text())
        (tmp_path / "driver.json").write_text(json.dumps({**driver, "started": driver["started"] - 1}))
        assert DriverWatch.begin(tmp_path).limits == Limits(trial_seconds=60.0)


def test_a_deadline_is_the_same_moment_on_a_machine_whose_clocks_began_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RunDirectory(tmp_path).held(Limits(deadline=time.monotonic() + 60.0)):
        began = time.monotonic() - 5_000.0
        monkeypatch.setattr("time.monotonic", lambda real=time.monotonic: real() - began)
        monkeypatch.setattr("socket.gethostname", lambda: "elsewhere")
        deadline = DriverWatch.begin(tmp_path).limits.deadline
        assert deadline is not None
        assert deadline - time.monotonic() == pytest.approx(60.0, abs=5.0)


def test_a_full_disk_is_one_clear_line_and_lets_go_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path) -> None:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    run = RunDirectory(tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(files, "flush", full)
        with pytest.raises(UserError, match=r"run cannot be written \(Disk quota exceeded\)"), run.held():
            pass
        with pytest.raises(UserError, match="Disk quota exceeded"):
            run.write_plan({})
    assert run.is_empty  # so that the name is free
    with run.held():
        pass
