"""Paths given by the user: every operating system error becomes a `UserError`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sousaphone.errors import UserError
from sousaphone.files import expanded
from sousaphone.text import one_line

SUFFIXES = (".wav", ".flac", ".mp3", ".ogg")  # of recordings
LISTS = (".csv", ".jsonl")  # suffixes of files that list recordings


def local_path(given: Path | str) -> Path:
    """Return the absolute path, with ~ expanded. It need not exist, but must be accessible."""
    if given == "":  # would be the current directory
        raise UserError(
            "the path of the data set is '' (perhaps an unset variable); give a directory, a CSV or JSONL file, "
            "or hub:OWNER/NAME"
        )
    with accessible(given):
        path = expanded(given).absolute()
        with suppress(FileNotFoundError, NotADirectoryError):
            path.stat()
        return path


@contextmanager
def accessible(path: Path | str) -> Iterator[None]:
    """Convert errors of access at or below a path (permission, name too long, link loop) to a `UserError`."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # pathlib raises RuntimeError for link loops and unknown homes
        raise UserError(
            f"{str(path)!r} is not accessible ({one_line(error)}); make it readable, or give another path"
        ) from None
