"""Ctrl-C and SIGTERM, within one process."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sousaphone.sweep import signals

ROOT = Path(__file__).resolve().parents[2]


def test_a_stop_raises_once_and_those_that_follow_are_passed_over() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with signals.interrupts():
        with pytest.raises(KeyboardInterrupt, match="SIGTERM"):
            signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_deferred_stop_comes_at_the_end_of_the_block() -> None:
    done = []

    def work() -> None:
        with signals.stops_deferred():
            signal.raise_signal(signal.SIGTERM)
            done.append("all of it")

    with signals.interrupts(), pytest.raises(KeyboardInterrupt, match="SIGTERM"):
        work()
    assert done


def test_one_that_a_finaliser_swallows_comes_again() -> None:
    class Slow:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGTERM)

    def work() -> None:
        Slow()
        time.sleep(5.0)

    with signals.interrupts(), pytest.raises(KeyboardInterrupt, match="SIGTERM"):
        work()


def test_at_a_programs_start_it_is_a_line_and_an_exit_code() -> None:
    code = (
        "import signal\nfrom sousaphone.sweep import signals\nsignals.exit_on_stop('stopped')\n"
        "try:\n    signal.raise_signal(signal.SIGTERM)\nfinally:\n    signal.raise_signal(signal.SIGINT)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "\nstopped\n")
