"""Checkpoints and records are written atomically, and damaged ones are ignored."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sousaphone.files import atomic_write
from sousaphone.runs.trial_record import CHECKPOINTS_NAME, TrialRecord, error_line
from sousaphone.training import checkpoint


def test_newest_checkpoint_is_read(tmp_path: Path) -> None:
    for epoch in (1, 2, 3):
        checkpoint.save(tmp_path, epoch, "aa", {"epoch": epoch, "weight": torch.ones(3)})
    state = checkpoint.newest(tmp_path)
    assert state is not None
    assert state["epoch"] == 3


@pytest.mark.parametrize("bytes_left", [0, 100, -1])
def test_truncated_checkpoint_is_ignored(bytes_left: int, tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 1, "aa", {"epoch": 1})
    path = checkpoint.save(tmp_path, 2, "aa", {"epoch": 2}) / "state.pt"
    path.write_bytes(path.read_bytes()[:bytes_left])
    state = checkpoint.newest(tmp_path)
    assert state is not None
    assert state["epoch"] == 1


def test_unfinished_checkpoint_is_ignored_and_removed(tmp_path: Path) -> None:
    whole = checkpoint.save(tmp_path, 1, "aa", {"epoch": 1})
    whole.rename(whole.with_name(f".{whole.name}.tmp"))
    assert checkpoint.newest(tmp_path) is None
    checkpoint.remove_temporary_files(tmp_path)
    assert list((tmp_path / CHECKPOINTS_NAME).iterdir()) == []


def test_only_the_newest_checkpoints_are_kept(tmp_path: Path) -> None:
    for epoch in range(1, 6):
        checkpoint.save(tmp_path, epoch, "aa", {"epoch": epoch})
    names = sorted(path.name for path in (tmp_path / CHECKPOINTS_NAME).iterdir())
    assert names == ["epoch_0004-aa", "epoch_0005-aa"]


def test_attempts_write_under_different_names(tmp_path: Path) -> None:
    first = checkpoint.save(tmp_path, 1, "aa", {"epoch": 1})
    second = checkpoint.save(tmp_path, 1, "bb", {"epoch": 1})
    assert first != second


def test_failed_write_keeps_the_existing_file(tmp_path: Path) -> None:
    path = tmp_path / "page.txt"
    path.write_text("old")

    def lose_power() -> None:
        with atomic_write(path) as temporary:
            temporary.write_text("ne")
            raise RuntimeError("power")

    with pytest.raises(RuntimeError, match="power"):
        lose_power()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_record_is_read_back_with_nan_as_null(tmp_path: Path) -> None:
    record = TrialRecord("t", {"model": "ast"}, history=[{"epoch": 1, "best_epoch": 1, "val_loss": float("nan")}])
    record.write(tmp_path)
    again = TrialRecord.read(tmp_path)
    assert again is not None
    assert again.history == [{"epoch": 1, "best_epoch": 1, "val_loss": None}]
    assert TrialRecord.read(tmp_path / "elsewhere") is None


@pytest.mark.parametrize(
    ("account", "line"),
    [
        ("Traceback (most recent call last):\n  File ...\nValueError: no luck\n", "ValueError: no luck"),
        (
            "Failure # 1 (occurred at 2026-01-01)\nray.exceptions.RayTaskError(X): Y\nKeyError: 'a'\nadvice",
            "KeyError: 'a'",
        ),
        (
            "Failure # 1 (occurred at 2026-01-01)\nThe actor died unexpectedly.\n\tpid: 1\nadvice",
            "The actor died unexpectedly.",
        ),
        ("", ""),
    ],
)
def test_error_line_is_extracted(account: str, line: str) -> None:
    assert error_line(account) == line
