"""Trials that hang, run out of memory or fill the disk: their recorded cause, and how they resume."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from filelock import FileLock

from sousaphone.config import TrainConfig
from sousaphone.runs.statuses import Cause
from sousaphone.runs.trial_record import TrialRecord
from sousaphone.sweep.failures import explain
from tests.sweep.conftest import Launcher, SmallDisk
from tests.training.test_resumable_trial import timeless, uninterrupted

pytestmark = pytest.mark.slow


def record_of(run: Path, trial_id: str) -> TrialRecord:
    record = TrialRecord.read(run / "trials" / trial_id)
    assert record is not None
    return record


def epochs(run: Path, trial_id: str) -> int:
    record = TrialRecord.read(run / "trials" / trial_id)
    return len(record.history) if record else 0


def planned(run: Path, trial_id: str) -> TrainConfig:
    plan = json.loads((run / "run.json").read_text())
    return TrainConfig(**plan["trials"][plan["trial_ids"].index(trial_id)])


def test_hung_trial_is_ended_with_a_stack_dump_and_retried_alone(launcher: Launcher) -> None:
    run, hung = launcher.storage / "run", "efficientat-lora-aug-off-s0"
    other = "ast-lora-aug-off-s0"
    options = ["--models", "efficientat", "--augment", "off", "--epochs", "2"]
    driver = launcher.start(*launcher.options, *options, "--max-concurrent", "1", "--stall-timeout", "15s")
    launcher.wait_until((run / "run.json").exists, driver)
    # The only trial at 32 kHz finds no waveforms, and waits for the lock of the process that seems to decode them.
    with FileLock(launcher.storage / "cache" / ".lock"):
        (waveforms,) = (launcher.storage / "cache").glob("*-32000hz")
        shutil.rmtree(waveforms)
        assert driver.wait() == 1, launcher.log
    assert "Traceback" not in launcher.log
    assert f"{hung}  failed: " in launcher.log
    assert record_of(run, hung).cause is Cause.HUNG
    assert str(run / "trials" / hung / "stacks.txt") in str(record_of(run, hung).reason)
    assert "build.py" in (run / "trials" / hung / "stacks.txt").read_text()
    assert record_of(run, other).status == "completed"
    before = (run / "trials" / other / "trial.json").stat().st_mtime_ns

    resumed = launcher.start("--resume", "--retry-failed")
    assert resumed.wait() == 0, launcher.log
    assert record_of(run, hung).status == "completed"
    assert timeless(record_of(run, hung).history) == uninterrupted(planned(run, hung))
    assert (run / "trials" / other / "trial.json").stat().st_mtime_ns == before
    assert [path.name for path in (run / "tune").iterdir()] == ["001"]


def test_trial_killed_by_ray_for_memory_restarts_with_half_the_micro_batch(launcher: Launcher) -> None:
    launcher.environment |= {"RAY_memory_monitor_refresh_ms": "100", "RAY_memory_usage_threshold": "0.01"}
    driver = launcher.start(*launcher.options, "--augment", "off", "--epochs", "400", "--yes")
    assert driver.wait() == 1, launcher.log
    assert "Traceback" not in launcher.log
    record = record_of(launcher.storage / "run", "ast-lora-aug-off-s0")
    assert (record.cause, record.oom_retries) == (Cause.MEMORY, 1), launcher.log


def test_full_disk_interrupts_the_trials_free_space_lets_them_finish_and_a_report_needs_inodes(
    launcher: Launcher, small_disk: SmallDisk
) -> None:
    run, trial_id = small_disk.seen / "run", "ast-lora-aug-off-s0"
    begin = [*launcher.options, "--augment", "off", "--epochs", "30", "--no-baselines"]
    driver = small_disk.start(launcher, *begin)
    launcher.wait_until(lambda: epochs(run, trial_id) >= 2, driver)
    small_disk.fill()
    assert driver.wait() == 1, launcher.log
    assert "Traceback" not in launcher.log
    assert f"{trial_id}  interrupted: " in launcher.log
    assert "disk is full" in launcher.log
    assert 2 <= epochs(run, trial_id) < 30

    # No run starts there.
    assert small_disk.start(launcher, *begin, name="other").wait() == 2, launcher.log
    assert "Traceback" not in launcher.log
    assert not (small_disk.seen / "other").exists()

    small_disk.free()
    resumed = small_disk.start(launcher, "--resume")
    launcher.wait_until(lambda: record_of(run, trial_id).status == "completed", resumed)
    small_disk.fill_inodes()
    assert resumed.wait() == 1, launcher.log
    assert f"{trial_id}  completed" in launcher.log
    assert not (run / "report" / "comparison_table.csv").exists()
    assert "Traceback" not in launcher.log
    assert timeless(record_of(run, trial_id).history) == uninterrupted(planned(run, trial_id))


@pytest.mark.parametrize(
    ("ray_error", "cause"),
    [
        (None, Cause.WORKER_DIED),
        ("Task was killed due to the node running low on memory.\nMemory on the node was 15.9GB", Cause.MEMORY),
        ("OSError: [Errno 28] No space left on device", Cause.DISK_FULL),
        ("Traceback\n  ...\nray.exceptions.ActorDiedError: The actor died unexpectedly", Cause.ERROR),
    ],
)
def test_cause_is_found_in_rays_error_and_keeps_the_time_of_the_end(
    ray_error: str | None, cause: Cause, tmp_path: Path
) -> None:
    ended = "2026-01-01T00:00:00+00:00"
    record = TrialRecord("trial", {}, status="failed", ended=ended)
    explain(record, tmp_path / "trials" / "trial", ray_error)
    assert (record.status, record.cause, record.ended) == (cause.status, cause, ended)
    assert record.reason == record.error
    if cause is Cause.ERROR:
        assert record.reason == "ray.exceptions.ActorDiedError: The actor died unexpectedly"


def test_each_end_for_memory_adds_an_oom_retry_up_to_two(tmp_path: Path) -> None:
    record = TrialRecord("trial", {}, status="failed")
    for oom_retries in (1, 2, 2):
        explain(record, tmp_path / "trials" / "trial", "Task was killed due to the node running low on memory.")
        assert record.oom_retries == oom_retries
