"""Ray's runtime comes and goes, as often as it is asked for, and leaves nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.sweep.conftest import environment_of

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


def test_a_runtime_that_is_left_makes_room_for_another_and_its_processes_are_gone_when_the_program_is(
    tmp_path: Path,
) -> None:
    mark = str(tmp_path)  # in the environment of all that the program starts
    done = subprocess.run(
        [sys.executable, "-c", TWICE],
        cwd=ROOT,
        env={**os.environ, "SOUSAPHONE_CACHE": mark},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.split() == ["done"], done.stderr
    left = [process for process in psutil.process_iter() if environment_of(process).get("SOUSAPHONE_CACHE") == mark]
    psutil.wait_procs(left, timeout=10)  # a worker sees its raylet go, and follows
    assert not [process for process in left if process.is_running()]
