"""Mixing to mono, resampling and rounding of decoded audio."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from math import gcd
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchaudio.transforms import Resample

from sousaphone.hardware import count_cpus, torch_threads

# Output phases filtered by one matrix product: fewer means more products, more means more zeros.
_PHASES = 32
_MAX_STEPS = 2**22  # product of the reduced rates up to which torchaudio's filters are computed: 16 MB
_GATHERED = 2**18  # samples of a long clip that are resampled at once, at least
_WIDTH, _ROLLOFF = 6, 0.99  # torchaudio's: zero crossings on each side of the filter, cutoff re the Nyquist frequency

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
    phases share a matrix product over their own span. For rates such as 44,101 Hz and 16 kHz, whose filters would take
    gigabytes, the clip is filtered by a single one at their common multiple, of which few samples are computed.
    """

    def __init__(self, source_rate: int, target_rate: int) -> None:
        common = gcd(source_rate, target_rate)
        self._step, self._phases = source_rate // common, target_rate // common
        self._groups: list[tuple[int, Tensor]] = []
        self._filter: np.ndarray | None = None
        self._margin = 0  # samples on each side on which an output depends, at most
        if self._step == self._phases:
            return
        if self._step * self._phases > _MAX_STEPS:
            self._filter = self._design()
            self._margin = len(self._filter) // 2 // self._phases + 1
            return
        design = Resample(source_rate, target_rate)
        self._margin = design.width
        kernel = design.kernel[:, 0]  # [phases, taps]
        self._taps = kernel.shape[1]
        for filters in kernel.split(_PHASES):
            used = filters.any(0).nonzero()
            first, last = int(used[0]), int(used[-1])
            self._groups.append((first, filters[:, first : last + 1].T.contiguous()))

    def _design(self) -> np.ndarray:
        """Return the filter at the common multiple of the rates; its centre is a multiple of the step."""
        cutoff = _ROLLOFF * min(self._step, self._phases)
        centre = -(-int(_WIDTH * self._step * self._phases / cutoff) // self._step) * self._step
        t = np.arange(-centre, centre + 1) * (cutoff / (self._step * self._phases))
        window = np.cos(t.clip(-_WIDTH, _WIDTH) * (np.pi / 2 / _WIDTH)) ** 2
        return (np.sinc(t) * window * (cutoff / self._step)).astype(np.float32)

    def __call__(self, wave: Tensor) -> Tensor:
        length = -(-self._phases * len(wave) // self._step)
        if self._filter is not None:
            from scipy.signal import upfirdn  # slow to import

            start = len(self._filter) // 2 // self._step
            y = upfirdn(self._filter, wave.numpy(), self._phases, self._step)
            return torch.from_numpy(y[start : start + length].copy())
        if not self._groups:
            return wave
        x = F.pad(wave, (self._margin, self._margin + self._step))
        steps = (len(x) - self._taps) // self._step + 1
        parts = [x.as_strided((steps, len(taps)), (self._step, 1), first) @ taps for first, taps in self._groups]
        return torch.cat(parts, 1).flatten()[:length]

    def blocks(self, waves: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Compute the same of a long clip that is given and returned in blocks [t], in bounded memory."""
        context = (self._margin // self._step + 1) * self._step  # a multiple of the step, so that phases agree
        outputs = context // self._step * self._phases
        pending, gathered, first = np.empty(0, np.float32), [], True
        for wave in waves:
            gathered.append(wave)
            if sum(map(len, gathered)) < _GATHERED:
                continue
            pending, gathered = np.concatenate([pending, *gathered]), []
            ready = (len(pending) - context) // self._step * self._step  # its outputs need no later samples
            if ready > context:
                y = self(torch.from_numpy(pending[: ready + context]))
                yield y[0 if first else outputs : ready // self._step * self._phases].numpy()
                pending, first = pending[ready - context :], False
        pending = np.concatenate([pending, *gathered])
        yield self(torch.from_numpy(pending))[0 if first else outputs :].numpy()


@lru_cache(maxsize=16)  # up to 20 MB each, and a server may meet any rate
def resampler(source_rate: int, target_rate: int) -> Resampler:
    """Return the resampler of a pair of rates (Hz), whose filters are kept for the next call."""
    return Resampler(source_rate, target_rate)


def to_int16(wave: Tensor) -> np.ndarray:
    """Round float samples in [-1, 1) to int16, with clipping."""
    return (wave * 32768).round_().clamp_(-32768, 32767).to(torch.int16).numpy()


def in_threads(function: Callable[[S], T], items: Iterable[S]) -> Iterator[T]:
    """Compute `map(function, items)` in threads (soundfile and torch release the GIL), a few items ahead, in order."""
    workers = max(2, min(8, count_cpus()))
    pool, ahead = ThreadPoolExecutor(workers), deque[Future[T]]()
    with torch_threads(1):  # inherited by new threads; otherwise their threads compete for the cores
        try:
            for item in items:
                ahead.append(pool.submit(function, item))
                if len(ahead) > 4 * workers:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
