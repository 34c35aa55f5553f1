"""End times of jobs that run in a number of places, and the format of a time of day."""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterable
from datetime import datetime

_FAR_SECONDS = 1e9  # thirty years


def schedule(needs: Iterable[float], places: Iterable[float]) -> list[float]:
    """Return the end of each job of duration `needs`, if each in turn takes the place that becomes free first.

    `places` are the times at which the places become free.
    """
    free = list(places)
    heapq.heapify(free)
    return [heapq.heapreplace(free, free[0] + need) + need for need in needs]


def clock(seconds_from_now: float = 0.0) -> str:
    """Return the time of day, with the date if it is on another day; `?` for a time that no calendar has."""
    if not abs(seconds_from_now) < _FAR_SECONDS:
        return "?"
    then = datetime.fromtimestamp(time.time() + seconds_from_now)
    return f"{then:%H:%M:%S}" if then.date() == datetime.now().date() else f"{then:%Y-%m-%d %H:%M}"
