"""Reading trials: one row per planned trial, from the newer of its record and Ray's log."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from analysis.load.ray_log import RayTrial
from analysis.load.trials import Trial, read_trials
from sousaphone.errors import UserError
from sousaphone.runs.directory import SCHEMA, RunDirectory
from sousaphone.runs.statuses import Cause, Status
from tests.analysis.run_builders import arm, history, record, trial_id, write_run

CONFIG = arm()
ID = trial_id(CONFIG)
LATER, BEFORE = time.time() + 86_400, time.time() - 86_400


def reported(epochs: int, test: bool, seconds_from_now: float = 60.0) -> list[dict[str, float]]:
    """Return reports with timestamps, as in Ray's log."""
    return [{**row, "timestamp": time.time() + seconds_from_now} for row in history(epochs, 0, test)]


def out_of_patience(rows: list[dict[str, float]]) -> list[dict[str, float]]:
    """Set the best epoch so that the patience has run out."""
    rows[-1]["best_epoch"] = rows[-1]["epoch"] - CONFIG["patience"]
    return rows


def read(run: RunDirectory, ray: dict[str, RayTrial] | None = None) -> list[Trial]:
    return read_trials(run, run.read_plan(), ray or {})


def test_trial_that_has_not_started_is_pending(tmp_path: Path) -> None:
    (trial,) = read(write_run(tmp_path, [CONFIG]))
    assert (trial.status, trial.history, trial.best, trial.train_seconds) == ("pending", [], {}, None)
    assert trial.git_commit.startswith("0123")


def test_running_trial_without_a_driver_is_interrupted(tmp_path: Path) -> None:
    run = write_run(tmp_path, [CONFIG], [record(CONFIG, "running", epochs=2)])
    assert read(run)[0].status == "interrupted"
    with run.held():
        assert read(run)[0].status == "running"


def test_trials_keep_the_order_of_the_plan(tmp_path: Path) -> None:
    plan = [arm(m, seed=s) for s in (3, 1) for m in ("efficientat", "ast")]
    trials = read(write_run(tmp_path, plan, [record(plan[2], "completed")]))
    assert [trial.trial_id for trial in trials] == [trial_id(config) for config in plan]


@pytest.mark.parametrize(
    "content",
    [
        '{"trial_id": "x", "conf',
        "[1, 2]",
        "{}",
        "\x00\x01",
        '{"trial_id": "x", "config": {}, "history": 3, "updated": "2026-01-01T00:00:00+00:00"}',
        '{"trial_id": "x", "config": {}, "status": "done", "updated": "2026-01-01T00:00:00+00:00"}',
        '{"trial_id": "x", "config": {}, "status": 3, "updated": "2026-01-01T00:00:00+00:00"}',
        '{"trial_id": "x", "config": {}, "status": "failed", "cause": "luck", "updated": "2026-01-01T00:00:00+00:00"}',
        '{"trial_id": "x", "config": {}, "parameters": [], "updated": "2026-01-01T00:00:00+00:00"}',
        '{"trial_id": "x", "config": {}}',
        '{"trial_id": "x", "config": {}, "updated": null}',
    ],
)
def test_damaged_record_does_not_affect_other_trials(tmp_path: Path, content: str) -> None:
    other = arm(seed=1)
    run = write_run(tmp_path, [CONFIG, other], [record(CONFIG, "completed"), record(other, "completed")])
    (run.trial(ID) / "trial.json").write_text(content)
    damaged, whole = read(run)
    assert damaged.status == "failed"
    assert "trial.json" in (damaged.error or "")
    assert whole.status == "completed"


def test_damaged_record_is_replaced_by_rays_log(tmp_path: Path) -> None:
    run = write_run(tmp_path, [CONFIG], [record(CONFIG, "completed")])
    (run.trial(ID) / "trial.json").write_text("{")
    (trial,) = read(run, {ID: RayTrial("TERMINATED", history(3, 0, test=True))})
    assert (trial.status, len(trial.history)) == ("completed", 3)
    assert "trial.json" in (trial.error or "")


def test_newer_record_overrides_rays_log(tmp_path: Path) -> None:
    run = write_run(tmp_path, [CONFIG], [record(CONFIG, "completed")])
    (trial,) = read(run, {ID: RayTrial("RUNNING", history(1, 0, test=False))})
    assert (trial.status, len(trial.history)) == ("completed", 3)


def test_newer_log_of_ray_overrides_the_record(tmp_path: Path) -> None:
    run = write_run(tmp_path, [CONFIG], [record(CONFIG, "running", epochs=1)])
    (trial,) = read(run, {ID: RayTrial("TERMINATED", reported(3, test=True))})
    assert (trial.status, len(trial.history)) == ("completed", 3)
    assert trial.parameters["trainable"] == 60_000  # only in the record


