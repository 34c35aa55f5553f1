"""Atomic writes of files and directories, reading of small files of any origin, and the cache directory."""

from __future__ import annotations

import errno
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sousaphone.hardware import home_directory

_MOST_BYTES = 64_000_000  # of a small file
_NOT_OFFERED = (errno.EINVAL, errno.ENOTSUP, errno.EBADF)  # by network file systems, for a directory


def cache_directory() -> Path:
    """The directory of waveforms and the built-in data set: SOUSAPHONE_CACHE, or below the user's cache directory."""
    if given := os.environ.get("SOUSAPHONE_CACHE"):
        return expanded(given).absolute()
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else home_directory() / ".cache") / "sousaphone"  # as its specification requires


def expanded(path: Path | str) -> Path:
    """A path with `~` replaced by the home directory; one of an unknown user stays as it is."""
    return Path(os.path.expanduser(path))  # noqa: PTH111, since Path.expanduser raises a RuntimeError for such a user


def read_small(path: Path) -> bytes:
    """Read a regular file of limited size; raise a one-line ValueError, or an OSError."""
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is not a file")
    if path.stat().st_size > _MOST_BYTES:
        raise ValueError(f"{path} is damaged (it is larger than {_MOST_BYTES // 10**6} MB)")
    return path.read_bytes()


def read_json(path: Path) -> Any:
    """Read a small JSON file; raise a ValueError, or an OSError."""
    try:
        return json.loads(read_small(path))
    except RecursionError:
        raise ValueError(f"{path} is nested too deeply") from None


@contextmanager
def atomic_write(path: Path, durable: bool = True, aside: Path | None = None) -> Iterator[Path]:
    """Yield a temporary path next to `path`, for a file or a directory of files; it replaces `path` at the end of the
    block, or is removed if the block raises. Unless `durable`, a power cut may leave an empty file. A directory that is
    not empty cannot be replaced: it is renamed to `aside`."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        yield temporary
        if durable:
            for written in (*temporary.rglob("*"), temporary):
                flush(written)
        if aside is not None:
            path.rename(aside)
        temporary.replace(path)
        if durable:
            flush(path.parent)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Any, durable: bool = True, **form: Any) -> None:
    """Write a JSON file by `atomic_write`; `form` are options of json.dumps."""
    with atomic_write(path, durable) as temporary:
        temporary.write_text(json.dumps(content, **form), encoding="utf-8")


def remove_temporary_files(root: Path) -> None:
    """Remove what killed writes left below a directory; only an orphaned process may still use it."""
    for path in list(root.rglob(".*.????????.tmp")):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """fsync a file or a directory, so that a later rename cannot reach the disk before the content."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NOT_OFFERED or not path.is_dir():
            raise
    finally:
        os.close(descriptor)
