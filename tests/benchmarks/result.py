"""What a measurement comes to, and the best of several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Round:
    """One stretch of work.

    Attributes:
        processor: seconds of all cores together, workers included.
        shares: of the time, by stage.
    """

    clips: int
    seconds: float
    processor: float
    peak_mb: float = 0.0
    shares: dict[str, float] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Clips per second of wall time."""
        return self.clips / self.seconds

    @property
    def processor_ms(self) -> float:
        """Milliseconds of processor time a clip, which other programs disturb less than wall time."""
        return 1000 * self.processor / self.clips


def fastest(rounds: Sequence[Round]) -> Round:
    return max(rounds, key=lambda one: one.rate)


def leanest(rounds: Sequence[Round]) -> Round:
    """The one that took the least processor time a clip."""
    return min(rounds, key=lambda one: one.processor_ms)
