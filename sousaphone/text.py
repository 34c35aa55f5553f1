"""What a terminal shows: durations (`90m`, `1h30m`, `about 11 h 30 min`), numbers of things, errors, progress bars."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from sousaphone.errors import UserError

_UNITS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
_DURATION = re.compile(r"(?=.)" + "".join(rf"(?:(?P<{unit}>\d+(?:\.\d+)?){unit})?" for unit in _UNITS))
T = TypeVar("T")
Announce = Callable[[str], None]
Advance = Callable[[float], None]  # told how much more is done


def parse_duration(option: str, text: str) -> float | None:
    """`2h`, `90m`, `1h30m`, `45s` as seconds; `none` as None, which is no limit.

    Raises:
        UserError: anything else, or nothing at all; the message names the option.
    """
    lower = text.strip().lower()
    if lower == "none":
        return None
    match = _DURATION.fullmatch(lower)
    seconds = sum(float(match[unit] or 0) * size for unit, size in _UNITS.items()) if match else 0.0
    if not seconds > 0:
        raise UserError(
            f"{option} {text!r} is no duration; give one such as 45s, 90m, 2h or 1h30m, or none for no limit"
        )
    return seconds


def in_words(seconds: float) -> str:
    """`45 s`, `3 min 20 s`, `12 min`, `1 h 30 min`, `2 d 3 h`: as fine as is of interest."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    if seconds < 595:
        return _two(round(seconds / 10) * 10, "min", "s")
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return _two(minutes, "h", "min")
    hours = round(seconds / 3600)
    return _two(hours, "d", "h", 24)


def _two(amount: int, unit: str, part: str, parts: int = 60) -> str:
    whole, rest = divmod(amount, parts)
    return f"{whole} {unit} {rest} {part}" if rest else f"{whole} {unit}"


def as_option(seconds: float) -> str:
    """A duration as `parse_duration` takes it, in whole minutes, rounded up: what to type."""
    minutes = math.ceil(seconds / 60) or 1
    hours, minutes = divmod(minutes, 60)
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if minutes else "")


def counted(number: int | None, noun: str) -> str:
    """`1 epoch`, `2 epochs`; `? epochs` where the number is not known."""
    return f"{'?' if number is None else number} {noun}{'' if number == 1 else 's'}"


def first_few(names: Iterable[str], most: int = 3) -> str:
    """`a, b, c`, of more than so many the first ones: `a, b, c and 4 more`."""
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def one_line(error: BaseException, most: int | None = None) -> str:
    """What an error says, in one line of at most so many letters; its kind where it says nothing."""
    return " ".join(str(error).split())[:most] or type(error).__name__


@contextmanager
def progress_bar(title: str, total: float) -> Iterator[Advance]:
    """A bar that moves as it is told, in any unit."""
    # Imported here: rich takes a tenth of a second, and --help shows no progress.
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

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
    from rich.console import Console

    console, start = Console(stderr=True), time.monotonic()
    if begun and not console.is_terminal:
        console.print(begun, highlight=False)
    with progress_bar(title, total) as advance:
        for item in items:
            yield item
            advance(1)
    if ended and not console.is_terminal:
        console.print(f"{ended} in {time.monotonic() - start:.0f} s", highlight=False)
