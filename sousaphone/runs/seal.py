"""Seals of files that this installation wrote: an HMAC-SHA256 with a key in the user's configuration directory.

Ray's files contain pickles, which execute code when they are read, and run.json names the data set; a run directory may
come from anybody, so both are trusted only under a seal. Seals contain relative names: a run may be moved or copied.
Without a writable configuration directory nothing is sealed.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from sousaphone.files import atomic_write, read_small

_NAME = ".seal"
_KEY_BYTES = 32
_MOST_BYTES = 2**30  # of the sealed files: hashing what somebody sent must not take minutes


def pickles(experiment: Path) -> list[Path]:
    """Return the files of an experiment that Ray may unpickle: those at its top, and any pickle below it."""
    top = (path for path in experiment.iterdir() if path.is_file() and not path.name.startswith("."))
    return sorted({*top, *experiment.rglob("*.pkl")})


def seal(directory: Path, paths: Iterable[Path]) -> None:
    """Seal the files, which are below the directory; without a key, or on a full disk, there is no seal."""
    with suppress(OSError, RuntimeError, ValueError), atomic_write(directory / _NAME) as temporary:
        temporary.write_text(_code(directory, paths, _key(create=True)), encoding="utf-8")


def is_sealed(directory: Path, paths: Iterable[Path]) -> bool:
    """Whether exactly these files, with their present content, are sealed."""
    try:
        code = read_small(directory / _NAME)
        return hmac.compare_digest(code, _code(directory, paths, _key(create=False)).encode())
    except (OSError, RuntimeError, ValueError):
        return False


def _code(directory: Path, paths: Iterable[Path], key: bytes) -> str:
    code, left = hmac.new(key, digestmod="sha256"), _MOST_BYTES
    for path in paths:
        left -= path.stat().st_size
        if left < 0:
            raise ValueError(f"{path} is too large")
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        code.update(os.fsencode(path.relative_to(directory)) + f"\0{content}\n".encode())
    return code.hexdigest()


def _key(create: bool) -> bytes:
    """Return the user's key; raise an OSError or a RuntimeError if there is none, or it cannot be made."""
    configuration = os.environ.get("XDG_CONFIG_HOME", "")
    parent = Path(configuration) if Path(configuration).is_absolute() else Path.home() / ".config"
    path = parent / "sousaphone" / "key"
    if create and not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{secrets.token_hex(8)}")
        try:
            temporary.touch(0o600, exist_ok=False)
            temporary.write_bytes(secrets.token_bytes(_KEY_BYTES))
            with suppress(FileExistsError):  # another process was faster
                path.hardlink_to(temporary)
        finally:
            temporary.unlink(missing_ok=True)
    if len(key := path.read_bytes()) < _KEY_BYTES:
        raise OSError(f"{path} is damaged")
    return key