def test_killed_worker_has_the_status_of_rays_error(tmp_path: Path) -> None:
    run = write_run(tmp_path, [CONFIG], [record(CONFIG, "running", epochs=2)])
    seen = history(2, 0, test=False)
    (trial,) = read(run, {ID: RayTrial("ERROR", seen, "ray.exceptions.OutOfMemoryError: killed", LATER)})
    assert (trial.status, trial.error) == ("out_of_memory", "ray.exceptions.OutOfMemoryError: killed")
    (trial,) = read(run, {ID: RayTrial("ERROR", seen, "ActorDiedError: gone", LATER)})
    assert trial.status == "failed"


def test_error_of_an_earlier_start_is_ignored(tmp_path: Path) -> None:
    run = write_run(tmp_path, [CONFIG], [record(CONFIG, "running", epochs=2)])
    (trial,) = read(run, {ID: RayTrial("ERROR", history(2, 0, test=False), "RuntimeError: x", BEFORE)})
    assert (trial.status, trial.error) == ("interrupted", None)


def test_rays_log_of_an_earlier_start_is_ignored(tmp_path: Path) -> None:
    """A trial that Ray stopped at its time limit continues in an experiment without a state, possibly from an earlier
    epoch if its newest checkpoint was lost."""
    for epochs in (2, 1):
        run = write_run(tmp_path / f"{epochs}", [CONFIG], [record(CONFIG, "running", epochs=epochs)])
        (trial,) = read(run, {ID: RayTrial("TERMINATED", reported(2, test=False, seconds_from_now=-60))})
        assert (trial.status, len(trial.history)) == ("interrupted", epochs)


def test_status_of_an_ended_trial_overrides_rays_error(tmp_path: Path) -> None:
    run = write_run(tmp_path, [CONFIG], [record(CONFIG, "interrupted", epochs=2, error="OSError: the disk is full")])
    (trial,) = read(run, {ID: RayTrial("ERROR", reported(2, test=False), "OSError: x", LATER)})
    assert (trial.status, trial.why) == ("interrupted", "Ctrl-C; OSError: the disk is full")


def test_cause_is_read_from_the_record_if_present(tmp_path: Path) -> None:
    stopped = record(CONFIG, "time_limit", epochs=1)
    stopped.cause = Cause.SWEEP_TIME_LIMIT
    run = write_run(tmp_path, [CONFIG], [stopped])
    assert read(run)[0].cause is Cause.SWEEP_TIME_LIMIT
    path = run.trial(ID) / "trial.json"
    older = json.loads(path.read_text())
    del older["cause"]
    path.write_text(json.dumps(older))
    assert (read(run)[0].status, read(run)[0].cause) == (Status.TIME_LIMIT, None)


@pytest.mark.parametrize("status", Status)
def test_every_status_has_a_reason(tmp_path: Path, status: Status) -> None:
    ended = record(CONFIG, status, epochs=1)
    ended.reason = "because"
    run = write_run(tmp_path / "with", [CONFIG], [ended])
    with run.held():
        (trial,) = read(run)
        assert (trial.status, trial.why) == (status, "because")
        assert (trial.full, trial.partial) == (status.is_full, not status.is_full)
    ended.reason = None
    (trial,) = read(write_run(tmp_path / "without", [CONFIG], [ended]))
    assert bool(trial.why) is not status.is_full


@pytest.mark.parametrize(
    ("error", "status"),
    [
        ("ray.exceptions.OutOfMemoryError: Task was killed", "out_of_memory"),
        ("OSError: [Errno 28] the disk is full", "interrupted"),
        ("RuntimeError: out of luck", "failed"),
        (None, "failed"),
    ],
)
def test_status_follows_rays_error_without_a_record(tmp_path: Path, error: str | None, status: str) -> None:
    (trial,) = read(write_run(tmp_path, [CONFIG]), {ID: RayTrial("ERROR", [], error)})
    assert (trial.status, trial.error) == (status, error)


@pytest.mark.parametrize(
    ("state", "rows", "status"),
    [
        ("PENDING", [], "pending"),
        ("TERMINATED", [], "pending"),
        ("RUNNING", history(1, 0, test=False), "interrupted"),
        ("TERMINATED", history(2, 0, test=False), "time_limit"),
        ("TERMINATED", history(2, 0, test=True), "time_limit"),
        ("TERMINATED", out_of_patience(history(2, 0, test=True)), "early_stopped"),
        ("PENDING", history(1, 0, test=False), "interrupted"),
        ("TERMINATED", history(3, 0, test=True), "completed"),
        ("ERROR", [], "failed"),
    ],
)
def test_status_follows_rays_state_without_a_record(
    tmp_path: Path, state: str, rows: list[dict[str, float]], status: str
) -> None:
    assert read(write_run(tmp_path, [CONFIG]), {ID: RayTrial(state, rows)})[0].status == status


@pytest.mark.parametrize("plan", [{}, {"trials": [], "trial_ids": []}, {"trials": [1], "trial_ids": ["a"]}])
def test_plan_without_trials_is_an_error(tmp_path: Path, plan: dict[str, object]) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"schema": SCHEMA, **plan}))
    with pytest.raises(UserError, match=r"run\.json"):
        read(RunDirectory(tmp_path))
