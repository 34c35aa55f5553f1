"""The result of one round of a measurement, and the fastest of several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Round:
    """One round of training or evaluation.

    Attributes:
        processor: processor seconds of all cores, workers included.
        fractions: of the time, by stage.
    """

    clips: int
    seconds: float
    processor: float
    peak_mb: float = 0.0
    fractions: dict[str, float] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Clips per second of wall time."""
        return self.clips / self.seconds

    @property
    def processor_ms(self) -> float:
        """Milliseconds of processor time per clip, which other programs disturb less than wall time."""
        return 1000 * self.processor / self.clips


def fastest(rounds: Sequence[Round]) -> Round:
    return max(rounds, key=lambda one: one.rate)
