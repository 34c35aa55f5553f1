"""Files and directories are written atomically."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from sousaphone.files import atomic_write, cache_directory, remove_temporary_files, write_json


@pytest.mark.parametrize("durable", [True, False])
def test_directory_gets_its_name_when_it_is_complete(durable: bool, tmp_path: Path) -> None:
    with atomic_write(tmp_path / "complete", durable) as temporary:
        temporary.mkdir()
        (temporary / "one").write_text("1")
        assert not (tmp_path / "complete").exists()
    assert (tmp_path / "complete" / "one").read_text() == "1"
    assert [path.name for path in tmp_path.iterdir()] == ["complete"]


def test_failed_write_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with atomic_write(tmp_path / "complete") as temporary:
            temporary.mkdir()
            (temporary / "one").write_text("1")
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        fail()
    assert not list(tmp_path.iterdir())


def test_temporary_files_of_killed_writes_are_removed(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "deep" / "kept", durable=False) as temporary:
        temporary.mkdir(parents=True)
        (temporary / "one").write_text("1")
    for directory in (False, True):
        with atomic_write(tmp_path / "deep" / "killed") as temporary:
            killed = temporary.with_name(temporary.name.replace("killed", f"killed{directory}"))
            killed.mkdir() if directory else killed.touch()
            temporary.touch()
    (tmp_path / "deep" / "killedTrue").touch()
    (tmp_path / ".users.tmp").mkdir()
    remove_temporary_files(tmp_path)
    names = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*"))
    assert names == [".users.tmp", "deep", "deep/kept", "deep/kept/one", "deep/killed", "deep/killedTrue"]


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP, errno.EBADF])
def test_file_system_may_not_flush_directories(code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode) or failing:
            raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fsync)
    failing = False
    write_json(tmp_path / "written", 1)
    failing = True
    with pytest.raises(OSError, match=os.strerror(code)):  # of a file
        write_json(tmp_path / "new", 1)
    assert [path.name for path in tmp_path.iterdir()] == ["written"]


def test_relative_cache_directory_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOUSAPHONE_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    for given, base in (("here", tmp_path / ".cache"), ("", tmp_path / ".cache"), ("/else", Path("/else"))):
        monkeypatch.setenv("XDG_CACHE_HOME", given)
        assert cache_directory() == base / "sousaphone"
