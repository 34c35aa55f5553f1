"""Checkpoints as versions before safetensors wrote them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from sousaphone.runs.trial_record import CHECKPOINTS_NAME


def save_older(trial: Path, epoch: int, attempt: str, state: Any) -> Path:
    """Write state.pt and manifest.json."""
    directory = trial / CHECKPOINTS_NAME / f"epoch_{epoch:04d}-{attempt}"
    directory.mkdir(parents=True, exist_ok=True)
    torch.save(state, directory / "state.pt")
    content = (directory / "state.pt").read_bytes()
    identity = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (directory / "manifest.json").write_text(json.dumps({"epoch": epoch, **identity}))
    return directory
