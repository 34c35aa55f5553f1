"""launch.py as a user starts it, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psutil
import pytest

from sousaphone.runs.trial_record import TrialRecord

ROOT = Path(__file__).resolve().parents[2]
EPOCHS = 8


class Launcher:
    """launch.py as a user starts it, on a small data set, with everything it writes under one directory."""

    def __init__(self, data: Path, storage: Path) -> None:
        self.storage = storage
        self.environment = {**os.environ, "SOUSAPHONE_CACHE": str(storage / "cache")}
        settings = ["clip_seconds=1.0", "micro_batch=2", "accumulation=1", "learning_rate=0.001", "patience=99"]
        self.options = ["--data-dir", str(data), "--models", "ast", "--scale", "nano", "--epochs", str(EPOCHS)]
        self.options += ["--set", *settings]

    def start(self, *options: str, name: str = "run", under: Sequence[str] = ()) -> subprocess.Popen[str]:
        """Baselines are measured where a test asks for them, with --baselines. `under` is a command that runs it."""
        command = [
            *under,
            sys.executable,
            str(ROOT / "launch.py"),
            "--name",
            name,
            "--storage",
            str(self.storage),
            *options,
        ]
        command += [] if "--baselines" in options else ["--no-baselines"]
        log = (self.storage / "log.txt").open("a")
        return subprocess.Popen(
            command, cwd=self.storage, env=self.environment, stdout=log, stderr=log, text=True, start_new_session=True
        )

    @property
    def log(self) -> str:
        return (self.storage / "log.txt").read_text()

    def record(self, augment: str) -> TrialRecord | None:
        return TrialRecord.read(self.storage / "run" / "trials" / f"ast-lora-aug-{augment}-s0")

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
    yield Launcher(small_sousa, tmp_path)
    for process in psutil.process_iter():
        # All that a launcher starts, and nothing else, has its cache directory in the environment.
        if environment_of(process).get("SOUSAPHONE_CACHE") == str(tmp_path / "cache"):
            process.kill()


def environment_of(process: psutil.Process) -> dict[str, str]:
    try:
        environment: dict[str, str] = process.environ()
    except psutil.Error:
        return {}
    return environment
