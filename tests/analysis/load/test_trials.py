"""Every planned trial is one row, and each row is the newest truth about its trial."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
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
LATER = datetime.now(UTC) + timedelta(days=1)
BEFORE = datetime.now(UTC) - timedelta(days=1)


def heard(epochs: int, test: bool, seconds_from_now: float = 60.0) -> list[dict[str, float]]:
    """Reports as Ray keeps them, with the time of each."""
    return [{**row, "timestamp": time.time() + seconds_from_now} for row in history(epochs, 0, test)]


def waited(rows: list[dict[str, float]]) -> list[dict[str, float]]:
    """The best epoch was as long ago as the patience allows."""
    rows[-1]["best_epoch"] = rows[-1]["epoch"] - CONFIG["patience"]
    return rows


def read(run: RunDirectory, ray: dict[str, RayTrial] | None = None) -> list[Trial]:
    return read_trials(run, run.read_plan(), ray or {})


def test_a_trial_that_has_not_begun_is_pending_with_the_plans_commit(tmp_path: Path) -> None:
    (trial,) = read(write_run(tmp_path, [CONFIG]))
    assert (trial.status, trial.history, trial.best, trial.train_seconds) == ("pending", [], {}, None)
    assert trial.git_commit.startswith("0123")


def test_running_without_a_driver_is_interrupted_and_with_one_it_is_running(tmp_path: Path) -> None:
    run = write_run(tmp_path, [CONFIG], [record(CONFIG, "running", epochs=2)])
    assert read(run)[0].status == "interrupted"
    with run.held():
        assert read(run)[0].status == "running"


def test_rows_keep_the_order_of_the_plan(tmp_path: Path) -> None:
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
def test_a_damaged_record_is_its_own_rows_error_and_no_others(tmp_path: Path, content: str) -> None:
    other = arm(seed=1)
    run = write_run(tmp_path, [CONFIG, other], [record(CONFIG, "completed"), record(other, "completed")])
    (run.trial(ID) / "trial.json").write_text(content)
    damaged, whole = read(run)
    assert damaged.status == "failed"
    assert "trial.json is damaged" in (damaged.error or "")
    assert whole.status == "completed"


def test_a_damaged_record_leaves_what_ray_knows(tmp_path: Path) -> None:
    run = write_run(tmp_path, [CONFIG], [record(CONFIG, "completed")])
    (run.trial(ID) / "trial.json").write_text("{")
    (trial,) = read(run, {ID: RayTrial("TERMINATED", history(3, 0, test=True))})
    assert (trial.status, len(trial.history)) == ("completed", 3)
    assert "damaged" in (trial.error or "")


def test_the_record_wins_where_rays_log_lags(tmp_path: Path) -> None:
    run = write_run(tmp_path, [CONFIG], [record(CONFIG, "completed")])
    (trial,) = read(run, {ID: RayTrial("RUNNING", history(1, 0, test=False))})
    assert (trial.status, len(trial.history)) == ("completed", 3)


def test_ray_wins_where_the_record_is_an_old_copy(tmp_path: Path) -> None:
    run = write_run(tmp_path, [CONFIG], [record(CONFIG, "running", epochs=1)])
    (trial,) = read(run, {ID: RayTrial("TERMINATED", heard(3, test=True))})
    assert (trial.status, len(trial.history)) == ("completed", 3)
    assert trial.parameters["trainable"] == 60_000  # which Ray does not know


def test_a_killed_worker_failed_although_it_could_not_write_so(tmp_path: Path) -> None:
    run = write_run(tmp_path, [CONFIG], [record(CONFIG, "running", epochs=2)])
    seen = history(2, 0, test=False)
    (trial,) = read(run, {ID: RayTrial("ERROR", seen, "ray.exceptions.OutOfMemoryError: killed", LATER)})
    assert (trial.status, trial.error) == ("out_of_memory", "ray.exceptions.OutOfMemoryError: killed")
    (trial,) = read(run, {ID: RayTrial("ERROR", seen, "ActorDiedError: gone", LATER)})
    assert trial.status == "failed"


def test_an_error_of_an_earlier_start_does_not_outlive_a_later_record(tmp_path: Path) -> None:
    run = write_run(tmp_path, [CONFIG], [record(CONFIG, "running", epochs=2)])
    (trial,) = read(run, {ID: RayTrial("ERROR", history(2, 0, test=False), "RuntimeError: x", BEFORE)})
    assert (trial.status, trial.error) == ("interrupted", None)


def test_what_ray_heard_of_an_earlier_start_does_not_outlive_a_later_record(tmp_path: Path) -> None:
    """It met its limit, which Ray calls TERMINATED; it goes on, in an experiment that Ray has no state of yet. Or its
    newest checkpoint was lost, so that it does an epoch again."""
    for epochs in (2, 1):
        run = write_run(tmp_path / f"{epochs}", [CONFIG], [record(CONFIG, "running", epochs=epochs)])
        (trial,) = read(run, {ID: RayTrial("TERMINATED", heard(2, test=False, seconds_from_now=-60))})
        assert (trial.status, len(trial.history)) == ("interrupted", epochs)


def test_the_end_that_a_trial_wrote_is_its_end_whatever_ray_makes_of_the_exception(tmp_path: Path) -> None:
    run = write_run(tmp_path, [CONFIG], [record(CONFIG, "interrupted", epochs=2, error="OSError: the disk is full")])
    (trial,) = read(run, {ID: RayTrial("ERROR", heard(2, test=False), "OSError: x", LATER)})
    assert (trial.status, trial.why) == ("interrupted", "Ctrl-C; OSError: the disk is full")


def test_a_trial_has_the_cause_of_its_record_and_none_where_the_record_is_older_than_causes(tmp_path: Path) -> None:
    told = record(CONFIG, "time_limit", epochs=1)
    told.cause = Cause.SWEEP_TIME_LIMIT
    run = write_run(tmp_path, [CONFIG], [told])
    assert read(run)[0].cause is Cause.SWEEP_TIME_LIMIT
    path = run.trial(ID) / "trial.json"
    older = json.loads(path.read_text())
    del older["cause"]
    path.write_text(json.dumps(older))
    assert (read(run)[0].status, read(run)[0].cause) == (Status.TIME_LIMIT, None)


@pytest.mark.parametrize("status", Status)
def test_every_end_has_its_reason(tmp_path: Path, status: Status) -> None:
    told = record(CONFIG, status, epochs=1)
    told.reason = "because"
    run = write_run(tmp_path / "said", [CONFIG], [told])
    with run.held():
        (trial,) = read(run)
        assert (trial.status, trial.why) == (status, "because")
        assert (trial.full, trial.partial) == (status.is_full, not status.is_full)
    told.reason = None
    (trial,) = read(write_run(tmp_path / "unsaid", [CONFIG], [told]))
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
def test_an_error_that_only_ray_knows_of_has_its_own_name(tmp_path: Path, error: str | None, status: str) -> None:
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
        ("TERMINATED", waited(history(2, 0, test=True)), "early_stopped"),
        ("PENDING", history(1, 0, test=False), "interrupted"),
        ("TERMINATED", history(3, 0, test=True), "completed"),
        ("ERROR", [], "failed"),
    ],
)
def test_rays_words_become_ours(tmp_path: Path, state: str, rows: list[dict[str, float]], status: str) -> None:
    assert read(write_run(tmp_path, [CONFIG]), {ID: RayTrial(state, rows)})[0].status == status


@pytest.mark.parametrize("plan", [{}, {"trials": [], "trial_ids": []}, {"trials": [1], "trial_ids": ["a"]}])
def test_a_plan_without_trials_is_refused(tmp_path: Path, plan: dict[str, object]) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"schema": SCHEMA, **plan}))
    with pytest.raises(UserError, match="damaged"):
        read(RunDirectory(tmp_path))
