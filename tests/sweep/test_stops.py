"""Signals during a launch: exit code, output and records."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest

from sousaphone.runs.statuses import Cause
from tests.sweep.conftest import Launcher
from tests.sweep.test_ray_process import left_of

pytestmark = pytest.mark.slow
INT, TERM = signal.SIGINT, signal.SIGTERM


def quiet(log: str) -> bool:
    return "Traceback" not in log and "Exception ignored" not in log


@pytest.mark.parametrize(
    ("first", "signals"),
    [
        (0.1, [(TERM, 0.5), (TERM, 0.0)]),
        (0.9, [(TERM, 0.2), (TERM, 0.0)]),
        (1.5, [(INT, 0.1), (INT, 0.1), (INT, 0.0)]),
        (3.0, [(INT, 0.3), (INT, 0.0), (TERM, 0.0)]),
    ],
)
def test_signals_during_imports_are_one_line(
    first: float, signals: Sequence[tuple[signal.Signals, float]], launcher: Launcher
) -> None:
    driver = launcher.start(*launcher.options)
    launcher.wait_until(lambda: handles(driver.pid, TERM), driver)  # Python starts slowly on a busy machine
    time.sleep(first)
    for each, pause in signals:
        driver.send_signal(each)
        time.sleep(pause)
    assert driver.wait() == 130, launcher.log
    assert launcher.log.splitlines()[-1].startswith("launch.py: interrupted before ")
    assert launcher.log.count("interrupted") == 1
    assert quiet(launcher.log)
    assert not left_of(launcher.storage / "cache")


def test_lost_terminal_is_a_stop(launcher: Launcher) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which nohup would have ignored
    try:
        driver = launcher.start(*launcher.options)
    finally:
        signal.signal(signal.SIGHUP, before)
    launcher.wait_until(lambda: handles(driver.pid, signal.SIGHUP), driver)
    driver.send_signal(signal.SIGHUP)
    assert driver.wait() == 130, launcher.log
    assert quiet(launcher.log)


def handles(pid: int, each: signal.Signals) -> bool:
    """Whether a process has a handler for a signal."""
    status = Path(f"/proc/{pid}/status").read_text()
    caught = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught, 16) >> (each - 1) & 1)


def test_signal_after_ctrl_c_does_not_cut_off_the_report(launcher: Launcher) -> None:
    driver = launcher.start(*launcher.options, "--augment", "off", "--epochs", "400", "--yes")
    launcher.wait_until(lambda: launcher.epochs("off") >= 1, driver)
    os.killpg(driver.pid, INT)  # as a terminal does
    time.sleep(2.5)
    driver.send_signal(TERM)
    assert driver.wait() == 130, launcher.log
    assert quiet(launcher.log)
    table = pd.read_csv(launcher.storage / "run" / "report" / "comparison_table.csv")
    assert table["status"].tolist() == ["interrupted"]
    assert "| running |" not in (launcher.storage / "run" / "STATUS.md").read_text()
    assert launcher.log.splitlines()[-1].startswith("interrupted; to resume: python launch.py --resume --name run")
    record = launcher.record("off")
    assert record is not None
    assert record.cause is Cause.STOPPED_BY_USER
    assert "SIGINT" in str(record.reason)
    assert not left_of(launcher.storage / "cache")
