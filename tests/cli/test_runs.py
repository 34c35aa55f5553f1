"""Runs are listed and pruned; what is needed, running or not ours is never touched."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from sousaphone.cli.command import EXIT_INPUT, EXIT_OK
from sousaphone.cli.runs import EXIT_KEPT, main
from sousaphone.runs.directory import SCHEMA, RunDirectory
from sousaphone.runs.trial_record import CHECKPOINTS_NAME, TrialRecord

ENDED, CUT = "ast-lora-aug-on-s0", "ast-lora-aug-off-s0"


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    """A run of two trials with checkpoints: one is complete, the other was interrupted."""
    run = RunDirectory(tmp_path / "runs" / "first")
    run.write_plan({"schema": SCHEMA, "created": "2026-01-01T00:00:00+00:00", "trial_ids": [ENDED, CUT]})
    for trial_id, status in ((ENDED, "completed"), (CUT, "interrupted")):
        checkpoint = run.trial(trial_id) / CHECKPOINTS_NAME / "epoch_0001-aa"
        checkpoint.mkdir(parents=True)
        (checkpoint / "state.pt").write_bytes(bytes(5000))
        TrialRecord(trial_id, {}, status).write(run.trial(trial_id))
    return tmp_path / "runs"


def prune(storage: Path, *arguments: str) -> int:
    return main(["prune", "--storage", str(storage), *arguments])


def checkpoints(storage: Path, trial_id: str) -> Path:
    return storage / "first" / "trials" / trial_id / CHECKPOINTS_NAME


def test_a_run_is_listed_with_how_far_it_is(storage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--storage", str(storage)]) == EXIT_OK
    assert "first" in (text := capsys.readouterr().out)
    assert "1/2" in text


def test_no_runs_are_no_error(tmp_path: Path) -> None:
    assert main(["list", "--storage", str(tmp_path)]) == EXIT_OK


def test_checkpoints_that_a_trial_resumes_from_stay(storage: Path) -> None:
    assert prune(storage, "--checkpoints", "--yes") == EXIT_OK
    assert not checkpoints(storage, ENDED).exists()
    assert checkpoints(storage, CUT).exists()
    assert RunDirectory(storage / "first").record(ENDED) is not None


def test_a_named_run_goes_whole(storage: Path) -> None:
    assert prune(storage, "first", "--yes") == EXIT_OK
    assert not (storage / "first").exists()


@pytest.mark.parametrize("answer", ["", "n\n", "no\n", "\n"])
def test_without_a_yes_nothing_is_deleted(storage: Path, answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(answer))
    assert prune(storage, "first", "--checkpoints") == EXIT_KEPT
    assert checkpoints(storage, ENDED).exists()


def test_a_running_run_is_refused(storage: Path) -> None:
    with RunDirectory(storage / "first").held():
        assert prune(storage, "first", "--yes") == EXIT_INPUT
        assert prune(storage, "--checkpoints", "--yes") == EXIT_OK
    assert checkpoints(storage, ENDED).exists()


@pytest.mark.parametrize("arguments", [[], ["nosuch", "--yes"], ["../runs/first", "--yes"]])
def test_what_is_no_run_is_refused(storage: Path, arguments: list[str]) -> None:
    assert prune(storage, *arguments) == EXIT_INPUT
    assert checkpoints(storage, ENDED).exists()


def test_links_are_neither_listed_nor_followed(storage: Path) -> None:
    (storage / "link").symlink_to(storage / "first")
    assert prune(storage, "link", "--yes") == EXIT_INPUT
    checkpoints(storage, ENDED).rename(storage / "elsewhere")
    checkpoints(storage, ENDED).symlink_to(storage / "elsewhere")
    assert prune(storage, "--checkpoints", "--yes") == EXIT_OK
    assert (storage / "elsewhere").is_dir()


def test_of_the_cache_only_what_is_ours_goes(storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = storage.parent / "cache"
    for name in ("0123456789abcdef-16000hz", "builtin-2-tiny", "letters"):
        (cache / name).mkdir(parents=True)
        (cache / name / "file").write_bytes(bytes(5000))
    monkeypatch.setenv("SOUSAPHONE_CACHE", str(cache))
    assert prune(storage, "--caches", "--yes") == EXIT_OK
    assert [path.name for path in cache.iterdir()] == ["letters"]
    assert (storage / "first").exists()
