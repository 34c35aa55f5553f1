"""Text for people: durations (`90m`, `1h30m`, `11 h 30 min`), counts, errors, Markdown and progress bars."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from sousaphone.errors import UserError, printable

_UNITS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
_DURATION = re.compile(r"(?=.)" + "".join(rf"(?:(?P<{unit}>\d+(?:\.\d+)?){unit})?" for unit in _UNITS))
T = TypeVar("T")
Announce = Callable[[str], None]
Advance = Callable[[float], None]  # called with the additional amount of work done


def parse_duration(option: str, text: str) -> float | None:
    """Convert `2h`, `90m`, `1h30m` or `45s` to seconds, and `none` to None (no limit); raises a UserError that names
    the option for any other text."""
    lower = text.strip().lower()
    if lower == "none":
        return None
    match = _DURATION.fullmatch(lower)
    seconds = sum(float(match[unit] or 0) * size for unit, size in _UNITS.items()) if match else 0.0
    if not seconds > 0:
        raise UserError(
            f"{option} {text!r} is not a duration; give one such as 45s, 90m, 2h or 1h30m, or none for no limit"
        )
    return seconds


def in_words(seconds: float) -> str:
    """Format seconds at a suitable precision: `45 s`, `3 min 20 s`, `12 min`, `1 h 30 min`, `2 d 3 h`."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    if seconds < 595:
        return _two_units(round(seconds / 10) * 10, "min", "s")
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return _two_units(minutes, "h", "min")
    return _two_units(round(seconds / 3600), "d", "h", 24)


def _two_units(amount: int, unit: str, part: str, parts: int = 60) -> str:
    whole, rest = divmod(amount, parts)
    return f"{whole} {unit} {rest} {part}" if rest else f"{whole} {unit}"


def as_option(seconds: float) -> str:
    """Format a duration for `parse_duration`, rounded up to whole minutes."""
    minutes = math.ceil(seconds / 60) or 1
    hours, minutes = divmod(minutes, 60)
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if minutes else "")


def counted(number: int | None, noun: str) -> str:
    """`1 epoch`, `2 epochs`, or `? epochs` for an unknown number."""
    return f"{'?' if number is None else number} {noun}{'' if number == 1 else 's'}"


def first_few(names: Iterable[str], most: int = 3, separator: str = ", ") -> str:
    """Join names; those beyond the first `most` are only counted: `a, b, c and 4 more`."""
    names = list(names)
    return separator.join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def one_line(error: BaseException, most: int | None = None) -> str:
    """The message of an error in one line of at most `most` characters; its type if the message is empty."""
    return " ".join(printable(str(error)).split())[:most] or type(error).__name__


def escape_markdown(text: str) -> str:
    """Escape text for Markdown: one line without mark-up or HTML."""
    return re.sub(r"([\\`*{}\[\]<>|#~&$]|\b_|_\b)", r"\\\1", " ".join(text.split()))


def code_span(text: str) -> str:
    """Return text as code in a line of Markdown, whatever backticks it has."""
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence} {text} {fence}" if "`" in text else f"`{text}`"


@contextmanager
def progress_bar(title: str, total: float) -> Iterator[Advance]:
    """Show a progress bar on a terminal; yield the function that advances it. `total` may be in any unit."""
    # Imported here since it takes a tenth of a second, which --help does not need.
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=total)
        yield lambda amount: bar.advance(task, amount)


def tracked(items: Iterable[T], title: str, total: int, begun: str = "", ended: str = "") -> Iterator[T]:
    """Yield the items with a progress bar. If stderr is not a terminal, print the message `begun` at the start and
    `ended` with the elapsed time at the end instead, unless they are empty."""
    from rich.console import Console

    console, start = Console(stderr=True), time.monotonic()
    if begun and not console.is_terminal:
        console.print(begun, highlight=False, soft_wrap=True)
    with progress_bar(title, total) as advance:
        for item in items:
            yield item
            advance(1)
    if ended and not console.is_terminal:
        console.print(f"{ended} in {time.monotonic() - start:.0f} s", highlight=False, soft_wrap=True)
