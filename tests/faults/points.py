"""The points of its file operations at which a process can be killed.

Every operation that changes a directory is a point: the process is killed before it, or in the middle of a write, with
half of the bytes on disk. A kill after an operation equals one before the next, or at the end. Writes are those to the
system, below Python's buffers, which a kill discards. There is no point between two writes to one file: the file is as
torn as in the middle of either. Writes by compiled code (pyarrow) are noticed, and torn, when the file is flushed.
"""

from __future__ import annotations

import builtins
import io
import os
import re
import signal
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

_OPERATIONS = {  # of os; pathlib, shutil and tempfile call them
    "fsync": "fsync",
    "mkdir": "mkdir",
    "remove": "unlink",
    "rename": "rename",
    "replace": "rename",
    "rmdir": "rmdir",
    "unlink": "unlink",
}
_CHANGES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_RANDOM = ((r"\.[0-9a-f]{8}\.tmp(?=/|$)", ".*.tmp"), (r"(epoch_\d+)-[0-9a-f]+", r"\1-*"), (r"(tfevents\.).*", r"\1*"))
_real_open = io.open


def steady_name(path: str) -> str:
    """The path without the parts that differ between processes."""
    for pattern, name in _RANDOM:
        path = re.sub(pattern, name, path)
    return path


class Points:
    """Send every point that is passed, or kill the process at one of them."""

    def __init__(self, root: Path, send: Callable[[str, Any], None], kill_at: int | None = None) -> None:
        """
        Args:
            root: the watched directory.
            send: called with "points" and a point's kind and file; for every point, or only before the kill.
            kill_at: the number of the point to kill at, from 0; None: no kill.
        """
        self.root, self._send, self._kill_at = os.path.realpath(root), send, kill_at
        self._passed = 0
        self._paths: dict[int, str] = {}  # of open descriptors
        self._written: set[str] = set()

    def watch(self) -> None:
        """Watch until this process exits."""
        builtins.open = io.open = self._open
        self._watch_os_open()
        for name, kind in _OPERATIONS.items():
            setattr(os, name, self._watched(kind, getattr(os, name)))

    def reach(self, kind: str, file: Any, tear: Callable[[], Any] | None = None, folder: int | None = None) -> None:
        """Kill this process, after `tear`, if this is the point to kill at.

        Args:
            file: a path or an open descriptor; `folder` is the descriptor of the directory that a path is relative to.
        """
        path = self._below(file, folder)
        if path is None:
            return
        if self._kill_at is None or self._passed == self._kill_at:
            self._send("points", (kind, steady_name(path)))
        if self._passed == self._kill_at:
            if tear:
                tear()
            os.kill(os.getpid(), signal.SIGKILL)
        self._passed += 1

    def _below(self, file: Any, folder: int | None = None) -> str | None:
        """The path relative to the root, None if it is not below."""
        parent = "" if folder is None else self._paths.get(folder)
        path = self._paths.get(file) if isinstance(file, int) else os.fsdecode(file)
        if path is None or parent is None:
            return None
        path = os.path.abspath(os.path.join(parent, path))  # noqa: PTH100, PTH118
        return os.path.relpath(path, self.root) if f"{path}/".startswith(f"{self.root}/") else None

    def _watched(self, kind: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def operation(path: Any, *arguments: Any, **options: Any) -> Any:
            if kind == "fsync" and self._unseen(path):
                self.reach("torn write", path, lambda: os.truncate(self._paths[path], os.fstat(path).st_size // 2))
            # A rename is named by its target, not by the temporary file.
            self.reach(kind, arguments[0] if kind == "rename" else path, folder=options.get("dir_fd"))
            return real(path, *arguments, **options)

        return operation

    def _unseen(self, descriptor: int) -> bool:
        """Whether the descriptor is of a file to which Python wrote nothing."""
        path = self._paths.get(descriptor)
        return path is not None and path not in self._written and stat.S_ISREG(os.fstat(descriptor).st_mode)

    def _watch_os_open(self) -> None:
        real = os.open

        def open_descriptor(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
            if flags & _CHANGES:
                self.reach("open", path, folder=dir_fd)
            descriptor = real(path, flags, mode, dir_fd=dir_fd)
            self._paths.pop(descriptor, None)  # of an earlier file
            if (below := self._below(path, dir_fd)) is not None:
                self._paths[descriptor] = os.path.join(self.root, below)  # noqa: PTH118
            return descriptor

        os.open = open_descriptor

    def _open(
        self,
        file: Any,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        closefd: bool = True,
        opener: Any = None,
    ) -> Any:
        if not set(mode) & set("wax+") or self._below(file) is None:
            return _real_open(file, mode, buffering, encoding, errors, newline, closefd, opener)
        if "a" not in mode or not Path(os.fsdecode(file)).exists():  # else nothing changes
            self.reach("open", file)
        self._written.add(os.path.abspath(os.fsdecode(file)))  # noqa: PTH100
        raw = _Raw(self, file, mode.replace("b", "").replace("t", ""))
        if buffering == 0:
            return raw
        buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding, errors, newline)


class _Raw(io.FileIO):
    """A file with a point before its first write to the system and one in the middle of every write."""

    def __init__(self, points: Points, file: Any, mode: str) -> None:
        super().__init__(file, mode)
        self._points, self._begun = points, False

    def write(self, data: Any) -> int:
        content = memoryview(data).cast("B")
        if not self._begun:
            self._points.reach("write", self.name)
        self._begun = True
        self._points.reach("torn write", self.name, lambda: super(_Raw, self).write(content[: len(content) // 2]))
        return super().write(content)
