"""What is written is there whole or not at all, a file or a directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from sousaphone.files import atomic_write


@pytest.mark.parametrize("durable", [True, False])
def test_a_directory_gets_its_name_when_it_is_whole(durable: bool, tmp_path: Path) -> None:
    with atomic_write(tmp_path / "whole", durable) as temporary:
        temporary.mkdir()
        (temporary / "one").write_text("1")
        assert not (tmp_path / "whole").exists()
    assert (tmp_path / "whole" / "one").read_text() == "1"
    assert [path.name for path in tmp_path.iterdir()] == ["whole"]


def test_of_one_that_failed_nothing_is_left(tmp_path: Path) -> None:
    def fail() -> None:
        with atomic_write(tmp_path / "whole") as temporary:
            temporary.mkdir()
            (temporary / "one").write_text("1")
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        fail()
    assert not list(tmp_path.iterdir())
