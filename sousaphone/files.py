"""Atomic writes of files and directories, and the cache directory."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sousaphone.hardware import home_directory


def cache_directory() -> Path:
    """The directory of waveforms and the built-in data set: SOUSAPHONE_CACHE, or below the user's cache directory."""
    if given := os.environ.get("SOUSAPHONE_CACHE"):
        return Path(given).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else home_directory() / ".cache") / "sousaphone"


@contextmanager
def atomic_write(path: Path, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary path next to `path`, for a file or a directory of files; it replaces `path` at the end of the
    block, or is removed if the block raises. Unless `durable`, a power cut may leave an empty file."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        yield temporary
        if durable:
            for written in (*temporary.rglob("*"), temporary):
                flush(written)
        temporary.replace(path)
        if durable:
            flush(path.parent)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)


def remove_temporary_files(root: Path) -> None:
    """Remove the temporary files of killed writes below a directory; only an orphaned process may still use them."""
    for path in root.rglob(".*.tmp"):
        if path.is_file():
            path.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """fsync a file or a directory, so that a later rename cannot reach the disk before the content."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
