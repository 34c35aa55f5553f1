"""Ray's runtime comes and goes, as often as it is asked for, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.sweep.conftest import Launcher, environment_of

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
TWICE = """
import ray
from sousaphone.sweep.runtime import ray_runtime
for _ in range(2):
    with ray_runtime(False, "cpu", print):
        assert ray.get(ray.remote(lambda: 6 * 7).remote()) == 42
    assert not ray.is_initialized()
print("done")
"""


LOST = """
import os, psutil, time
from sousaphone.sweep.runtime import ray_runtime
def lose():
    print("lost", flush=True)
    os._exit(7)
with ray_runtime(False, "cpu", print, lose):
    time.sleep(1.0)
    for process in psutil.Process().children():
        if process.name() in ("gcs_server", "raylet"):
            process.kill()
    time.sleep(30.0)
"""


GARBAGE = """
import threading
import ray
from sousaphone.sweep.runtime import ray_runtime
class Knot:
    def __init__(self, reference):
        self.reference, self.itself = reference, self
left = threading.Event()
def tie():
    while not left.is_set():
        Knot(references.pop())
        [[] for _ in range(20_000)]  # so much that garbage is collected
with ray_runtime(False, "cpu", print):
    references = [ray.put(0) for _ in range(4_000)]
    threading.Thread(target=tie).start()
left.set()
print("done" if references else "too few references")
"""


def test_a_runtime_that_is_left_makes_room_for_another_and_its_processes_are_gone_when_the_program_is(
    tmp_path: Path,
) -> None:
    done = program(TWICE, tmp_path)
    assert done.stdout.split() == ["done"], done.stderr
    assert not left_of(tmp_path)


def test_a_runtime_that_is_lost_is_told_of_at_once_and_none_of_its_processes_lingers(tmp_path: Path) -> None:
    done = program(LOST, tmp_path)
    assert (done.stdout.split(), done.returncode) == (["lost"], 7), done.stderr
    assert not left_of(tmp_path)


def test_garbage_of_another_thread_that_holds_something_of_rays_does_not_end_the_program_amid_rays_end(
    tmp_path: Path,
) -> None:
    done = program(GARBAGE, tmp_path)
    assert (done.stdout.split(), done.returncode) == (["done"], 0), done.stderr


def test_what_is_refused_once_ray_is_up_is_one_line_and_leaves_no_process(launcher: Launcher) -> None:
    weights = launcher.storage / "weights.pt"
    weights.write_bytes(b"these are no weights")
    driver = launcher.start(*launcher.options, "--weights", f"ast={weights}")
    launcher.wait_until(lambda: has_child(driver, "raylet"), driver)
    assert driver.wait(timeout=60) == 2, launcher.log
    assert "Traceback" not in launcher.log
    assert str(weights) in launcher.log.splitlines()[-1]
    assert not left_of(launcher.storage / "cache")
    assert not (launcher.storage / "run").exists()


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("planning", [False, True])
def test_a_stop_while_ray_starts_or_while_the_launch_plans_ends_it_at_once_and_leaves_no_process(
    planning: bool, stop: signal.Signals, launcher: Launcher
) -> None:
    driver = launcher.start(*launcher.options, "--timing")
    launcher.wait_until(lambda: "2 trials of" in launcher.log if planning else has_child(driver, "gcs_server"), driver)
    driver.send_signal(stop)
    assert driver.wait(timeout=15) == 130, launcher.log
    assert launcher.log.splitlines()[-1] == "launch.py: interrupted before the run began; nothing to resume"
    assert "Traceback" not in launcher.log
    assert not left_of(launcher.storage / "cache")


def program(code: str, mark: Path) -> subprocess.CompletedProcess[str]:
    """All that it starts has the mark in its environment."""
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "SOUSAPHONE_CACHE": str(mark)},
        capture_output=True,
        text=True,
        timeout=120,
    )


def left_of(mark: Path) -> list[psutil.Process]:
    """What still runs; a worker sees its raylet go, and follows."""
    marked = [p for p in psutil.process_iter() if environment_of(p).get("SOUSAPHONE_CACHE") == str(mark)]
    return psutil.wait_procs(marked, timeout=10)[1]


def has_child(driver: subprocess.Popen[str], name: str) -> bool:
    return any(child.name() == name for child in psutil.Process(driver.pid).children())
