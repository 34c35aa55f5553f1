"""Handling of Ctrl-C, SIGTERM and SIGHUP ("stops"): the first raises KeyboardInterrupt, later ones do not disturb the
cleanup.

Imports no large package: a program calls `exit_on_stop` before its slow imports.
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
from multiprocessing import resource_tracker
from types import FrameType
from typing import Any, NoReturn

_IGNORED = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN  # by nohup
STOPS = (signal.SIGINT, signal.SIGTERM) if _IGNORED else (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_UNWINDING_SECONDS = 2.0  # within which an exception reaches its handler


def exit_on_stop(message: str) -> None:
    """Until `interrupts` is entered, make a stop print the message once and exit with code 130."""
    lines = [message]

    def end(name: str) -> NoReturn:
        ignore_stops()
        while lines:
            print(f"\n{lines.pop()}", file=sys.stderr, flush=True)
        sys.exit(130)

    _install(end)


@contextmanager
def interrupts() -> Iterator[None]:
    """Make a stop raise KeyboardInterrupt with the signal's name; its handler must call `ignore_stops`."""
    before, hook = [signal.getsignal(each) for each in STOPS], sys.unraisablehook

    def interrupt(name: str) -> NoReturn:
        raise KeyboardInterrupt(name)

    _install(interrupt)
    try:
        yield
    finally:
        for each, handler in zip(STOPS, before, strict=True):
            signal.signal(each, handler)
        sys.unraisablehook = hook


def ignore_stops() -> None:
    """Ignore stops from now on, during the cleanup."""
    for each in STOPS:
        signal.signal(each, signal.SIG_IGN)


@contextmanager
def stops_deferred() -> Iterator[None]:
    """In the main thread, defer a stop until the block ends."""
    pending: list[int] = []
    # Signals blocked in this thread still reach other threads, and then Python's handler in the main thread.
    deferred = STOPS if threading.current_thread() is threading.main_thread() else ()
    handlers = [signal.signal(each, lambda number, frame: pending.append(number)) for each in deferred]
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for each, handler in zip(deferred, handlers, strict=True):
            signal.signal(each, handler)
        if pending:
            signal.raise_signal(pending[0])


@contextmanager
def starts_process() -> Iterator[None]:
    """`stops_deferred` for a block that starts a process, which has the signals blocked, in any thread."""
    resource_tracker.ensure_running()  # multiprocessing starts it with the first process, which would unblock them
    with stops_deferred():
        yield


def _install(stop: Callable[[str], NoReturn]) -> None:
    """Call `stop`, which raises, on a stop. Further stops are ignored while that exception propagates."""
    raised, by = -math.inf, signal.SIGINT

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal raised, by
        if time.monotonic() - raised < _UNWINDING_SECONDS:
            return
        raised, by = time.monotonic(), signal.Signals(number)
        stop(by.name)

    def lost(unraisable: Any) -> None:
        # Python swallows an exception raised in a finaliser or a garbage-collector callback, so send the signal again.
        nonlocal raised
        if not issubclass(unraisable.exc_type, KeyboardInterrupt | SystemExit):
            sys.__unraisablehook__(unraisable)
            return
        raised = -math.inf
        listen()
        threading.Timer(0.01, os.kill, (os.getpid(), by)).start()

    def listen() -> None:
        for each in STOPS:
            signal.signal(each, handle)

    listen()
    sys.unraisablehook = lost
