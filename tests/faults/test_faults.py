"""Kills at some points of a run; `python -m tests.faults` kills at every one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
SAFETENSORS = [f"{part}.safetensors" for part in ("model", "best", "optimizer")]
ROOT = Path(__file__).resolve().parents[2]


def _faults(*options: str) -> subprocess.CompletedProcess[str]:
    """In a separate process: it forks, which a process with the threads of other tests should not."""
    command = [sys.executable, "-m", "tests.faults", *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def points() -> list[tuple[str, str]]:
    """Kind and file of every point, in order."""
    lines = [line.split(maxsplit=1)[1] for line in _faults("--list").stdout.splitlines()]
    return [(kind, path) for kind, path in (line.rsplit(maxsplit=1) for line in lines)]


def test_points_cover_write_flush_and_rename_of_every_kind_of_file(points: list[tuple[str, str]]) -> None:
    seen = set(points)
    trial = "trials/ast-lora-aug-on-s0/"
    files = ["driver.json", "run.json", "STATUS.md", "report/comparison_table.csv", "report/report.html"]
    files += [
        trial + name for name in ("trial.json", "predictions.parquet", "predictions_val.parquet", "adapter.safetensors")
    ]
    for path in map(Path, files):
        temporary = str(path.with_name(f".{path.name}.*.tmp"))
        assert {("torn write", temporary), ("fsync", temporary), ("rename", str(path))} <= seen
    for epoch in (1, 2, 3):
        final = f"{trial}checkpoints/epoch_{epoch:04d}-*"
        temporary = f"{trial}checkpoints/.epoch_{epoch:04d}-*.*.tmp"
        for name in ("state.json", *SAFETENSORS, "manifest.json"):
            assert {("torn write", f"{temporary}/{name}"), ("fsync", f"{temporary}/{name}")} <= seen
        assert {("mkdir", temporary), ("fsync", temporary), ("rename", final)} <= seen
        # Two checkpoints are kept.
        assert (("unlink", f"{final}/state.json") in seen) == (epoch == 1)
    assert {("open", f"{trial}events.out.tfevents.*"), ("torn write", f"{trial}events.out.tfevents.*")} <= seen
    assert points.count(("end", ".")) == 2  # of the training and of the report


def test_every_rename_follows_a_flush_and_precedes_one_of_its_directory(points: list[tuple[str, str]]) -> None:
    renamed = [number for number, (kind, path) in enumerate(points) if kind == "rename" and "heartbeat" not in path]
    assert len(renamed) > 20
    for number in renamed:
        path = Path(points[number][1])
        before, after = points[number - 1], points[number + 1]
        assert before[0] == "fsync"
        assert before[1].startswith(str(path.with_name(f".{path.name}.")))
        assert after == ("fsync", str(path.parent))


def test_resume_of_a_killed_run_leaves_what_an_uninterrupted_run_leaves() -> None:
    process = _faults("--every", "31")
    assert process.returncode == 0, process.stdout + process.stderr
