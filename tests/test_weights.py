"""Where weights come from: what `auto` finds, and in which order."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sousaphone import weights
from sousaphone.backbones.registry import REGISTRY
from sousaphone.backbones.spec import WeightSource
from sousaphone.errors import UserError

FILE = "mn10_as_mAP_471.pt"


@pytest.fixture
def torch_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Torch's cache of checkpoints, empty; nothing in SOUSAPHONE_WEIGHTS."""
    monkeypatch.delenv("SOUSAPHONE_WEIGHTS", raising=False)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    return tmp_path / "hub" / "checkpoints"


def without_network(url: str, dst: str, *args: object, **options: object) -> None:
    raise OSError("no network")


def test_a_file_at_an_address_is_downloaded_once(tmp_path: Path, torch_home: Path) -> None:
    published = tmp_path / "published" / FILE
    published.parent.mkdir()
    published.write_bytes(b"weights")
    source = WeightSource(url=published.as_uri(), file=FILE)
    assert weights._download(source) == torch_home / FILE
    published.unlink()
    found = weights._download(source)
    assert found is not None
    assert found.read_bytes() == b"weights"
    assert [path.name for path in torch_home.iterdir()] == [FILE]


def test_a_download_that_fails_leaves_nothing_behind(tmp_path: Path, torch_home: Path) -> None:
    assert weights._download(WeightSource(url=(tmp_path / "nowhere.pt").as_uri())) is None
    assert list(torch_home.iterdir()) == []


def test_the_users_own_directory_comes_first(tmp_path: Path, torch_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOUSAPHONE_WEIGHTS", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", without_network)
    (tmp_path / FILE).write_bytes(b"mine")
    assert weights.resolve("efficientat", "base", "auto") == str(tmp_path / FILE)


def test_without_a_file_or_a_network_one_line_names_file_and_option(
    torch_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "download_url_to_file", without_network)
    url = REGISTRY["efficientat"].weights[0].url
    with pytest.raises(UserError, match=FILE) as error:
        weights.resolve("efficientat", "base", "auto")
    assert str(url) in str(error.value)
    assert "--weights efficientat=PATH" in str(error.value)
