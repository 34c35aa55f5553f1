"""What Ctrl-C and SIGTERM do: the first raises KeyboardInterrupt, and those that follow leave the tidying up alone.

Light: a program calls `exit_on_stop` before it imports anything that takes long.
"""

from __future__ import annotations

import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_UNWINDING_SECONDS = 2.0  # in which an exception surely reaches who catches it


def exit_on_stop(message: str) -> None:
    """For a program's start: until `interrupts` a stop ends it with one line and exit code 130."""
    lines = [message]

    def end(name: str) -> NoReturn:
        ignore_stops()
        while lines:
            print(f"\n{lines.pop()}", file=sys.stderr, flush=True)
        sys.exit(130)

    _call(end)


@contextmanager
def interrupts() -> Iterator[None]:
    """Meanwhile a stop raises KeyboardInterrupt, which names the signal; who catches it calls `ignore_stops`."""
    before, hook = [signal.getsignal(each) for each in _SIGNALS], sys.unraisablehook

    def interrupt(name: str) -> NoReturn:
        raise KeyboardInterrupt(name)

    _call(interrupt)
    try:
        yield
    finally:
        for each, handler in zip(_SIGNALS, before, strict=True):
            signal.signal(each, handler)
        sys.unraisablehook = hook


def ignore_stops() -> None:
    """What remains to be done is tidying up."""
    for each in _SIGNALS:
        signal.signal(each, signal.SIG_IGN)


@contextmanager
def stops_deferred() -> Iterator[None]:
    """A stop waits until the block ends. A process that is started in it has the signals blocked."""
    pending: list[int] = []
    # Blocked here they still reach threads of libraries, and then Python's handler.
    handlers = [signal.signal(each, lambda number, frame: pending.append(number)) for each in _SIGNALS]
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for each, handler in zip(_SIGNALS, handlers, strict=True):
            signal.signal(each, handler)
        if pending:
            signal.raise_signal(pending[0])


def _call(stop: Callable[[str], NoReturn]) -> None:
    """A stop calls `stop`, which raises. Another one while that exception is on its way up is passed over."""
    raised, by = -math.inf, signal.SIGINT

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal raised, by
        if time.monotonic() - raised < _UNWINDING_SECONDS:
            return
        raised, by = time.monotonic(), signal.Signals(number)
        stop(by.name)

    def lost(unraisable: Any) -> None:
        # Raised amid a finaliser or a callback of the garbage collector, it goes no further; so once more, later.
        nonlocal raised
        if not issubclass(unraisable.exc_type, KeyboardInterrupt | SystemExit):
            sys.__unraisablehook__(unraisable)
            return
        raised = -math.inf
        listen()
        threading.Timer(0.01, os.kill, (os.getpid(), by)).start()

    def listen() -> None:
        for each in _SIGNALS:
            signal.signal(each, handle)

    listen()
    sys.unraisablehook = lost
