"""Runs are listed and pruned; needed checkpoints, running runs and foreign files are kept."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from filelock import FileLock

from sousaphone.cli.command import EXIT_FAILED, EXIT_INPUT, EXIT_OK
from sousaphone.cli.runs import main
from sousaphone.runs.directory import RunDirectory
from sousaphone.runs.trial_record import CHECKPOINTS_NAME, TrialRecord
from tests.analysis.run_builders import arm, write_run

ENDED, CUT = "ast-lora-aug-on-s0", "ast-lora-aug-off-s0"


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    """A run of two trials with checkpoints: one is complete, the other was interrupted."""
    run = RunDirectory(tmp_path / "runs" / "first")
    write_run(run.path, [arm(), arm(augment=False)])
    for trial_id, status in ((ENDED, "completed"), (CUT, "interrupted")):
        checkpoint = run.trial(trial_id) / CHECKPOINTS_NAME / "epoch_0001-aa"
        checkpoint.mkdir(parents=True)
        (checkpoint / "model.safetensors").write_bytes(bytes(5000))
        TrialRecord(trial_id, {}, status).write(run.trial(trial_id))
    return tmp_path / "runs"


def prune(storage: Path, *arguments: str) -> int:
    return main(["prune", "--storage", str(storage), *arguments])


def checkpoints(storage: Path, trial_id: str) -> Path:
    return storage / "first" / "trials" / trial_id / CHECKPOINTS_NAME


def test_run_is_listed_with_its_progress(storage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--storage", str(storage)]) == EXIT_OK
    assert "first" in (text := capsys.readouterr().out)
    assert "1/2" in text


def test_runs_are_listed_by_their_start(storage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = {"b": "2026-03-01", "c": "2026-01-01", "a": "2026-02-01"}
    for name, day in names.items():
        run = RunDirectory(storage / name)
        write_run(run.path, [arm()])
        run.write_plan({**run.read_plan(), "created": f"{day}T00:00:00+00:00"})
    (storage / "first" / "run.json").write_text("{")
    assert main(["list", "--storage", str(storage)]) == EXIT_OK
    words = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert [word for word in words if word in (*names, "first")] == ["first", "c", "a", "b"]  # the first is damaged


@pytest.mark.parametrize("storage", ["", "nosuch", "file"])
def test_storage_that_is_no_directory_is_refused(
    tmp_path: Path, storage: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["list", "--storage", storage])
    assert ended.value.code == EXIT_INPUT
    (line,) = capsys.readouterr().err.splitlines()
    assert "--storage" in line
    assert storage in line


def test_empty_storage_is_not_an_error(tmp_path: Path) -> None:
    assert main(["list", "--storage", str(tmp_path)]) == EXIT_OK


def test_checkpoints_of_unfinished_trials_are_kept(storage: Path) -> None:
    assert prune(storage, "--checkpoints", "--yes") == EXIT_OK
    assert not checkpoints(storage, ENDED).exists()
    assert checkpoints(storage, CUT).exists()
    assert RunDirectory(storage / "first").record(ENDED) is not None


def test_damaged_run_is_skipped_unless_it_is_named(storage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (storage / "second").mkdir()
    (storage / "second" / "run.json").write_text("{")
    assert prune(storage, "second", "--checkpoints", "--yes") == EXIT_INPUT
    capsys.readouterr()
    assert prune(storage, "--checkpoints", "--yes") == EXIT_INPUT
    (line,) = capsys.readouterr().err.splitlines()
    assert "second" in line
    assert not checkpoints(storage, ENDED).exists()


def test_named_run_is_deleted(storage: Path) -> None:
    assert prune(storage, "first", "--yes") == EXIT_OK
    assert not (storage / "first").exists()


@pytest.mark.parametrize("answer", ["", "n\n", "no\n", "\n"])
def test_nothing_is_deleted_without_confirmation(storage: Path, answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(answer))
    assert prune(storage, "first", "--checkpoints") == EXIT_FAILED
    assert checkpoints(storage, ENDED).exists()


def test_running_run_is_refused(storage: Path) -> None:
    with RunDirectory(storage / "first").held():
        assert prune(storage, "first", "--yes") == EXIT_INPUT
        assert prune(storage, "--checkpoints", "--yes") == EXIT_OK
    assert checkpoints(storage, ENDED).exists()


@pytest.mark.parametrize("arguments", [[], ["nosuch", "--yes"], ["../runs/first", "--yes"]])
def test_name_that_is_not_a_run_is_refused(storage: Path, arguments: list[str]) -> None:
    assert prune(storage, *arguments) == EXIT_INPUT
    assert checkpoints(storage, ENDED).exists()


def test_links_are_neither_listed_nor_followed(storage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (storage / "link").symlink_to(storage / "first")
    assert prune(storage, "link", "--yes") == EXIT_INPUT
    checkpoints(storage, ENDED).rename(storage / "elsewhere")
    checkpoints(storage, ENDED).symlink_to(storage / "elsewhere")
    assert prune(storage, "--checkpoints", "--yes") == EXIT_INPUT
    assert f"{CHECKPOINTS_NAME} is a link" in capsys.readouterr().err
    assert (storage / "elsewhere").is_dir()


def test_caches_of_running_sweeps_and_generations_are_kept(storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = storage.parent / "cache"
    for name in ("0123456789abcdef-16000hz", "builtin-2-tiny.partial"):
        (cache / name).mkdir(parents=True)
        (cache / name / "file").write_bytes(bytes(5000))
    monkeypatch.setenv("SOUSAPHONE_CACHE", str(cache))
    with RunDirectory(storage / "first").held():
        assert prune(storage, "--caches", "--yes") == EXIT_INPUT
    assert len(list(cache.glob("*/file"))) == 2
    with FileLock(cache / "builtin-2-tiny.lock"):
        assert prune(storage, "--caches", "--yes") == EXIT_OK
    assert [path.parent.name for path in cache.glob("*/file")] == ["builtin-2-tiny.partial"]
    assert prune(storage, "--caches", "--yes") == EXIT_OK
    assert not list(cache.glob("*/file"))


def test_foreign_files_in_the_cache_are_kept(storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = storage.parent / "cache"
    for name in ("0123456789abcdef-16000hz", "builtin-2-tiny", "letters"):
        (cache / name).mkdir(parents=True)
        (cache / name / "file").write_bytes(bytes(5000))
    monkeypatch.setenv("SOUSAPHONE_CACHE", str(cache))
    assert prune(storage, "--caches", "--yes") == EXIT_OK
    assert [path.name for path in cache.iterdir()] == ["letters"]
    assert (storage / "first").exists()
