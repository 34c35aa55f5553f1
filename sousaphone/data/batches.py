"""Batches of int16 windows of one split, on the model's device."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from sousaphone.config import COVERED_SECONDS

if TYPE_CHECKING:  # imports audio libraries, which are not needed here
    from sousaphone.data.cache.build import WaveformCache

_DEVICE_FRACTION = 0.25  # of the GPU memory left to this process that a resident split may occupy


@dataclass(frozen=True)
class Batch:
    """Clips on the device."""

    wave: Tensor  # int16 [B, T], padded with zeros
    lengths: Tensor  # int64 [B], samples without the padding
    labels: Tensor  # int64 [B]


class ClipSet:
    """The clips of one split, cut to windows of one length.

    Order and random windows are a pure function of (seed, epoch, row), so a resumed epoch equals an uninterrupted one.
    `table` has the split's rows of `clips`, indexed from 0, and `labels` their labels, int64 [N], on the CPU.
    """

    def __init__(
        self,
        cache: WaveformCache,
        clips: pd.DataFrame,  # from which `cache` was built, row for row
        split: str,  # a value of the column `split`
        clip_seconds: float,  # length of the window, s
        device: torch.device,
        seed: int,
        resident: bool | None = None,  # keep the waveform on the device; None: on a GPU with enough memory left
    ) -> None:
        if len(cache) != len(clips):
            raise ValueError(f"cache of {len(cache)} clips and table of {len(clips)} clips differ")
        rows = np.flatnonzero((clips["split"] == split).to_numpy())
        self.table = clips.iloc[rows].reset_index(drop=True)
        self.labels = torch.tensor(self.table["label"].to_numpy(dtype=np.int64))
        self.device, self.seed, self.clip_seconds = torch.device(device), seed, clip_seconds
        self._cache = cache
        self._first = torch.from_numpy(cache.offsets[rows])  # each clip's first sample in cache.wave
        self._samples = torch.from_numpy(cache.offsets[rows + 1] - cache.offsets[rows])
        if resident is None:
            needed = 2 * int(self._samples.sum())
            on_gpu = self.device.type == "cuda"
            resident = on_gpu and needed <= _DEVICE_FRACTION * _memory_left(self.device)
        self._resident = self._upload() if resident and len(self) else None  # the split's waveform, int16 [T]

    def __len__(self) -> int:
        return len(self.table)

    def training_batches(self, batch_size: int, epoch: int, seconds: float | None = None) -> Iterator[Batch]:
        """Yield all clips once in random order, in random windows of `seconds` (default `clip_seconds`).

        The last batch may be smaller.
        """
        rng = torch.Generator()
        rng.manual_seed(int(np.random.SeedSequence([self.seed, epoch]).generate_state(1, np.uint64)[0] >> 1))
        order = torch.randperm(len(self), generator=rng)
        position = torch.rand(len(self), generator=rng, dtype=torch.float64)  # of the window, by row
        window = self._window(self.clip_seconds if seconds is None else seconds)
        starts = (position * (self._excess(window) + 1)).long()
        yield from self._batches(order, starts, window, batch_size)

    def evaluation_batches(self, batch_size: int, rows: Tensor | Sequence[int] | None = None) -> Iterator[Batch]:
        """Yield the centres of all clips in the table's order, or of `rows` in the given order."""
        window = self._window(self.clip_seconds)
        order = torch.arange(len(self)) if rows is None else torch.as_tensor(rows, dtype=torch.int64).cpu()
        yield from self._batches(order, self._excess(window) // 2, window, batch_size)

    def windows(self, clips: int | None = None) -> tuple[ClipSet, Tensor]:
        """Cut clips that are longer than a window into windows that cover them.

        Windows begin half a window apart, and the last one ends at the clip's end. Only the central `COVERED_SECONDS`
        of longer clips are covered.

        Args:
            clips: take only the first clips of the table; None: all.

        Returns:
            A set whose clips are the W windows, in the table's order, and the row of each window's clip, int64 [W].
        """
        window, samples = self._window(self.clip_seconds), self._samples[:clips]
        covered = samples.clamp(max=self._window(COVERED_SECONDS))
        hop, excess = max(1, window // 2), covered - window
        counts = torch.where(excess > 0, (excess + hop - 1) // hop + 1, 0)
        rows = torch.repeat_interleave(counts)
        number = torch.arange(len(rows)) - (counts.cumsum(0) - counts)[rows]
        starts = (samples - covered)[rows] // 2 + torch.minimum(number * hop, excess[rows])
        found = copy.copy(self)
        found.table = self.table.iloc[rows.numpy()].reset_index(drop=True)
        found.labels, found._first = self.labels[rows], self._first[rows] + starts
        found._samples = torch.full_like(rows, window)
        return found, rows

    def random_windows(self, seconds: float) -> ClipSet:
        """Cut one random window of `seconds` from each clip, the same in every call."""
        found, window = copy.copy(self), self._window(seconds)
        rng = torch.Generator().manual_seed(self.seed)
        position = torch.rand(len(self), generator=rng, dtype=torch.float64)
        found._first = self._first + (position * (self._excess(window) + 1)).long()
        found._samples, found.clip_seconds = self._samples.clamp(max=window), seconds
        return found

    def _window(self, seconds: float) -> int:
        return round(seconds * self._cache.sample_rate)

    def _excess(self, window: int) -> Tensor:
        """Number of samples by which each clip exceeds the window, int64 [N]."""
        return (self._samples - window).clamp(min=0)

    def _batches(self, order: Tensor, starts: Tensor, window: int, batch_size: int) -> Iterator[Batch]:
        if not len(order):
            return
        begins, lengths = (self._first + starts)[order], self._samples[order].clamp(max=window)
        # Transfer the whole epoch at once: a transfer per batch would wait for the GPU's queue.
        columns = (begins, lengths, self.labels[order])
        on_host = zip(*(column.split(batch_size) for column in columns[:2]), strict=True)
        on_device = zip(*(column.to(self.device).split(batch_size) for column in columns), strict=True)
        for (start, samples), (begin, length, labels) in zip(on_host, on_device, strict=True):
            if self._resident is None:
                wave = self._read(start, samples, window)
            else:
                time = torch.arange(window, device=self.device)
                wave = self._resident[(begin[:, None] + time).clamp_(max=len(self._resident) - 1)]
                wave.masked_fill_(time >= length[:, None], 0)
            yield Batch(wave, length, labels)

    def _read(self, begins: Tensor, lengths: Tensor, window: int) -> Tensor:
        """Cut windows from the mapped file, int16 [B, T]."""
        on_gpu = self.device.type == "cuda"
        wave = torch.empty(len(begins), window, dtype=torch.int16, pin_memory=on_gpu)
        for row, begin, length in zip(wave.numpy(), begins.tolist(), lengths.tolist(), strict=True):
            row[:length] = self._cache.wave[begin : begin + length]
            row[length:] = 0
        return wave.to(self.device, non_blocking=on_gpu)

    def _upload(self) -> Tensor:
        """Copy the split's waveform to the device; `_first` then refers to the copy."""
        ends = self._samples.cumsum(0)
        begins = ends - self._samples
        flat = torch.empty(int(ends[-1]), dtype=torch.int16, device=self.device)
        for first, begin, end in zip(self._first.tolist(), begins.tolist(), ends.tolist(), strict=True):
            flat[begin:end] = torch.from_numpy(np.array(self._cache.wave[first : first + end - begin]))
        self._first = begins
        return flat


def _memory_left(device: torch.device) -> float:
    """Bytes that this process may still take from a GPU: what is free, within its own share of the card."""
    free, total = torch.cuda.mem_get_info(device)
    share = torch.cuda.get_per_process_memory_fraction(device.index) * total  # refuses a device without an index
    return min(free, share - torch.cuda.memory_reserved(device))
