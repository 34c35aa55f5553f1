"""What the PNG and the chart of a figure share: chance, greys, paleness, short numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from sousaphone.rudiments import SLUGS

CHANCE_PERCENT = 100 / len(SLUGS)
INK, GREY, GRID = "#222222", "#767676", "#e6e6e6"
PALE = 0.4  # opacity of partial results
LABEL_LETTERS = 64  # of an arm's label, at most


class Dot(NamedTuple):
    """A single seed or player, drawn small."""

    x: float
    y: float
    colour: str
    name: str = ""


class Spot(NamedTuple):
    """A marker with the interval along x that it stands in; NaN limits: none."""

    x: float
    y: float
    colour: str
    filled: bool = True
    low: float = math.nan
    high: float = math.nan


def shortened(text: str, most: int = LABEL_LETTERS) -> str:
    """On one line, and not too long for the margin of a figure."""
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


def paled(colour: str, opaque: float = PALE) -> str:
    """A colour as it looks on white paper at this opacity; where things overlap, it does not get darker."""
    parts = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return "#" + "".join(f"{round(255 - opaque * (255 - part)):02x}" for part in parts)


def accuracy_range(percent: float) -> tuple[float, float]:
    """Where an accuracy axis begins and ends: a little below 0, so that a marker there is whole, and a little above the
    highest value, never far above 100 %."""
    end = min(1.06 * max(percent, 4 * CHANCE_PERCENT), 102.0)
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
    """(low, high, ticks) of a log axis: a decade at least, so that equal values still leave a readable axis."""
    low, high = math.log10(min(values)), math.log10(max(values))
    span = max(high - low, 1.0)
    middle = (low + high) / 2
    # More room on the left, where the cheapest points have their numbers.
    low, high = middle - 0.65 * span, middle + 0.6 * span
    leads: Sequence[int] = (1,) if high - low > 4 else (1, 3) if high - low > 2 else (1, 2, 5)
    ticks = [lead * 10.0**power for power in range(math.floor(low), math.ceil(high)) for lead in leads]
    return 10**low, 10**high, [tick for tick in ticks if 10**low <= tick <= 10**high]
