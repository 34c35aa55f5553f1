"""Statuses, their causes and continuations are consistent, and a record keeps both."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest

from sousaphone.runs.directory import SCHEMA, RunDirectory
from sousaphone.runs.statuses import Cause, Continuation, Status
from sousaphone.runs.trial_record import TrialRecord


def test_every_cause_has_a_status_and_every_end_has_a_cause() -> None:
    assert {cause for status in Status for cause in status.causes} == set(Cause)
    assert [status for status in Status if not status.causes] == [Status.PENDING, Status.RUNNING]


@pytest.mark.parametrize("status", Status)
def test_continuation_agrees_with_the_status(status: Status) -> None:
    for cause in (None, *status.causes):
        found = status.continuation(cause)
        assert (found is None) is (status.is_full or status is Status.PRUNED)
        assert (found is Continuation.RETRY) is status.is_retried
        assert (found is Continuation.RESUME) is (not status.has_ended or cause is Cause.SWEEP_TIME_LIMIT)
        assert (found is Continuation.LONGER_LIMIT) is (
            status is Status.TIME_LIMIT and cause is not Cause.SWEEP_TIME_LIMIT
        )
    assert not (status.is_good and status.is_bad)
    assert status.has_ended or not status.is_good
    assert bool(status.meaning) is not status.is_full


def written(directory: Path, **changes: Any) -> Path:
    """Return a directory with a changed record; None removes a field."""
    TrialRecord("trial", {}).write(directory)
    content = {**json.loads((directory / "trial.json").read_text()), **changes}
    whole = {key: value for key, value in content.items() if value is not None}
    (directory / "trial.json").write_text(json.dumps(whole))
    return directory


@pytest.mark.parametrize("cause", Cause)
def test_record_keeps_status_and_cause(tmp_path: Path, cause: Cause) -> None:
    record = TrialRecord("trial", {})
    record.end(cause, "because")
    record.write(tmp_path)
    assert json.loads((tmp_path / "trial.json").read_text())["cause"] == cause.value
    again = TrialRecord.read(tmp_path)
    assert again is not None
    assert (again.status, again.cause) == (cause.status, cause)
    assert again.ended is not None


@pytest.mark.parametrize("status", Status)
def test_record_without_a_cause_is_read(tmp_path: Path, status: Status) -> None:
    record = TrialRecord.read(written(tmp_path, status=status.value, cause=None))
    assert record is not None
    assert (record.status, record.cause) == (status, None)


@pytest.mark.parametrize(
    "changes",
    [{"status": "done"}, {"status": 3}, {"status": ["failed"]}, {"status": "failed", "cause": "luck"},
     {"status": "failed", "cause": "memory"}, {"status": "running", "cause": "patience"}],
)  # fmt: skip
def test_unknown_or_contradictory_status_and_cause_are_damage(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"status|cause"):
        TrialRecord.read(written(tmp_path, **changes))
    assert TrialRecord.find(tmp_path) is None


def write_plan(run: RunDirectory, ends: Collection[str], score_test: bool = True, **content: Any) -> None:
    trials = [{"model": "ast", "score_test": score_test} for _ in ends]
    written = {"schema": SCHEMA, "created": "2026-01-01T00:00:00+00:00", "config": "backbones", "request": {}}
    run.write_plan({**written, "trial_ids": [*ends], "trials": trials, **content})


def test_each_next_step_is_listed_once_with_its_number_of_trials(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    each = [(status, None) for status in Status] + [(Status.TIME_LIMIT, Cause.SWEEP_TIME_LIMIT)]
    ends = {f"trial{number}": end for number, end in enumerate(each)}
    write_plan(run, ends)
    steps = run.next_steps(run.read_plan(), ends)
    resume = run.resume_command
    lines = [resume, f"{resume} --retry-failed", f"{resume} --trial-time-limit none", None]
    assert [line for _, line in steps] == lines
    assert [purpose.rpartition(" (")[2] for purpose, _ in steps] == ["4 trials)", "2 trials)", "1 trial)", "1 trial)"]
    assert run.next_steps(run.read_plan(), {"trial0": (Status.COMPLETED, Cause.ALL_EPOCHS)}) == []


def test_configurations_of_a_search_are_not_continued_once_its_finalists_are_planned(tmp_path: Path) -> None:
    run, ends = RunDirectory(tmp_path), dict.fromkeys(("searched", "final"), (Status.FAILED, Cause.ERROR))
    search = {"proposals": {"searched": {}}}
    write_plan(run, {"searched": ends["searched"]}, search=search, score_test=False)
    assert len(run.next_steps(run.read_plan(), {"searched": ends["searched"]})) == 1
    write_plan(run, ends, search=search)
    assert run.next_steps(run.read_plan(), {"searched": ends["searched"]}) == []
    assert len(run.next_steps(run.read_plan(), ends)) == 1
