"""A machine without weights and without a network."""

from __future__ import annotations

import io
from pathlib import Path
from urllib.error import URLError

import huggingface_hub.constants
import pytest
import torch

from sousaphone.backbones.efficientat import Channels, MobileNet
from sousaphone.weights import download


class Machine:
    """The directories of weights."""

    def __init__(self, root: Path) -> None:
        self.own, self.hub, self.torch = root / "own", root / "hub", root / "torch" / "checkpoints"
        for directory in (self.own, self.hub, self.torch):
            directory.mkdir(parents=True)

    def into_hub_cache(self, repository: str, files: dict[str, bytes], kind: str = "models") -> Path:
        """Write files in the layout of the hub's cache and return the snapshot."""
        commit = "0123456789abcdef0123456789abcdef01234567"
        place = self.hub / f"{kind}--{repository.replace('/', '--')}"
        snapshot = place / "snapshots" / commit
        snapshot.mkdir(parents=True)
        (place / "refs").mkdir()
        (place / "refs" / "main").write_text(commit)
        for name, content in files.items():
            (snapshot / name).write_bytes(content)
        return snapshot


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    found = Machine(tmp_path / "machine")
    monkeypatch.delenv("SOUSAPHONE_WEIGHTS", raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(found.hub))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(found.torch.parent))

    def no_network(*_: object, **__: object) -> None:
        raise URLError("Network is unreachable")

    monkeypatch.setattr(download, "urlopen", no_network)
    return found


@pytest.fixture
def small_mn() -> bytes:
    """An EfficientAT file in the official format, of width 0.1."""
    net, buffer = MobileNet(Channels.of_width(0.1)), io.BytesIO()
    state = net.state_dict()
    torch.save({official: state[key] for key, official in net.official_keys().items()}, buffer)
    return buffer.getvalue()
