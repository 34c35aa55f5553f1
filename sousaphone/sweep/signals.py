"""What Ctrl-C and a termination signal do."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def signals_call(end: Callable[[str], None]) -> Iterator[None]:
    """Either of them calls `end`, with its name."""

    def handle(number: int, frame: Any) -> None:
        end(signal.Signals(number).name)

    before: list[Callable[..., Any] | int | None] = [signal.signal(name, handle) for name in _SIGNALS]
    try:
        yield
    finally:
        for name, handler in zip(_SIGNALS, before, strict=True):
            if signal.getsignal(name) is handle:  # else they are ignored by now, and stay so
                signal.signal(name, handler)


def interrupt(name: str) -> NoReturn:
    """SIGTERM as Ctrl-C."""
    raise KeyboardInterrupt(name)


def let_pass(name: str) -> None:
    """As if there had been none."""


def ignore_signals() -> None:
    """A second Ctrl-C must not cut off the tidying up after the first."""
    for name in _SIGNALS:
        signal.signal(name, signal.SIG_IGN)
