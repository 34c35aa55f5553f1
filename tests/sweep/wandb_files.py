"""Reads what W&B wrote offline: `run-ID.wandb`, LevelDB's log format (github.com/google/leveldb, doc/log_format.md)
after a header of W&B's own, holding one protocol buffer a record. W&B's own reader is not in its Python part."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2

_BLOCK, _HEAD = 2**15, struct.Struct("<IHB")  # checksum, length, kind
_FULL, _FIRST, _LAST = 1, 2, 4
_FILE_HEADER = 7  # ":W&B", magic, version


def records(path: Path) -> Iterator[Any]:
    """Yield all whole records, up to one that a kill cut off."""
    content = path.read_bytes()
    assert content[:4] == b":W&B"
    at, parts = _FILE_HEADER, b""
    while at + _HEAD.size <= len(content):
        if _BLOCK - at % _BLOCK < _HEAD.size:  # a block's last bytes, too few for a head
            at += _BLOCK - at % _BLOCK
            continue
        _, length, kind = _HEAD.unpack_from(content, at)
        part = content[at + _HEAD.size : at + _HEAD.size + length]
        if kind == 0 or len(part) < length:
            return
        parts = part if kind in (_FULL, _FIRST) else parts + part
        at += _HEAD.size + length
        if kind in (_FULL, _LAST):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            yield record


def history(path: Path) -> list[dict[str, Any]]:
    """Return the logged rows, without W&B's own values."""
    rows = [
        {".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
        for record in records(path)
        if record.WhichOneof("record_type") == "history"
    ]
    return [{name: value for name, value in row.items() if not name.startswith("_")} for row in rows]


def run_info(path: Path) -> Any:
    """Return id, name, group, project and configuration of the W&B run."""
    return next(record.run for record in records(path) if record.WhichOneof("record_type") == "run")


def is_finished(path: Path) -> bool:
    """Whether the W&B run was finished."""
    return any(record.WhichOneof("record_type") == "exit" for record in records(path))
