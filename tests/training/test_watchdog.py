"""Time limits, the heartbeat, and the watch that ends a hung process."""

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


def test_time_of_earlier_starts_counts_and_a_killed_ones_heartbeat_may_know_of_more(tmp_path: Path) -> None:
    assert 50 <= Watchdog(tmp_path, Limits(), 50.0).seconds < 51
    (tmp_path / HEARTBEAT_NAME).write_text(json.dumps({"epoch": 3, "share": 0.5, "seconds": 80.0}))
    assert 80 <= Watchdog(tmp_path, Limits(), 50.0).seconds < 81
    (tmp_path / HEARTBEAT_NAME).write_text("{torn")
    assert 50 <= Watchdog(tmp_path, Limits(), 50.0).seconds < 51


def test_the_trials_limit_is_named_with_its_epoch_and_holds_up_no_beat(tmp_path: Path) -> None:
    with Watchdog(tmp_path, Limits(trial_seconds=100.0), 99.0) as watch:
        watch.tick(1, 0.5)
    with Watchdog(tmp_path, Limits(trial_seconds=7200.0), 7200.0) as watch:
        with pytest.raises(TimeLimitError, match="its time limit of 2 h was reached in epoch 7") as caught:
            watch.tick(7, 0.5)
        assert caught.value.cause is Cause.TRIAL_TIME_LIMIT
        watch.beat(7, 0.5)


def test_the_sweeps_deadline_stops_what_runs_and_what_has_not_begun_is_too_late(tmp_path: Path) -> None:
    watch = Watchdog(tmp_path, Limits(deadline=time.monotonic() + 60), 0.0)
    assert not watch.too_late
    watch.tick(1, 0.5)
    watch = Watchdog(tmp_path, Limits(deadline=time.monotonic() - 1), 0.0)
    assert watch.too_late
    with pytest.raises(TimeLimitError, match="the sweep's time limit was reached in its epoch 2") as caught:
        watch.tick(2, 0.5)
    assert caught.value.cause is Cause.SWEEP_TIME_LIMIT


def test_the_heartbeat_tells_of_work_in_progress_and_is_gone_at_the_end(tmp_path: Path) -> None:
    with Watchdog(tmp_path, Limits(), 10.0) as watch:
        assert read_heartbeat(tmp_path) is None
        watch.tick(4, 0.25)
        beat = read_heartbeat(tmp_path)
        assert beat is not None
        assert (beat["epoch"], beat["share"]) == (4, 0.25)
        assert beat["seconds"] >= 10
    assert read_heartbeat(tmp_path) is None


def _live(directory: Path, body: str) -> subprocess.CompletedProcess[str]:
    """A process that does `body` under a watch with a stall limit of a second."""
    program = (
        "import sys, time; from pathlib import Path; from sousaphone.runs.directory import Limits\n"
        "from sousaphone.training.watchdog import Watchdog\n"
        "def wait_for_ever(): time.sleep(60)\n"
        f"with Watchdog(Path(sys.argv[1]), Limits(stall_seconds=1.0), 0.0) as watch:\n    {body}\nprint('ended')"
    )
    command = [sys.executable, "-c", program, str(directory)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=50)


def test_a_hung_process_ends_itself_and_leaves_the_place_on_record(tmp_path: Path) -> None:
    done = _live(tmp_path, "wait_for_ever()")
    assert done.returncode == 1
    assert "ended" not in done.stdout
    assert "in wait_for_ever" in (tmp_path / STACKS_NAME).read_text()
    said = hang(tmp_path)
    assert said is not None
    assert str(tmp_path / STACKS_NAME) in said


def test_a_slow_process_that_ticks_is_not_hung_and_leaves_nothing_behind(tmp_path: Path) -> None:
    done = _live(tmp_path, "[(time.sleep(0.1), watch.tick(1, 0.5)) for _ in range(15)]")
    assert done.returncode == 0, done.stderr
    assert "ended" in done.stdout
    assert list(tmp_path.iterdir()) == []
    assert hang(tmp_path) is None
