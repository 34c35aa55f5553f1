"""STATUS.md, and the expected end of trials."""

from __future__ import annotations

import dataclasses
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from sousaphone.errors import UserError
from sousaphone.runs.directory import SCHEMA, RunDirectory
from sousaphone.runs.statuses import Cause, Status
from sousaphone.runs.trial_record import TrialRecord
from sousaphone.sweep.status_page import seconds_left, write_status
from tests.search import simulation


def plan(*models: str) -> dict[str, object]:
    return {
        "schema": SCHEMA,
        "created": "2026-01-01T00:00:00+00:00",
        "config": "backbones",
        "request": {},
        "trial_ids": list(models),
        "trials": [{"model": name.rstrip("0123456789"), "epochs": 10} for name in models],
    }


def record(trial_id: str, epochs: int, seconds: float, status: str = "running") -> TrialRecord:
    history = [
        {"epoch": i + 1, "best_epoch": 1, "val_acc": 0.5, "epoch_seconds": seconds, "wall_seconds": seconds}
        for i in range(epochs)
    ]
    return TrialRecord(trial_id, {"model": trial_id.rstrip("0123456789"), "epochs": 10}, status, history=history)


def test_there_is_no_forecast_before_the_first_epoch() -> None:
    assert seconds_left(plan("ast1", "ast2"), [record("ast1", 0, 0.0), None]) == {}


def test_waiting_trials_take_the_first_free_place() -> None:
    records = [record("ast1", 5, 2.0), record("beats1", 2, 10.0), None, None]
    left = seconds_left(plan("ast1", "beats1", "ast2", "htsat1"), records)
    # ast2 starts when ast1 ends (10 s) and takes 20 s; htsat1 starts at 30 s, with the mean time of all epochs.
    pace = (5 * 2.0 + 2 * 10.0) / 7
    assert left == pytest.approx({"ast1": 10.0, "beats1": 80.0, "ast2": 30.0, "htsat1": 30.0 + 10 * pace})


def test_free_place_between_two_trials_is_counted() -> None:
    records = [record("ast1", 10, 2.0, "completed"), record("ast2", 5, 2.0), None, None]
    left = seconds_left({**plan("ast1", "ast2", "ast3", "ast4"), "at_once": 2}, records)
    assert left == pytest.approx({"ast2": 10.0, "ast3": 20.0, "ast4": 30.0})


def test_search_is_forecast_to_the_end_of_its_finalists() -> None:
    progress = simulation.run(simulation.begin(epochs=9), lambda trial, epoch: epoch / 10, killed_after=7)
    begun = list(progress.records)
    assert [len(progress.records[name].history) for name in begun] == [3, 3, 1]  # they are compared after 3 epochs
    for each in progress.records.values():
        each.history = [{**row, "wall_seconds": 2.0} for row in each.history]
    progress.records[begun[-1]].status = Status.RUNNING
    plan = {
        "trial_ids": list(progress.trials),
        "trials": [asdict(trial) for trial in progress.trials.values()],
        "search": dataclasses.asdict(progress.search),
        "request": {"seeds": [0, 1]},
    }
    left = seconds_left(plan, [progress.records.get(name) for name in progress.trials])
    assert left[begun[-1]] == 2 * 2.0
    searched = 2 * progress.search.ladder.steps // simulation.STEPS - 7
    finals = 2 * 3 * 2 * 9  # backbones, finalists, seeds, epochs
    assert max(left.values()) == pytest.approx(2.0 * (searched + finals))


def test_ended_trials_have_no_forecast() -> None:
    left = seconds_left(plan("ast1", "ast2"), [record("ast1", 5, 2.0, "failed"), record("ast2", 9, 2.0)])
    assert left == {"ast2": 2.0}


def test_status_page_of_a_search_names_the_rates_and_no_report(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.write_plan({**plan("ast1"), "config": "rates"})
    write_status(run)
    page = run.status_page.read_text()
    assert str(tmp_path / "rates.json") in page
    assert "python -m analysis" not in page


def test_status_page_lists_trials_and_the_resume_command(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "my run")
    run.write_plan(plan("ast1", "ast2", "ast3"))
    for trial in (record("ast1", 10, 1.0, "completed"), record("ast2", 4, 1.0)):
        run.trial(trial.trial_id).mkdir(parents=True)
        trial.write(run.trial(trial.trial_id))
    write_status(run)
    page = run.status_page.read_text()
    assert "# my run: 1 of 3 trials ended" in page
    assert "| ast1 | completed | 10/10 |" in page
    assert "| ast2 | running | 4/10 |" in page
    assert "| ast3 | pending | 0/10 |" in page
    assert f"--resume --name 'my run' --storage {tmp_path}" in page
    assert any(line.startswith("| ast2 ") and line.count(":") == 2 for line in page.splitlines())  # when it ends


@pytest.mark.parametrize(
    ("cause", "more"),
    [
        (None, " --trial-time-limit none"),  # of a run older than causes
        (Cause.TRIAL_TIME_LIMIT, " --trial-time-limit none"),
        (Cause.SWEEP_TIME_LIMIT, ""),
    ],
)
def test_only_a_trial_at_its_own_time_limit_needs_a_longer_one(tmp_path: Path, cause: Cause | None, more: str) -> None:
    run = RunDirectory(tmp_path)
    run.write_plan(plan("ast1"))
    run.trial("ast1").mkdir(parents=True)
    replace(record("ast1", 4, 1.0, "time_limit"), cause=cause).write(run.trial("ast1"))
    write_status(run)
    lines = [line for line in run.status_page.read_text().splitlines() if "--resume" in line]
    assert [line.partition(": ")[2] for line in lines] == [f"`{run.resume_command}{more}`"]


@pytest.mark.parametrize(
    "changes", [{"rungs": []}, {"rungs": [0, 0]}, {"rungs": [90, 30]}, {"seed": "x"}, {"space": {}}]
)
def test_damaged_search_is_one_line(tmp_path: Path, changes: dict[str, object]) -> None:
    progress = simulation.run(simulation.begin(), lambda trial, epoch: epoch / 10, killed_after=7)
    run, (name, *_) = RunDirectory(tmp_path), progress.records
    written = {
        "schema": SCHEMA,
        "created": "2026-01-01T00:00:00",
        "config": "search",
        "request": {"seeds": [0]},
        "trial_ids": list(progress.trials),
        "trials": [asdict(trial) for trial in progress.trials.values()],
        "search": dataclasses.asdict(progress.search),
    }
    run.trial(name).mkdir(parents=True)
    progress.records[name].status, progress.records[name].cause = Status.RUNNING, None
    progress.records[name].write(run.trial(name))
    run.write_plan(written)
    write_status(run)
    run.write_plan({**written, "search": {**written["search"], **changes}})
    with pytest.raises(UserError, match=r"run\.json.*search"):
        write_status(run)
