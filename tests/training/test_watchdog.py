"""Time limits, heartbeat and hang detection."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sousaphone.runs.directory import Limits
from sousaphone.runs.statuses import Cause
from sousaphone.training.watchdog import HEARTBEAT_NAME, STACKS_NAME, TimeLimitError, Watchdog, hang, read_heartbeat

ROOT = Path(__file__).resolve().parents[2]


def test_time_of_earlier_starts_counts_by_record_or_heartbeat(tmp_path: Path) -> None:
    assert Watchdog(tmp_path, Limits(), 50.0).seconds == pytest.approx(50, abs=20)
    (tmp_path / HEARTBEAT_NAME).write_text(json.dumps({"epoch": 3, "share": 0.5, "seconds": 80.0}))
    assert Watchdog(tmp_path, Limits(), 50.0).seconds == pytest.approx(80, abs=20)
    (tmp_path / HEARTBEAT_NAME).write_text("{torn")
    assert Watchdog(tmp_path, Limits(), 50.0).seconds == pytest.approx(50, abs=20)


def test_trial_limit_stops_ticks_but_not_beats(tmp_path: Path) -> None:
    with Watchdog(tmp_path, Limits(trial_seconds=100.0), 0.0) as watch:
        watch.tick(1, 0.5)
    with Watchdog(tmp_path, Limits(trial_seconds=7200.0), 7200.0) as watch:
        with pytest.raises(TimeLimitError, match=r"2 h .* epoch 7") as caught:
            watch.tick(7, 0.5)
        assert caught.value.cause is Cause.TRIAL_TIME_LIMIT
        watch.beat(7, 0.5)


def test_deadline_of_the_sweep_stops_the_trial(tmp_path: Path) -> None:
    watch = Watchdog(tmp_path, Limits(deadline=time.monotonic() + 60), 0.0)
    assert not watch.too_late
    watch.tick(1, 0.5)
    watch = Watchdog(tmp_path, Limits(deadline=time.monotonic() - 1), 0.0)
    assert watch.too_late
    with pytest.raises(TimeLimitError, match=r"sweep.* epoch 2") as caught:
        watch.tick(2, 0.5)
    assert caught.value.cause is Cause.SWEEP_TIME_LIMIT


def test_heartbeat_contains_the_progress_and_is_removed_at_the_end(tmp_path: Path) -> None:
    with Watchdog(tmp_path, Limits(), 10.0) as watch:
        assert read_heartbeat(tmp_path) is None
        watch.tick(4, 0.25)
        beat = read_heartbeat(tmp_path)
        assert beat is not None
        assert (beat["epoch"], beat["share"]) == (4, 0.25)
        assert beat["seconds"] >= 10
    assert read_heartbeat(tmp_path) is None


def run_watched(directory: Path, body: str) -> subprocess.CompletedProcess[str]:
    """Run `body` in a process under a watchdog with a stall limit of three seconds."""
    program = (
        "import sys, time; from pathlib import Path; from sousaphone.runs.directory import Limits\n"
        "from sousaphone.training.watchdog import Watchdog\n"
        "def wait_forever(): time.sleep(60)\n"
        f"with Watchdog(Path(sys.argv[1]), Limits(stall_seconds=3.0), 0.0) as watch:\n    {body}\nprint('ended')"
    )
    command = [sys.executable, "-c", program, str(directory)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_hung_process_ends_and_leaves_its_stacks(tmp_path: Path) -> None:
    done = run_watched(tmp_path, "wait_forever()")
    assert done.returncode == 1
    assert "ended" not in done.stdout
    assert "in wait_forever" in (tmp_path / STACKS_NAME).read_text()
    assert str(tmp_path / STACKS_NAME) in str(hang(tmp_path))


def test_slow_process_that_ticks_is_not_hung(tmp_path: Path) -> None:
    done = run_watched(tmp_path, "[(time.sleep(0.1), watch.tick(1, 0.5)) for _ in range(40)]")
    assert done.returncode == 0, done.stderr
    assert "ended" in done.stdout
    assert list(tmp_path.iterdir()) == []
    assert hang(tmp_path) is None
