"""Checkpoints of a trial: written atomically, each under a new name, and verified when read.

`checkpoints/epoch_0007-1f3a9c2b/` contains a state of `fit`: its tensors in `model.safetensors`, `best.safetensors`
and `optimizer.safetensors`, everything else in `state.json`; `manifest.json` has the size and SHA-256 of these files.
Earlier versions wrote `state.pt` with `torch.save`, which is still read. The suffix identifies one attempt, so that a
worker that outlives its driver never writes into the checkpoints of a later worker.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sousaphone.files import atomic_write, read_small, remove_temporary_files
from sousaphone.runs import schema
from sousaphone.runs.trial_record import CHECKPOINTS_NAME, plain
from sousaphone.training import tensor_files

KEPT = 2
_NAME = re.compile(r"epoch_(\d+)-[0-9a-f]+")
_STATE, _MANIFEST, _OLDER = "state.json", "manifest.json", "state.pt"
_PARTS = ("model", "best", "optimizer")
_SPARE_BYTES = 64 * 2**20  # that a file may have in addition to its tensors

State = dict[str, Any]
Tensors = dict[str, dict[str, Tensor]]  # by part and name


def save(trial: Path, epoch: int, attempt: str, state: State) -> Path:
    """Write the state of an epoch, then remove all but the `KEPT` newest checkpoints. `attempt` is hexadecimal."""
    root = trial / CHECKPOINTS_NAME
    root.mkdir(exist_ok=True)
    final = root / f"epoch_{epoch:04d}-{attempt}"
    content, tensors = _split(state)
    with atomic_write(final) as temporary:
        temporary.mkdir()
        (temporary / _STATE).write_text(json.dumps(content, allow_nan=False), encoding="utf-8")
        for part in _PARTS:
            tensor_files.write(temporary / f"{part}.safetensors", tensors[part])
        manifest = {"epoch": epoch, "files": {path.name: _identity(path) for path in sorted(temporary.iterdir())}}
        (temporary / _MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    _keep(final)
    return final


def newest(trial: Path, fits: Callable[[State], bool] = lambda state: True) -> State | None:
    """Return the state of the newest intact checkpoint, None if there is none; damaged ones are ignored.

    Args:
        fits: whether the tensors of a state have the right names, types and shapes. Before that is known no tensor is
            read; the checkpoint may come from anybody.
    """
    return next((state for _, state in _intact(trial, fits)), None)


def resume(trial: Path, fits: Callable[[State], bool]) -> State | None:
    """As `newest`; also remove what a killed `save` has left, and damaged checkpoints of the same or a later epoch."""
    remove_temporary_files(trial / CHECKPOINTS_NAME)
    for directory, state in _intact(trial, fits):
        _keep(directory)
        return state
    return None


def size(state: State) -> int:
    """The bytes of a state's tensors."""
    return sum(tensor.nbytes for named in _split(state)[1].values() for tensor in named.values())


def _intact(trial: Path, fits: Callable[[State], bool]) -> Iterator[tuple[Path, State]]:
    """The intact checkpoints, the newest first."""
    for directory in _newest_first(trial / CHECKPOINTS_NAME):
        try:
            content, tensors, identities = _open(directory, trial)
            state = _join(content, tensors)
        except (OSError, ValueError):
            continue
        if not fits(state):
            continue
        try:
            _verify(directory, identities, size(state) + _SPARE_BYTES)
        except (OSError, ValueError):
            continue
        copies = {part: {name: tensor.clone() for name, tensor in named.items()} for part, named in tensors.items()}
        yield directory, _join(content, copies)


def _keep(newest: Path) -> None:
    """Remove all checkpoints but this intact one and the `KEPT` - 1 before it; later ones are damaged."""
    found = _newest_first(newest.parent)
    before = [path for path in found if _epoch(path) < _epoch(newest)][: KEPT - 1]
    for path in found:
        if path not in (newest, *before):
            shutil.rmtree(path, ignore_errors=True)


