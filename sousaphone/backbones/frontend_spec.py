"""Front end parameters as data, to compare with those that weights were trained with. Imports no torch."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_MOST = 1e12  # no feature has a larger number


@dataclass(frozen=True)
class FrontendContract:
    """Log mel features: (log(mel power) - mean) / scale."""

    sample_rate: int  # Hz
    mels: int  # bands between low_hz and high_hz
    window: int  # samples of a frame
    hop: int  # samples between frames
    low_hz: float
    high_hz: float
    log: str  # 'ln' or 'dB'
    mean: float  # in units of the logarithm, as the scale
    scale: float

    @property
    def fft(self) -> int:
        """FFT size: the window padded to a power of two."""
        return 1 << (self.window - 1).bit_length()

    def differences(self, stated: Mapping[str, Any]) -> tuple[str, ...]:
        """The `stated` fields that differ from these: 'mels 64 for 128' is a stated 64 where this contract has 128."""
        ours = dataclasses.asdict(self)
        return tuple(
            f"{name} {value} for {ours[name] if isinstance(ours[name], str) else format(ours[name], '.10g')}"
            for name, value in stated.items()
            if not _equal(value, ours[name])
        )

    def in_words(self) -> str:
        """Describe the features in one line."""
        window, hop = (1000 * samples / self.sample_rate for samples in (self.window, self.hop))
        scaling = f"({self.log} {'-' if self.mean > 0 else '+'} {abs(self.mean):.8g}) / {self.scale:.8g}"
        return (
            f"{self.sample_rate / 1000:g} kHz, {self.mels} mels from {self.low_hz:g} to {self.high_hz:g} Hz, "
            f"{window:.4g} ms every {hop:.4g} ms, {scaling if (self.mean, self.scale) != (0, 1) else self.log}"
        )


class StrokeContract(FrontendContract):
    """What the transcriber finds: `mels` numbers for each frame."""

    def in_words(self) -> str:
        hop = 1000 * self.hop / self.sample_rate
        return f"{self.sample_rate / 1000:g} kHz, strokes by the transcriber: {self.mels} numbers every {hop:.4g} ms"


def _equal(stated: Any, ours: float | str) -> bool:
    """Compare to the precision of configuration files; values of different types are not equal."""
    if isinstance(ours, str) or isinstance(stated, bool) or not isinstance(stated, int | float):
        return bool(stated == ours)
    if abs(stated) > _MOST:  # too large for a float
        return False
    return math.isclose(stated, ours, rel_tol=1e-4)


@dataclass(frozen=True)
class FrontendOverrides:
    """Features requested instead of those that the weights were trained on."""

    efficientat_hop: int | None = None  # samples between frames at 32 kHz; None: from the file's name, else 320
    mismatch: tuple[str, ...] = ()  # backbones whose features may differ from those of their weights


AS_TRAINED = FrontendOverrides()
