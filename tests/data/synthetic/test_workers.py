"""Worker processes that generate the built-in set end with the process that started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest


def generating(target: Path, **options: Any) -> psutil.Popen:
    """Start a process that generates a set with two workers."""
    script = target.with_suffix(".py")
    script.write_text(
        "from pathlib import Path\nfrom sousaphone.data.synthetic.generate import generate\n"
        f"if __name__ == '__main__':\n    generate(Path({str(target)!r}), 400, 3, workers=2)\n"
    )
    return psutil.Popen([sys.executable, script], **options)


@pytest.mark.slow
def test_workers_exit_with_a_killed_parent(tmp_path: Path) -> None:
    target = tmp_path / "set"
    process = generating(target, stderr=subprocess.DEVNULL)
    while len(list(target.glob("audio/*/*.flac"))) < 3:
        assert process.poll() is None, "it finished before it was killed"
        time.sleep(0.01)
    workers = process.children(recursive=True)
    assert len(workers) >= 2
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert not alive


def test_ctrl_c_while_workers_start_is_one_traceback(tmp_path: Path) -> None:
    """A terminal sends Ctrl-C to every process of its foreground group."""
    process = generating(tmp_path / "set", stderr=subprocess.PIPE, text=True, start_new_session=True)
    while not [child for child in process.children() if "spawn_main" in " ".join(child.cmdline())]:
        assert process.poll() is None
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate()
    assert errors.count("Traceback") == 1
    assert errors.splitlines()[-1] == "KeyboardInterrupt"
