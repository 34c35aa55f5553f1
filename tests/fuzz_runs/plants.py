"""What a stranger may put in the place of a file of a run: code, links, pipes, devices, huge files."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

_HUGE_BYTES = 2**36
# Files that Ray, PyTorch, NumPy, Weights & Biases or Python would read if they were there, relative to the run.
ADDED = (
    *(f"tune/001/{name}" for name in ("tuner.pkl", "trainable.pkl", "searcher-state-1.pkl", "search_gen_state-1.json")),
    *("tune/001/experiment_state-2099-01-01_00-00-00.json", "tune/001/basic-variant-state-2099-01-01_00-00-00.json"),
    *("tune/001/experiment-tag.json", "tune/002/experiment_state-2099-01-01_00-00-00.json", "tune/002/tuner.pkl"),
    *("tune/001/TRIAL/error.pkl", "tune/001/TRIAL/params.pkl", "tune/001/TRIAL/checkpoint_000000/dict_checkpoint.pkl"),
    *("trials/TRIAL/checkpoints/epoch_9999-ffffffff/state.pt", "trials/TRIAL/predictions_also.parquet"),
    *("trials/TRIAL/events.out.tfevents.9999999999.x", "trials/TRIAL/clips.npy", "trials/TRIAL/clips.npz"),
    *("wandb/settings", "wandb/offline-run-20260101_000000-x/run-x.wandb", "sitecustomize.py", "rates.json"),
    *("yardsticks.json", "splits.json"),
)


class Payload:
    """Makes a directory when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


def payload(name: str, marker: Path) -> bytes:
    """Return the content of a file of this name that makes `marker` if its pickles are read."""
    content, suffix, file = pickle.dumps(Payload(marker)), Path(name).suffix, io.BytesIO()
    if suffix == ".json":
        state = {"_type": "CLOUDPICKLE_FALLBACK", "value": content.hex()}
        return json.dumps({"trial_data": [[json.dumps({"x": state}), "{}"]], "runner_data": state, "x": state}).encode()
    if suffix == ".pt":
        torch.save({"state": Payload(marker)}, file)
    elif suffix == ".npy":
        np.save(file, np.array([Payload(marker)], dtype=object), allow_pickle=True)
    elif suffix == ".npz":
        np.savez(file, clips=np.array([Payload(marker)], dtype=object))
    elif suffix == ".parquet":
        # pyarrow's own extension type was a pickle; pandas' metadata name types and indexes.
        extension = {b"ARROW:extension:name": b"arrow.py_extension_type", b"ARROW:extension:metadata": content}
        field = pa.field("player", pa.binary(), metadata=extension)
        pandas = json.dumps({"columns": [{"pandas_type": "object", "numpy_type": content.hex()}], "index_columns": [1]})
        schema = pa.schema([field, pa.field("sample_id", pa.binary())], metadata={b"pandas": pandas.encode()})
        pq.write_table(pa.table([pa.array([content]), pa.array([content])], schema=schema), file)
    elif suffix == ".py":
        return f"import os; os.mkdir({str(marker)!r})".encode()
    else:
        return content
    return file.getvalue()


def _code(path: Path, marker: Path, target: Path) -> None:
    path.write_bytes(payload(path.name, marker))


def _file_link(path: Path, marker: Path, target: Path) -> None:
    path.symlink_to(target / "accounts.json")


def _directory_link(path: Path, marker: Path, target: Path) -> None:
    path.symlink_to(target)


def _pipe(path: Path, marker: Path, target: Path) -> None:
    os.mkfifo(path)


def _device(path: Path, marker: Path, target: Path) -> None:
    os.mknod(path, 0o600 | 0o020000, os.makedev(1, 5))  # /dev/zero


def _huge(path: Path, marker: Path, target: Path) -> None:
    path.touch()
    os.truncate(path, _HUGE_BYTES)


def _directory(path: Path, marker: Path, target: Path) -> None:
    (path / "within").mkdir(parents=True)


PLANTS: dict[str, Callable[[Path, Path, Path], None]] = {
    "code": _code,
    "link to a file": _file_link,
    "link to a directory": _directory_link,
    "pipe": _pipe,
    "device": _device,
    "huge file": _huge,
    "directory": _directory,
}


def plant(kind: str, path: Path, marker: Path, target: Path) -> None:
    """Replace a file or directory. `marker` is made if code runs; `target` is a directory of other people's files.

    Raise an OSError if this user, or this system, cannot make one of this kind.
    """
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    PLANTS[kind](path, marker, target)
