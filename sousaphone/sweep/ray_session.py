"""The private directory of the Ray that one launch starts: its token, sockets and logs, in a directory of mode 700."""

from __future__ import annotations

import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from sousaphone.errors import UserError

_SOCKET_PATH_BYTES = 107 if sys.platform == "linux" else 103  # maximum path of a Unix socket, without the final zero
_TOKEN = "token"


def make_session() -> Path:
    """Make the directory below RAY_TMPDIR, with a new token; raise a UserError if Ray cannot use one there."""
    given = os.environ.get("RAY_TMPDIR") or (os.environ.get("TMPDIR") if sys.platform == "linux" else None) or "/tmp"
    parent = Path(given).absolute()  # Ray accepts no relative path
    if not str(parent).isascii():
        raise UserError(f"the path of Ray's temporary directory {parent} is not ASCII; set RAY_TMPDIR to one that is")
    # The longest socket path in it.
    longest = f"{parent}/ray-01234567/ray/session_2026-01-01_00-00-00_000000_{os.getpid()}/sockets/plasma_store"
    excess = len(os.fsencode(longest)) - _SOCKET_PATH_BYTES
    if excess > 0:
        raise UserError(
            f"Ray's temporary directory {parent} has a path too long for sockets, by {excess} characters; set "
            "RAY_TMPDIR to a shorter one, such as /tmp"
        )
    try:
        parent.mkdir(parents=True, exist_ok=True)
        directory = Path(tempfile.mkdtemp(prefix="ray-", dir=parent))  # of mode 700
        (directory / _TOKEN).touch(0o600)
        (directory / _TOKEN).write_text(secrets.token_hex(32), encoding="ascii")
    except OSError as error:
        raise UserError(
            f"Ray's temporary directory cannot be made in {parent} ({error.strerror}); set RAY_TMPDIR to a writable one"
        ) from error
    return directory


def end_session(directory: Path, keep_logs: bool) -> None:
    """Remove the directory after Ray has ended, or, with `keep_logs`, only its token."""
    (directory / _TOKEN).unlink(missing_ok=True)
    if not keep_logs:
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def session_environment(directory: Path) -> Iterator[None]:
    """Let a process started in the block start Ray with this directory and token, on the loopback interface only."""
    changes = {
        "RAY_TMPDIR": str(directory),
        "RAY_ADDRESS": None,  # it may be empty, which Ray refuses
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(directory / _TOKEN),
        "RAY_AUTH_TOKEN": None,  # would replace the file's
        # Ray's default on macOS and Windows; then the node's address is 127.0.0.1, which all services listen on.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    }
    before = {name: os.environ.get(name) for name in changes}
    _set_variables(changes)
    try:
        yield
    finally:
        _set_variables(before)


def _set_variables(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
