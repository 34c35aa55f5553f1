"""Handling of Ctrl-C and SIGTERM within a process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sousaphone import signals

ROOT = Path(__file__).resolve().parents[1]


def test_first_stop_raises_and_later_ones_are_ignored() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with signals.interrupts():
        with pytest.raises(KeyboardInterrupt, match="SIGTERM"):
            signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) == before


def test_deferred_stop_raises_at_the_end_of_the_block() -> None:
    done = []

    def work() -> None:
        with signals.stops_deferred():
            signal.raise_signal(signal.SIGTERM)
            done.append("all of it")

    with signals.interrupts(), pytest.raises(KeyboardInterrupt, match="SIGTERM"):
        work()
    assert done


BLOCKED = """
import multiprocessing, signal
from sousaphone.signals import STOPS, starts_process
def check():
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set(STOPS)
if __name__ == "__main__":
    process = multiprocessing.get_context("spawn").Process(target=check)
    with starts_process():
        process.start()
    process.join()
    raise SystemExit(process.exitcode)
"""


def test_first_process_that_is_started_in_the_block_has_stops_blocked(tmp_path: Path) -> None:
    (tmp_path / "blocked.py").write_text(BLOCKED)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, tmp_path / "blocked.py"], env=environment, check=True)


def test_stop_in_a_finaliser_is_repeated() -> None:
    class Slow:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGTERM)

    def work() -> None:
        Slow()
        time.sleep(5.0)

    with signals.interrupts(), pytest.raises(KeyboardInterrupt, match="SIGTERM"):
        work()


def test_stop_at_the_start_of_a_program_is_one_line_and_an_exit_code() -> None:
    code = (
        "import signal\nfrom sousaphone import signals\nsignals.exit_on_stop('stopped')\n"
        "try:\n    signal.raise_signal(signal.SIGTERM)\nfinally:\n    signal.raise_signal(signal.SIGINT)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "\nstopped\n")
