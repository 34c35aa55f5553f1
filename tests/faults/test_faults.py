"""Kills at some points of a run; `python -m tests.faults` kills at every one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
SAFETENSORS = [f"{part}.safetensors" for part in ("model", "best", "optimizer")]
ROOT = Path(__file__).resolve().parents[2]
EVERY = 31
PROGRAM = f"""
import json, sys
from pathlib import Path
from tests.faults.killed_runs import KilledRuns
runs = KilledRuns(Path(sys.argv[1]))
points = [(case.kind, case.path) for case in runs.cases]
print(json.dumps([points, {{str(case): runs.faults(case) for case in runs.cases[::{EVERY}]}}]))
"""


def test_resume_of_a_killed_run_leaves_what_an_uninterrupted_run_leaves(tmp_path: Path) -> None:
    """In one test, because worker processes would each train the uninterrupted run."""
    # In a separate process: it forks, which a process with the threads of other tests should not.
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    points, found = json.loads(done.stdout.splitlines()[-1])
    assert len(found) == len(points[::EVERY]) > 10
    assert not any(found.values()), found
    check_points([(kind, path) for kind, path in points])
    check_renames([(kind, path) for kind, path in points])


def check_points(points: list[tuple[str, str]]) -> None:
    """They cover write, flush and rename of every kind of file."""
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


def check_renames(points: list[tuple[str, str]]) -> None:
    """Each follows a flush and precedes one of its directory."""
    renamed = [number for number, (kind, path) in enumerate(points) if kind == "rename" and "heartbeat" not in path]
    assert len(renamed) > 20
    for number in renamed:
        path = Path(points[number][1])
        before, after = points[number - 1], points[number + 1]
        assert before[0] == "fsync"
        assert before[1].startswith(str(path.with_name(f".{path.name}.")))
        assert after == ("fsync", str(path.parent))
