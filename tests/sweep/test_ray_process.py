"""Ray's runtime starts and stops repeatedly, and leaves no process behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.sweep.conftest import Launcher, environment_of, name_of

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
LOST = """
import psutil, ray, time
from contextlib import suppress
from functools import partial
from sousaphone.sweep.ray_process import Runtime, StoppedRayError

def kill(name):
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):  # others end meanwhile
            if process.name() == name:
                process.kill()

if __name__ == "__main__":
    with Runtime(False, "cpu") as runtime:
        runtime.start()
        runtime.wait()
        for name in ("gcs_server", "raylet"):
            try:
                runtime.call(time.sleep, 60.0, check=partial(kill, name))
            except StoppedRayError:
                print("lost", name)
            runtime.restart()
        assert [node["Alive"] for node in runtime.call(ray.nodes)] == [True]
        assert not ray.is_initialized()
        (driver,) = [p for p in psutil.Process().children() if "spawn_main" in " ".join(p.cmdline())]
        driver.kill()
        while driver.status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.05)
        try:
            runtime.call(ray.nodes)
        except StoppedRayError:
            print("lost driver")
"""


def test_lost_runtime_raises_restarts_and_leaves_no_process(tmp_path: Path) -> None:
    done = program(LOST, tmp_path)
    assert done.returncode == 0, done.stderr
    lost = [line for line in done.stdout.splitlines() if line.startswith("lost")]  # Ray may print, too
    assert lost == ["lost gcs_server", "lost raylet", "lost driver"]
    assert not left_of(tmp_path)


def test_refusal_while_ray_starts_is_one_line_and_leaves_no_process(launcher: Launcher) -> None:
    weights = launcher.storage / "weights.pt"
    weights.write_bytes(b"these are no weights")
    driver = launcher.start(*launcher.options, "--weights", f"ast={weights}")
    assert driver.wait() == 2, launcher.log
    assert "Traceback" not in launcher.log
    assert str(weights) in launcher.log.splitlines()[-1]
    assert not left_of(launcher.storage / "cache")
    assert not (launcher.storage / "run").exists()


@pytest.mark.parametrize(("planning", "stop"), [(False, signal.SIGINT), (True, signal.SIGTERM)])
def test_stop_while_ray_starts_or_the_launch_plans_leaves_no_process(
    planning: bool, stop: signal.Signals, launcher: Launcher
) -> None:
    driver = launcher.start(*launcher.options, "--timing")
    launcher.wait_until(lambda: "2 trials of" in launcher.log if planning else has_child(driver, "gcs_server"), driver)
    driver.send_signal(stop)
    assert driver.wait() == 130, launcher.log
    assert launcher.log.splitlines()[-1].startswith("launch.py: interrupted before")
    assert "Traceback" not in launcher.log
    assert not left_of(launcher.storage / "cache")


def program(code: str, mark: Path) -> subprocess.CompletedProcess[str]:
    """Run a program whose processes have the mark in their environment."""
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "SOUSAPHONE_CACHE": str(mark)},
        capture_output=True,
        text=True,
    )


def left_of(mark: Path) -> list[psutil.Process]:
    """Return the processes that still run after some seconds: a worker ends after its raylet."""
    marked = [p for p in psutil.process_iter() if environment_of(p).get("SOUSAPHONE_CACHE") == str(mark)]
    return psutil.wait_procs(marked, timeout=10)[1]


def has_child(driver: subprocess.Popen[str], name: str) -> bool:
    return any(name in name_of(child) for child in psutil.Process(driver.pid).children(recursive=True))
