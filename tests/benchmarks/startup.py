"""The time of launch.py until it prints its help, its plan and the first epoch of one step."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from .setting import wait_until_idle

ROOT = Path(__file__).parents[2]
REPEATS = 3
# One backbone, one training step, one evaluation batch, no timing and no baselines.
FIRST_STEP = (
    *("--models", "ast", "--augment", "off", "--epochs", "1", "--no-timing", "--no-baselines"),
    *("--set", "limit_train_batches=1", "limit_eval_batches=1"),
)


def launch(options: Sequence[str], scratch: Path, until: str | None = None) -> tuple[float, float]:
    """Run launch.py. Return the seconds until it exits, or until it prints `until`, and its processor seconds (0 with
    `until`).

    Raises:
        RuntimeError: it failed, or did not print `until`.
    """
    began, processor = time.perf_counter(), os.times()
    process = subprocess.Popen(
        [sys.executable, "launch.py", *options],
        cwd=ROOT,
        env={**os.environ, "SOUSAPHONE_CACHE": str(scratch / "builtin"), "PYTHONWARNINGS": "ignore"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    lines, reached = [], None
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line)
        if until is not None and reached is None and until in line:
            reached = time.perf_counter() - began
    process.wait()
    after = os.times()
    if process.returncode or (until is not None and reached is None):
        raise RuntimeError(f"launch.py {' '.join(options)}: exit code {process.returncode}\n{''.join(lines[-15:])}")
    if reached is not None:
        return reached, 0.0
    used = after.children_user + after.children_system - processor.children_user - processor.children_system
    return time.perf_counter() - began, used


def measure(scratch: Path, log: Callable[[str], None]) -> dict[str, tuple[float, float]]:
    """Wall and processor seconds by command, the best of several rounds in turn; files are in the page cache."""
    from sousaphone.data.synthetic.generate import builtin_dataset

    storage = ("--storage", str(scratch / "starts"))
    builtin_dataset(scratch / "builtin", "tiny")
    best: dict[str, tuple[float, float]] = {}
    for number in range(REPEATS):
        commands: dict[str, tuple[Sequence[str], str | None]] = {
            "--help": (["--help"], None),
            "--plan --no-timing": (["--plan", "--no-timing", *storage], None),
            "first epoch of one step": ([*FIRST_STEP, "--name", f"first{number}", *storage], "epoch 1/1"),
        }
        for name, (options, until) in commands.items():
            wait_until_idle()
            found = launch(options, scratch, until)
            known = best.get(name, found)
            best[name] = min(known[0], found[0]), min(known[1], found[1])
            log(f"{name}: {found[0]:.2f} s")
    return best
