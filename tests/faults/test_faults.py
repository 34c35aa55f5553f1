"""Deaths at points of a run's life, in a short form: `python -m tests.faults` dies at every one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def _faults(*options: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own: it forks, which one that has run other tests, and has threads, should not."""
    command = [sys.executable, "-m", "tests.faults", *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_every_kind_of_file_is_seen_while_it_is_written_flushed_and_renamed() -> None:
    points = [line.split(maxsplit=1)[1] for line in _faults("--list").stdout.splitlines()]
    seen = {tuple(point.rsplit(maxsplit=1)) for point in points}
    trial = "trials/ast-lora-aug-on-s0/"
    whole = ["driver.json", "run.json", "STATUS.md", "report/comparison_table.csv", "report/report.html"]
    whole += [trial + name for name in ("trial.json", "predictions.parquet", "adapter.pt")]
    for path in map(Path, whole):
        temporary = str(path.with_name(f".{path.name}.*.tmp"))
        assert {("torn write", temporary), ("fsync", temporary), ("rename", str(path))} <= seen
    for epoch in (1, 2, 3):
        final = f"{trial}checkpoints/epoch_{epoch:04d}-*"
        temporary = f"{trial}checkpoints/.epoch_{epoch:04d}-*.tmp"
        for name in ("state.pt", "manifest.json"):
            assert {("torn write", f"{temporary}/{name}"), ("fsync", f"{temporary}/{name}")} <= seen
        assert {("mkdir", temporary), ("fsync", temporary), ("rename", final)} <= seen
        # Two are kept, and the first one is the oldest.
        assert (("unlink", f"{final}/state.pt") in seen) == (epoch == 1)
    assert {("open", f"{trial}events.out.tfevents.*"), ("torn write", f"{trial}events.out.tfevents.*")} <= seen
    assert points.count("end .") == 2  # of the training and of the report


@pytest.mark.slow
def test_a_run_that_dies_at_any_point_and_is_resumed_leaves_what_it_would_have_left() -> None:
    done = _faults("--every", "23")
    assert done.returncode == 0, done.stdout + done.stderr
