"""Every planned trial is one row, and each row is the newest truth about its trial."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from analysis.ray_log import RayTrial
from analysis.trials import Trial, read_trials
from sousaphone.errors import UserError
from sousaphone.run import RunDirectory
from tests.analysis.run_builders import arm, history, record, trial_id, write_run

CONFIG = arm()
ID = trial_id(CONFIG)
LATER = datetime.now(UTC) + timedelta(days=1)
BEFORE = datetime.now(UTC) - timedelta(days=1)


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
        '{"trial_id": "x", "config": {}, "parameters": [], "updated": "2026-01-01T00:00:00+00:00"}',
        '{"trial_id": "x", "config": {}}',
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
    (trial,) = read(run, {ID: RayTrial("TERMINATED", history(3, 0, test=True))})
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


@pytest.mark.parametrize(
    ("state", "rows", "status"),
    [
        ("PENDING", [], "pending"),
        ("TERMINATED", [], "pending"),
        ("RUNNING", history(1, 0, test=False), "interrupted"),
        ("TERMINATED", history(2, 0, test=False), "time_limit"),
        ("TERMINATED", history(2, 0, test=True), "early_stopped"),
        ("TERMINATED", history(3, 0, test=True), "completed"),
        ("ERROR", [], "failed"),
    ],
)
def test_rays_words_become_ours(tmp_path: Path, state: str, rows: list[dict[str, float]], status: str) -> None:
    assert read(write_run(tmp_path, [CONFIG]), {ID: RayTrial(state, rows)})[0].status == status


@pytest.mark.parametrize("plan", [{}, {"trials": [], "trial_ids": []}, {"trials": [1], "trial_ids": ["a"]}])
def test_a_plan_without_trials_is_refused(tmp_path: Path, plan: dict[str, object]) -> None:
    (tmp_path / "run.json").write_text(json.dumps(plan))
    with pytest.raises(UserError, match="damaged"):
        read(RunDirectory(tmp_path))
