"""How long the command line takes to answer, and to get to a first training step."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from .setting import rest

ROOT = Path(__file__).parents[2]
REPEATS = 3
# One step of one backbone, one batch of evaluation, nothing else measured.
FIRST_STEP = (
    *("--models", "ast", "--augment", "off", "--epochs", "1", "--no-timing", "--no-baselines"),
    *("--set", "limit_train_batches=1", "limit_eval_batches=1"),
)


def launch(words: Sequence[str], scratch: Path, until: str | None = None) -> tuple[float, float]:
    """Run launch.py: seconds until it ends, or until it prints `until`; and of processor time, 0 with `until`.

    Raises:
        RuntimeError: it failed, or never said so.
    """
    began, busy = time.perf_counter(), os.times()
    process = subprocess.Popen(
        [sys.executable, "launch.py", *words],
        cwd=ROOT,
        env={**os.environ, "SOUSAPHONE_CACHE": str(scratch / "builtin"), "PYTHONWARNINGS": "ignore"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    said, reached = [], None
    assert process.stdout is not None
    for line in process.stdout:
        said.append(line)
        if until is not None and reached is None and until in line:
            reached = time.perf_counter() - began
    process.wait()
    after = os.times()
    if process.returncode or (until is not None and reached is None):
        raise RuntimeError(f"launch.py {' '.join(words)} ended with {process.returncode}:\n{''.join(said[-15:])}")
    if reached is not None:
        return reached, 0.0
    used = after.children_user + after.children_system - busy.children_user - busy.children_system
    return time.perf_counter() - began, used


def measure(scratch: Path, say: Callable[[str], None]) -> dict[str, tuple[float, float]]:
    """Seconds of wall and of processor time by what is started, the best of some rounds in turn; files are warm."""
    storage = ("--storage", str(scratch / "starts"))
    from sousaphone.data.synthetic.generate import builtin_dataset

    builtin_dataset(scratch / "builtin", "tiny")
    best: dict[str, tuple[float, float]] = {}
    for number in range(REPEATS):
        ways: dict[str, tuple[Sequence[str], str | None]] = {
            "--help": (["--help"], None),
            "--plan --no-timing": (["--plan", "--no-timing", *storage], None),
            "first epoch of one step": ([*FIRST_STEP, "--name", f"first{number}", *storage], "epoch 1/1"),
        }
        for name, (words, until) in ways.items():
            rest()
            found = launch(words, scratch, until)
            known = best.get(name, found)
            best[name] = min(known[0], found[0]), min(known[1], found[1])
            say(f"{name}: {found[0]:.2f} s")
    return best
