"""Reading of recordings of any length in bounded memory: their levels, and windows cut out of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from sousaphone.data.cache.decode import resampler, to_int16, to_mono
from sousaphone.data.readers.samples import read_blocks
from sousaphone.deploy.segments import FRAME_SECONDS

_NO_POWER = 1e-12


@dataclass(frozen=True)
class Recording:
    """A recording, its levels and envelope, as measured in one pass over the file."""

    name: str  # for messages
    source: Path | BytesIO
    rate: int  # Hz
    samples: int
    levels: npt.NDArray[np.float32]  # of frames of FRAME_SECONDS, dB re full scale [F]
    envelope: npt.NDArray[np.float32]  # lowest and highest sample of each frame [F, 2]
    wave: npt.NDArray[np.float32] | None  # mono [T], of a short recording

    @property
    def seconds(self) -> float:
        return self.samples / self.rate

    def mono(self) -> Iterator[npt.NDArray[np.float32]]:
        """Decode the samples, block by block."""
        if self.wave is not None:
            return iter([self.wave])
        return map(to_mono, read_blocks(self.name, self.source)[0])

    def resampled(self, rate: int) -> Iterator[npt.NDArray[np.int16]]:
        """Resample the samples, rounded like those of training, block by block."""
        for wave in resampler(self.rate, rate).blocks(self.mono()):
            yield to_int16(torch.from_numpy(wave.copy()))


def scan(
    name: str, source: Path | BytesIO, kept_seconds: float, advance: Callable[[float], None] = lambda seconds: None
) -> Recording:
    """Decode a whole file once; raises a UserError if it is damaged.

    Args:
        kept_seconds: samples of recordings up to this length are kept.
        advance: called with the additional seconds that have been decoded.
    """
    blocks, rate = read_blocks(name, source)
    frame, kept = max(1, round(FRAME_SECONDS * rate)), round(kept_seconds * rate)
    levels, envelope = [], []
    waves: list[npt.NDArray[np.float32]] = []
    samples, rest = 0, np.empty(0, np.float32)

    def measure(wave: npt.NDArray[np.float32]) -> None:
        frames = wave.reshape(-1, frame)
        levels.append(10 * np.log10(np.square(frames).mean(1) + _NO_POWER))
        envelope.append(np.stack([frames.min(1), frames.max(1)], 1))

    for block in map(to_mono, blocks):
        samples += len(block)
        waves = [*waves, block] if samples <= kept else []
        joined = np.concatenate([rest, block])
        whole = len(joined) // frame * frame
        measure(joined[:whole])
        rest = joined[whole:].copy()
        advance(len(block) / rate)
    measure(np.pad(rest, (0, -len(rest) % frame)))
    wave = np.concatenate(waves) if samples <= kept else None
    return Recording(name, source, rate, samples, np.concatenate(levels), np.concatenate(envelope), wave)


def cut(
    blocks: Iterable[npt.NDArray[np.int16]], starts: Sequence[int], lengths: Sequence[int], width: int
) -> Iterator[npt.NDArray[np.int16]]:
    """Cut windows out of blocks, each padded with zeros to `width`; their starts and ends must not decrease."""
    buffer, first, number = np.empty(0, np.int16), 0, 0  # `first` is the place of the buffer's first sample
    for block in chain(blocks, [None]):
        buffer = buffer if block is None else np.concatenate([buffer, block])
        while number < len(starts) and (block is None or starts[number] + lengths[number] <= first + len(buffer)):
            window = np.zeros(width, np.int16)
            found = buffer[starts[number] - first :][: lengths[number]]
            window[: len(found)] = found
            yield window
            number += 1
        if number == len(starts):
            return
        passed = min(starts[number] - first, len(buffer))
        buffer, first = buffer[passed:], first + passed
