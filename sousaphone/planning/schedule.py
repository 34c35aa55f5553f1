"""When jobs end that take turns in a number of places, and how a moment is written."""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterable
from datetime import datetime


def schedule(needs: Iterable[float], places: Iterable[float]) -> list[float]:
    """When each job ends, if each in turn takes the place that is free first.

    Args:
        needs: seconds of each job.
        places: when each place is free.
    """
    free = list(places)
    heapq.heapify(free)
    return [heapq.heapreplace(free, free[0] + need) + need for need in needs]


def clock(seconds_from_now: float = 0.0) -> str:
    """The time of day then, with the date if it is another day."""
    then = datetime.fromtimestamp(time.time() + seconds_from_now)
    return f"{then:%H:%M:%S}" if then.date() == datetime.now().date() else f"{then:%Y-%m-%d %H:%M}"
