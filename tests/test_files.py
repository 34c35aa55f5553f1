"""Files and directories are written atomically."""

from __future__ import annotations

from pathlib import Path

import pytest

from sousaphone.files import atomic_write


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
