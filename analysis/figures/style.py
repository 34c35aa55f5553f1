"""What the PNG and the chart of a figure share: colours, markers, legend entries, jitter, short numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import count
from typing import Any, NamedTuple

from analysis.stats.arms import Look

INK, GREY, GRID = "#222222", "#767676", "#e6e6e6"
LABEL_LETTERS = 64  # of an arm's label, at most


class Dot(NamedTuple):
    """A single seed or player, drawn small."""

    x: float
    y: float
    colour: str
    name: str = ""


class Bar(NamedTuple):
    """A horizontal bar and the number next to it."""

    x: float
    y: float
    colour: str
    name: str
    text: str
    end: float  # where the number is


class Spot(NamedTuple):
    """A marker and its interval along x; NaN limits: no interval."""

    x: float
    y: float
    filled: bool = True
    low: float = math.nan
    high: float = math.nan


class Key(NamedTuple):
    """An entry of the legend: a marker, or a line if `dash` (Matplotlib's style, plotly's) is given."""

    label: str
    look: Look = Look(INK, "o", "circle")
    filled: bool = True
    size: float = 7.0  # of the marker, points
    dash: tuple[Any, str] | None = None


_MOST_MOVED = 200  # more would cover each other in any case, and take minutes


def chance_key(percent: float) -> Key:
    """The entry of the line at the accuracy of a random prediction."""
    return Key(f"chance, {percent:.3g} %", Look(GREY, "", ""), dash=("--", "dash"))


def jitter(points: Sequence[tuple[float, float]]) -> list[int]:
    """How far to move the place of each (place, value) point so that none covers another.

    All are in units of a marker's size: two points overlap where both differ by less than 1. A move is 0 or the nearest
    free one of 1, -1, 2, -2, ...; the same points give the same moves. Too many points stay where they are.
    """
    if len(points) > _MOST_MOVED:
        return [0] * len(points)
    moves: list[int] = []
    for place, value in points:
        near = [p + move for (p, v), move in zip(points, moves, strict=False) if abs(v - value) < 1]
        tries = ((n + 1) // 2 * (-1) ** (n + 1) for n in count())
        moves.append(next(move for move in tries if all(abs(place + move - other) >= 1 for other in near)))
    return moves


def row_jitter(
    values: Sequence[float], limits: tuple[float, float], step: float, most: float, width: float = 0.009
) -> list[float]:
    """Vertical offsets, in rows, for points in one row; two that would overlap are `step` apart, all within `most`.

    `limits` are those of the x axis, and `width` is that of a point as a fraction of it.
    """
    size = width * (limits[1] - limits[0])
    moves = jitter([(0.0, value / size) for value in values])
    step = min(step, most / max(map(abs, moves), default=0)) if any(moves) else step
    return [step * move for move in moves]


def dots_in_row(
    named: Sequence[tuple[str, float]], y: float, colour: str, limits: tuple[float, float], step: float, most: float
) -> list[Dot]:
    """Dots for (name, value) pairs of one row, moved apart as by `row_jitter`."""
    shifts = row_jitter([value for _, value in named], limits, step, most)
    return [Dot(value, y + shift, colour, name) for (name, value), shift in zip(named, shifts, strict=True)]


def shortened(text: str, most: int = LABEL_LETTERS) -> str:
    """The text on one line of at most so many characters."""
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


def accuracy_range(percent: float) -> tuple[float, float]:
    """Limits of an accuracy axis: slightly below 0, so that a marker at 0 is whole, to slightly above `percent`, the
    highest value; at most 102."""
    end = min(1.06 * max(percent, 10.0), 102.0)
    return -0.02 * end, end


def short_count(value: float) -> str:
    """12000 as 12k, 1.3e6 as 1.3M."""
    for size, sign in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{sign}"
    return f"{value:.3g}"


def short_seconds(seconds: float) -> str:
    return f"{seconds:,.0f} s" if seconds >= 100 else f"{seconds:.3g} s"


def log_axis(values: Sequence[float]) -> tuple[float, float, list[float]]:
    """(low, high, ticks) of a log axis that spans at least one decade, so that equal values leave a readable axis."""
    low, high = math.log10(min(values)), math.log10(max(values))
    span = max(high - low, 1.0)
    middle = (low + high) / 2
    # More room on the left, where the cheapest points have their numbers.
    low, high = middle - 0.65 * span, middle + 0.6 * span
    leads: Sequence[int] = (1,) if high - low > 4 else (1, 3) if high - low > 2 else (1, 2, 5)
    ticks = [lead * 10.0**power for power in range(math.floor(low), math.ceil(high)) for lead in leads]
    return 10**low, 10**high, [tick for tick in ticks if 10**low <= tick <= 10**high]
