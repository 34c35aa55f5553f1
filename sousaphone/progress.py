"""One progress bar on stderr for all that takes long; nothing of it where stderr is no terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

T = TypeVar("T")
Advance = Callable[[float], None]  # told how much more is done


@contextmanager
def progress_bar(title: str, total: float) -> Iterator[Advance]:
    """A bar that moves as it is told, in any unit."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda amount: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(title, total=total)
        yield lambda amount: bar.advance(task, amount)


def tracked(items: Iterable[T], title: str, total: int, begun: str = "", ended: str = "") -> Iterator[T]:
    """The items, with a bar.

    Args:
        begun, ended: said at the start, and at the end with the time it took, where stderr is no terminal; '' for
            nothing.
    """
    console, start = Console(stderr=True), time.monotonic()
    if begun and not console.is_terminal:
        console.print(begun, highlight=False)
    with progress_bar(title, total) as advance:
        for item in items:
            yield item
            advance(1)
    if ended and not console.is_terminal:
        console.print(f"{ended} in {time.monotonic() - start:.0f} s", highlight=False)
