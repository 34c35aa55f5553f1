"""Files and directories written whole or not at all, and where the program keeps its own."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sousaphone.hardware import home_directory


def cache_directory() -> Path:
    """Where waveforms and the built-in data set are kept: SOUSAPHONE_CACHE, or the user's cache directory.

    Raises:
        UserError: neither is known.
    """
    given = os.environ.get("SOUSAPHONE_CACHE")
    if given:
        return Path(given).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else home_directory() / ".cache") / "sousaphone"


@contextmanager
def atomic_write(path: Path, durable: bool = True) -> Iterator[Path]:
    """A temporary path beside `path`, for a file or a directory of files; on leaving without an error it takes its
    place, and is removed after one.

    Args:
        durable: it is flushed to disk before; otherwise a power cut may leave it empty.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        yield temporary
        if durable:
            for written in (*(temporary.iterdir() if temporary.is_dir() else ()), temporary):
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
    """Remove what killed writes left half-done anywhere below a directory; only an orphan may still be at it."""
    for temporary_files in root.rglob(".*.tmp"):
        if temporary_files.is_file():
            temporary_files.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """fsync a file or a directory, so that a rename that follows cannot outlive the content."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
