"""A file from an address comes whole or not at all, and what came before a cut is not fetched again."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sousaphone.errors import UserError
from sousaphone.weights import download as downloading
from sousaphone.weights.download import download
from tests.weights.server import Published

CONTENT = os.urandom(3_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server() -> Iterator[Published]:
    published = Published()
    published.files["/mn10.pt"] = CONTENT
    with published.served():
        yield published


def accept(path: Path) -> None:
    """A check that finds nothing wrong."""


def kept(directory: Path) -> list[str]:
    """What is in a directory for whoever looks."""
    return sorted(path.name for path in directory.rglob("*") if path.is_file() and not path.name.startswith("."))


def test_a_whole_file_gets_its_name_and_a_note_of_where_it_came_from(server: Published, tmp_path: Path) -> None:
    target = tmp_path / "cache" / "mn10.pt"
    assert download(f"{server.url}/mn10.pt", target, SHA256, accept) == target
    assert target.read_bytes() == CONTENT
    assert kept(tmp_path) == ["mn10.pt", "mn10.pt.origin.json"]
    note = json.loads((target.parent / "mn10.pt.origin.json").read_text())
    assert note == {"url": f"{server.url}/mn10.pt", "sha256": SHA256}


def test_what_is_there_is_not_fetched(server: Published, tmp_path: Path) -> None:
    (tmp_path / "mn10.pt").write_bytes(b"there")
    download(f"{server.url}/mn10.pt", tmp_path / "mn10.pt", None, accept)
    assert server.asked == []


def test_after_cuts_it_goes_on_where_it_was(server: Published, tmp_path: Path) -> None:
    server.cuts = [1_000_000, 700_000]
    download(f"{server.url}/mn10.pt", tmp_path / "mn10.pt", SHA256, accept)
    assert (tmp_path / "mn10.pt").read_bytes() == CONTENT
    assert server.asked == [
        "GET /mn10.pt whole",
        "GET /mn10.pt bytes=1000000-",
        "GET /mn10.pt bytes=1700000-",
    ]


def test_a_killed_download_goes_on_in_the_next_process(
    server: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class KilledError(BaseException):
        """Nothing catches it, as nothing catches a kill."""

    def kill(*_: object) -> None:
        raise KilledError

    server.cuts = [1_000_000]
    with monkeypatch.context() as patch:
        patch.setattr(downloading.time, "sleep", kill)
        with pytest.raises(KilledError):
            download(f"{server.url}/mn10.pt", tmp_path / "mn10.pt", SHA256, accept)
    assert kept(tmp_path) == ["mn10.pt"]  # in .incomplete
    assert not (tmp_path / "mn10.pt").exists()
    download(f"{server.url}/mn10.pt", tmp_path / "mn10.pt", SHA256, accept)
    assert server.asked[-1] == "GET /mn10.pt bytes=1000000-"
    assert (tmp_path / "mn10.pt").read_bytes() == CONTENT


@pytest.mark.parametrize("change", ["another version", "no ranges", "no tag"])
def test_a_part_that_cannot_be_continued_is_begun_anew(server: Published, tmp_path: Path, change: str) -> None:
    server.cuts = [1_000_000]
    server.tag = "" if change == "no tag" else '"one"'
    server.ranges = change != "no ranges"
    url, target = f"{server.url}/mn10.pt", tmp_path / "mn10.pt"
    if change == "another version":
        part = tmp_path / ".incomplete" / "mn10.pt"
        part.parent.mkdir()
        part.write_bytes(b"of another version")
        part.with_name(".mn10.pt.tag").write_text('"\\"zero\\""')
        server.cuts = []
    download(url, target, SHA256, accept)
    assert target.read_bytes() == CONTENT


def test_a_part_longer_than_the_file_is_begun_anew(server: Published, tmp_path: Path) -> None:
    part = tmp_path / ".incomplete" / "mn10.pt"
    part.parent.mkdir()
    part.write_bytes(CONTENT + b"more")
    part.with_name(".mn10.pt.tag").write_text(json.dumps(server.tag))
    download(f"{server.url}/mn10.pt", tmp_path / "mn10.pt", SHA256, accept)
    assert (tmp_path / "mn10.pt").read_bytes() == CONTENT


def test_any_number_of_cuts_is_borne_as_long_as_each_connection_brings_more(server: Published, tmp_path: Path) -> None:
    server.cuts = [300_000] * 8
    download(f"{server.url}/mn10.pt", tmp_path / "mn10.pt", SHA256, accept)
    assert (tmp_path / "mn10.pt").read_bytes() == CONTENT


def test_it_has_its_name_after_its_content_is_on_disk_and_its_directory_follows(
    server: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, flushed = tmp_path / "mn10.pt", []
    monkeypatch.setattr(downloading, "flush", lambda path: flushed.append((path, target.exists())))
    download(f"{server.url}/mn10.pt", target, SHA256, accept)
    assert flushed == [(tmp_path / ".incomplete" / "mn10.pt", False), (tmp_path, True)]


def test_connections_that_bring_nothing_end_with_one_line(server: Published, tmp_path: Path) -> None:
    server.cuts = [500_000, *[0] * 10]
    with pytest.raises(UserError, match=r"was cut off after 0\.5 MB .* these are kept") as error:
        download(f"{server.url}/mn10.pt", tmp_path / "mn10.pt", SHA256, accept)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "mn10.pt").exists()
    assert (tmp_path / ".incomplete" / "mn10.pt").stat().st_size == 500_000


def test_another_hash_is_refused_and_nothing_of_it_is_kept(server: Published, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"SHA-256 {SHA256}, not {'0' * 64}; nothing of it was kept"):
        download(f"{server.url}/mn10.pt", tmp_path / "mn10.pt", "0" * 64, accept)
    assert kept(tmp_path) == []


def test_a_file_that_does_not_load_is_refused_and_nothing_of_it_is_kept(server: Published, tmp_path: Path) -> None:
    def refuse(path: Path) -> None:
        assert path.name == "mn10.pt"  # what its name says is part of what is checked
        raise UserError("a tensor is missing")

    with pytest.raises(UserError, match="a tensor is missing"):
        download(f"{server.url}/mn10.pt", tmp_path / "mn10.pt", None, refuse)
    assert kept(tmp_path) == []


def test_a_file_that_is_not_there_is_one_line(server: Published, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"/nowhere\.pt answers 404"):
        download(f"{server.url}/nowhere.pt", tmp_path / "nowhere.pt", None, accept)


def test_a_server_that_is_gone_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Connection refused"):
        download("http://127.0.0.1:9/mn10.pt", tmp_path / "mn10.pt", None, accept)


@pytest.mark.parametrize("when", ["before", "while"])
def test_a_full_disk_is_one_line_and_keeps_what_came(
    server: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    def full(size: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def shown(*_: object) -> Iterator[Callable[[int], None]]:
        yield full

    if when == "before":
        monkeypatch.setattr(downloading.shutil, "disk_usage", lambda _: downloading.shutil._ntuple_diskusage(9, 8, 1))
    else:
        monkeypatch.setattr(downloading, "_shown", downloading.contextmanager(shown))
    with pytest.raises(UserError, match=r"finds no room in .* free some space, or set SOUSAPHONE_WEIGHTS"):
        download(f"{server.url}/mn10.pt", tmp_path / "mn10.pt", SHA256, accept)
    monkeypatch.undo()
    download(f"{server.url}/mn10.pt", tmp_path / "mn10.pt", SHA256, accept)
    assert (tmp_path / "mn10.pt").read_bytes() == CONTENT
    if when == "while":
        assert server.asked[-1] == "GET /mn10.pt bytes=262144-"


def test_progress_is_told_in_lines_where_there_is_no_terminal(
    server: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(downloading, "_SIGN_OF_LIFE", 0.0)
    server.cuts = [1_000_000]
    download(f"{server.url}/mn10.pt", tmp_path / "mn10.pt", SHA256, accept)
    said = capfd.readouterr().err
    assert f"fetching mn10.pt (3.0 MB) from {server.url}/mn10.pt\n" in said
    assert "; 1.0 MB are here\n" in said
    assert "  mn10.pt: 3.0 MB, 100 %, " in said
    assert "fetched mn10.pt: 2.0 MB in " in said
