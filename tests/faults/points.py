"""The points at which a process can die on its way through the file system, and its death at one of them.

Every operation below one directory that changes it is a point: its process can die before it, and in the middle of a
write, half of its bytes on disk. A death after an operation is one before the next, or at the end: in between nothing
touches the disk. Writes are those that reach the system, below Python's buffers, which die with the process; between
two writes to one file is no point of its own, for it is as torn as in the middle of either. What compiled code writes
past Python (pyarrow) is seen when it is flushed, and torn then.
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

_OPERATIONS = {  # of os; pathlib, shutil and tempfile come down to them
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
    """The path without what differs from one process to the next."""
    for pattern, name in _RANDOM:
        path = re.sub(pattern, name, path)
    return path


class Points:
    """Tells of every point as it is passed, or of the one at which the process dies."""

    def __init__(self, root: Path, tell: Callable[[str, Any], None], die_at: int | None = None) -> None:
        """
        Args:
            root: the directory that is looked at.
            tell: called with "points" and a point's kind and file; for every point, or only where the process dies.
            die_at: the number of that point, from 0; None: it lives.
        """
        self.root, self._tell, self._die_at = os.path.realpath(root), tell, die_at
        self._passed = 0
        self._paths: dict[int, str] = {}  # of open descriptors
        self._written: set[str] = set()

    def watch(self) -> None:
        """From now on, as long as this process lives."""
        builtins.open = io.open = self._open  # type: ignore[assignment]
        self._watch_os_open()
        for name, kind in _OPERATIONS.items():
            setattr(os, name, self._told(kind, getattr(os, name)))

    def reach(self, kind: str, file: Any, last_act: Callable[[], Any] | None = None, folder: int | None = None) -> None:
        """Die here, after `last_act`, if this is the point to die at.

        Args:
            file: a path or an open descriptor; `folder` is that of the directory a path is relative to.
        """
        path = self._below(file, folder)
        if path is None:
            return
        if self._die_at is None or self._passed == self._die_at:
            self._tell("points", (kind, steady_name(path)))
        if self._passed == self._die_at:
            if last_act:
                last_act()
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

    def _told(self, kind: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def operation(path: Any, *arguments: Any, **options: Any) -> Any:
            if kind == "fsync" and self._unseen(path):
                self.reach("torn write", path, lambda: os.truncate(self._paths[path], os.fstat(path).st_size // 2))
            # What a rename makes is of interest, and not its temporary name.
            self.reach(kind, arguments[0] if kind == "rename" else path, folder=options.get("dir_fd"))
            return real(path, *arguments, **options)

        return operation

    def _unseen(self, descriptor: int) -> bool:
        """Whether it is of a file that no write was seen to."""
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

        os.open = open_descriptor  # type: ignore[assignment]

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
        if "a" not in mode or not Path(os.fsdecode(file)).exists():  # else it changes nothing
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