def _newest_first(root: Path) -> list[Path]:
    found = [path for path in root.glob("epoch_*") if _NAME.fullmatch(path.name) and path.is_dir()]
    return sorted(found, key=lambda path: (_epoch(path), path.stat().st_mtime_ns, path), reverse=True)


def _epoch(path: Path) -> int:
    return int(path.name.removeprefix("epoch_").partition("-")[0])


def _open(directory: Path, trial: Path) -> tuple[State, Tensors, Mapping[str, Any]]:
    """Return the content, the mapped tensors, and the identities of the files that are not verified yet. Raise an
    OSError or a ValueError if the checkpoint is damaged or has files outside the trial."""
    tensor_files.refuse_outside(directory / _MANIFEST, trial)
    manifest = schema.read(directory / _MANIFEST, schema.MANIFEST)
    if (older := directory / _OLDER).exists():
        state = tensor_files.read_older(older, trial)
        try:
            content, tensors = _split(state)
        except Exception as error:  # it may be anything
            raise ValueError(f"{older} is not the state of a trial") from error
        tensors = {part: tensor_files.as_tensors(named, older) for part, named in tensors.items()}
        return schema.check(content, schema.CHECKPOINT, str(older)), tensors, {_OLDER: manifest}
    tensor_files.refuse_outside(directory / _STATE, trial)
    text = read_small(directory / _STATE)
    identities = dict(manifest.get("files", {}))
    if identities.pop(_STATE, None) != {"bytes": len(text), "sha256": hashlib.sha256(text).hexdigest()}:
        raise ValueError(f"{directory / _STATE} is damaged")
    paths = {part: directory / f"{part}.safetensors" for part in _PARTS}
    if identities.keys() != {path.name for path in paths.values()}:
        raise ValueError(f"{directory / _MANIFEST} lists other files")
    tensors = {part: tensor_files.read(path, trial) for part, path in paths.items()}
    return schema.parse(text, schema.CHECKPOINT, str(directory / _STATE)), tensors, identities


def _verify(directory: Path, identities: Mapping[str, Any], most_bytes: int) -> None:
    for path, identity in ((directory / name, identity) for name, identity in identities.items()):
        if path.stat().st_size > most_bytes or not identity.items() >= _identity(path).items():
            raise ValueError(f"{path} is damaged")


def _split(state: State) -> tuple[State, Tensors]:
    """Separate a state into JSON and tensors. AdamW's steps are JSON: they list the parameters that have moments."""
    best, optimizer = state["best"], state["optimizer"]
    content = {
        **{name: state[name] for name in ("config", "base", "end")},
        "history": [
            {name: plain(value) if isinstance(value, float) else value for name, value in row.items()}
            for row in state["history"]
        ],
        "best": {"epoch": best["epoch"], "score": best["score"]},
        "param_groups": optimizer["param_groups"],
        "steps": {index: moments["step"].item() for index, moments in optimizer["state"].items()},
    }
    moments = {
        f"{index}.{name}": tensor
        for index, named in optimizer["state"].items()
        for name, tensor in named.items()
        if name != "step"
    }
    return content, {"model": state["model"], "best": best["model"], "optimizer": moments}


def _join(content: State, tensors: Tensors) -> State:
    """Restore a state from what `_split` returned; raise a ValueError if its parts do not match."""
    indices = {str(index): index for index in content["steps"]}
    moments = {index: {"step": torch.tensor(step, dtype=torch.float32)} for index, step in content["steps"].items()}
    for key, tensor in tensors["optimizer"].items():
        index, _, name = key.partition(".")
        if index not in indices or name == "step":
            raise ValueError(f"{key!r:.40} belongs to no parameter")
        moments[indices[index]][name] = tensor
    return {
        **{name: content[name] for name in ("config", "base", "end", "history")},
        "model": tensors["model"],
        "optimizer": {"state": moments, "param_groups": content["param_groups"]},
        "best": {**content["best"], "model": tensors["best"]},
    }


def _identity(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
