"""A trial's checkpoints: written whole or not at all, never under a name used before, checked when read.

`checkpoints/epoch_0007-1f3a9c2b/` holds `state.pt` and `manifest.json` (its size and SHA-256). The suffix is of one
attempt: a worker that outlives its driver never writes into its successor's.
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
from sousaphone.runs.trial_record import CHECKPOINTS_NAME

KEPT = 2
_NAME = re.compile(r"epoch_(\d+)-[0-9a-f]+")


def save(trial: Path, epoch: int, attempt: str, state: dict[str, Any]) -> Path:
    """Write the state of an epoch, then drop all but the newest checkpoints.

    Args:
        trial: the trial's directory.
        attempt: hexadecimal name of this start of the trial.
    """
    root = trial / CHECKPOINTS_NAME
    root.mkdir(exist_ok=True)
    final = root / f"epoch_{epoch:04d}-{attempt}"
    with atomic_write(final) as temporary:
        temporary.mkdir()
        with (temporary / "state.pt").open("wb") as file:  # by path, a full disk would not show as such
            torch.save(state, file)
        manifest = {"epoch": epoch, **_identity(temporary / "state.pt")}
        (temporary / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    _drop_old(root)
    return final


def newest(trial: Path) -> dict[str, Any] | None:
    """The state of the newest whole checkpoint, None if there is none; damaged ones are passed over."""
    for directory in _newest_first(trial / CHECKPOINTS_NAME):
        try:
            manifest = json.loads((directory / "manifest.json").read_text(encoding="utf-8"))
            if manifest.items() >= _identity(directory / "state.pt").items():
                state: dict[str, Any] = torch.load(directory / "state.pt", map_location="cpu", weights_only=True)
                return state
        except (OSError, ValueError, RuntimeError, pickle.UnpicklingError):
            continue
    return None


def newest_bytes(trial: Path) -> int:
    """The size of the newest checkpoint's state, 0 if there is none."""
    for directory in _newest_first(trial / CHECKPOINTS_NAME):
        return (directory / "state.pt").stat().st_size
    return 0


def remove_temporary_files(trial: Path) -> None:
    """Remove what a killed `save` left half-done or had yet to remove."""
    for temporary_files in (trial / CHECKPOINTS_NAME).glob(".*.tmp"):
        shutil.rmtree(temporary_files, ignore_errors=True)
    _drop_old(trial / CHECKPOINTS_NAME)


def _drop_old(root: Path) -> None:
    for old in _newest_first(root)[KEPT:]:
        shutil.rmtree(old, ignore_errors=True)


def _newest_first(root: Path) -> list[Path]:
    found = [
        (int(match[1]), path.stat().st_mtime_ns, path)
        for path in root.glob("epoch_*")
        if (match := _NAME.fullmatch(path.name))
    ]
    return [path for *_, path in sorted(found, reverse=True)]


def _identity(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
