"""Checkpoints of a trial: written atomically, each under a new name, and verified when read.

`checkpoints/epoch_0007-1f3a9c2b/` contains `state.pt` and `manifest.json` with its size and SHA-256. The suffix
identifies one attempt, so that a worker that outlives its driver never writes into the checkpoints of a later worker.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import re
import shutil
from pathlib import Path
from typing import Any

import torch

from sousaphone.files import atomic_write
from sousaphone.runs import schema
from sousaphone.runs.trial_record import CHECKPOINTS_NAME

KEPT = 2
_NAME = re.compile(r"epoch_(\d+)-[0-9a-f]+")


def save(trial: Path, epoch: int, attempt: str, state: dict[str, Any]) -> Path:
    """Write the state of an epoch, then remove all but the `KEPT` newest checkpoints. `attempt` is hexadecimal."""
    root = trial / CHECKPOINTS_NAME
    root.mkdir(exist_ok=True)
    final = root / f"epoch_{epoch:04d}-{attempt}"
    with atomic_write(final) as temporary:
        temporary.mkdir()
        with (temporary / "state.pt").open("wb") as file:  # given a path, torch.save would hide that the disk is full
            torch.save(state, file)
        manifest = {"epoch": epoch, **_identity(temporary / "state.pt")}
        (temporary / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    _remove_old(root)
    return final


def newest(trial: Path) -> dict[str, Any] | None:
    """Return the state of the newest intact checkpoint, None if there is none; damaged ones are ignored."""
    for directory in _newest_first(trial / CHECKPOINTS_NAME):
        try:
            manifest = schema.read(directory / "manifest.json", schema.MANIFEST)
            if manifest.items() >= _identity(directory / "state.pt").items():
                return torch.load(directory / "state.pt", map_location="cpu", weights_only=True)
        except (OSError, ValueError, RuntimeError, pickle.UnpicklingError):
            continue
    return None


def newest_bytes(trial: Path) -> int:
    """The size of the newest checkpoint's state, 0 without checkpoints."""
    sizes = ((directory / "state.pt").stat().st_size for directory in _newest_first(trial / CHECKPOINTS_NAME))
    return next(sizes, 0)


def remove_temporary_files(trial: Path) -> None:
    """Remove the temporary files and old checkpoints that a killed `save` left behind."""
    for path in (trial / CHECKPOINTS_NAME).glob(".*.tmp"):
        shutil.rmtree(path, ignore_errors=True)
    _remove_old(trial / CHECKPOINTS_NAME)


def _remove_old(root: Path) -> None:
    for old in _newest_first(root)[KEPT:]:
        shutil.rmtree(old, ignore_errors=True)


def _newest_first(root: Path) -> list[Path]:
    matches = [(_NAME.fullmatch(path.name), path) for path in root.glob("epoch_*")]
    found = [(int(match[1]), path.stat().st_mtime_ns, path) for match, path in matches if match]
    return [path for *_, path in sorted(found, reverse=True)]


def _identity(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
