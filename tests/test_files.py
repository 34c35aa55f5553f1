"""Files and directories are written atomically."""

from __future__ import annotations

from pathlib import Path

import pytest

from sousaphone.files import atomic_write, remove_temporary_files


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
