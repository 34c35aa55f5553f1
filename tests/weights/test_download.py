"""A download is checked before the file appears; a failure is reported in one line and leaves no file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sousaphone.errors import UserError
from sousaphone.weights.download import download
from tests.weights.server import Published

CONTENT = bytes(range(256)) * 1200
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server() -> Iterator[Published]:
    published = Published()
    published.files["/mn10.pt"] = CONTENT
    with published.served():
        yield published


def accept(path: Path) -> None:
    """Accept any file."""


def test_complete_file_is_stored_with_its_origin(server: Published, tmp_path: Path) -> None:
    target = tmp_path / "cache" / "mn10.pt"
    download(f"{server.url}/mn10.pt", target, SHA256, accept)
    assert target.read_bytes() == CONTENT
    note = json.loads((target.parent / "mn10.pt.origin.json").read_text())
    assert note == {"url": f"{server.url}/mn10.pt", "sha256": SHA256}
    assert len(list(target.parent.iterdir())) == 2


def refuse(path: Path) -> None:
    assert path.name == "mn10.pt"  # the check may depend on the name
    raise UserError("a tensor is missing")


@pytest.mark.parametrize(
    ("file", "cut", "sha256", "check", "message"),
    [
        ("mn10.pt", None, "0" * 64, accept, f"{'0' * 64}.*{SHA256}"),
        ("mn10.pt", 100_000, SHA256, accept, "damaged"),
        ("mn10.pt", None, None, refuse, "a tensor is missing"),
        ("nowhere.pt", None, None, accept, r"/nowhere\.pt .*404"),
    ],
)
def test_failed_download_is_one_line_and_leaves_no_file(
    server: Published,
    tmp_path: Path,
    file: str,
    cut: int | None,
    sha256: str | None,
    check: Callable[[Path], None],
    message: str,
) -> None:
    server.cut = cut
    with pytest.raises(UserError, match=message) as error:
        download(f"{server.url}/{file}", tmp_path / file, sha256, check)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_unreachable_server_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Connection refused"):
        download("http://127.0.0.1:9/mn10.pt", tmp_path / "mn10.pt", None, accept)
