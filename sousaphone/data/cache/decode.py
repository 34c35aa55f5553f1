"""Mixing to mono, resampling and rounding of decoded audio."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchaudio.transforms import Resample

from sousaphone.hardware import count_cpus

# Output phases filtered by one matrix product: fewer means more products, more means more zeros.
_PHASES = 32

S = TypeVar("S")
T = TypeVar("T")


def to_mono(samples: np.ndarray) -> np.ndarray:
    """Average the channels: [T, channels] to [T]."""
    # The product takes a fortieth of the time of mean(axis=1), which is as slow as decoding.
    channels = samples.shape[1]
    return samples[:, 0] if channels == 1 else samples @ np.full(channels, 1 / channels, samples.dtype)


class Resampler:
    """Compute torchaudio's Resample (windowed sinc) of one clip [T], two to five times as fast.

    torchaudio convolves with the filters of all phases over their common span, which is mostly zeros. Here neighbouring
    phases share a matrix product over their own span.
    """

    def __init__(self, source_rate: int, target_rate: int) -> None:
        design = Resample(source_rate, target_rate)
        self._step, self._phases = source_rate // design.gcd, target_rate // design.gcd
        self._groups: list[tuple[int, Tensor]] = []
        if self._step == self._phases:
            return
        self._margin: int = design.width
        kernel = design.kernel[:, 0]  # [phases, taps]
        self._taps = kernel.shape[1]
        for filters in kernel.split(_PHASES):
            used = filters.any(0).nonzero()
            first, last = int(used[0]), int(used[-1])
            self._groups.append((first, filters[:, first : last + 1].T.contiguous()))

    def __call__(self, wave: Tensor) -> Tensor:
        if not self._groups:
            return wave
        x = F.pad(wave, (self._margin, self._margin + self._step))
        steps = (len(x) - self._taps) // self._step + 1
        parts = [x.as_strided((steps, len(taps)), (self._step, 1), first) @ taps for first, taps in self._groups]
        return torch.cat(parts, 1).flatten()[: -(-self._phases * len(wave) // self._step)]


@cache
def resampler(source_rate: int, target_rate: int) -> Resampler:
    """Return the resampler of a pair of rates (Hz), whose filters are computed once."""
    return Resampler(source_rate, target_rate)


def to_int16(wave: Tensor) -> np.ndarray:
    """Round float samples in [-1, 1) to int16, with clipping."""
    return (wave * 32768).round_().clamp_(-32768, 32767).to(torch.int16).numpy()


def in_threads(function: Callable[[S], T], items: Iterable[S]) -> Iterator[T]:
    """Compute `map(function, items)` in threads (soundfile and torch release the GIL), a few items ahead, in order."""
    workers = max(2, min(8, count_cpus()))
    torch_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # inherited by new threads; otherwise their threads compete for the cores
    pool, ahead = ThreadPoolExecutor(workers), deque[Future[T]]()
    try:
        for item in items:
            ahead.append(pool.submit(function, item))
            if len(ahead) > 4 * workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(torch_threads)
