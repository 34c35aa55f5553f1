"""Serve one split of a data set as batches of int16 windows on the model's device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import Tensor

if TYPE_CHECKING:  # the cache brings audio libraries; serving needs none
    from sousaphone.data.cache.build import WaveformCache

# A split's waveform is kept on the GPU if it takes at most this share of the free memory.
_DEVICE_SHARE = 0.25


@dataclass(frozen=True)
class Batch:
    """Clips on the device."""

    wave: Tensor  # int16 [B, T], zeros beyond each clip's length
    lengths: Tensor  # int64 [B], samples of `wave` that are the clip's
    labels: Tensor  # int64 [B]
    rows: Tensor  # int64 [B], rows of `ClipSet.table`


class ClipSet:
    """The clips of one split, heard through windows of one length.

    Order and random windows are a pure function of (seed, epoch, row): no state moves from batch to batch, so a
    resumed epoch is the uninterrupted one.

    Attributes:
        table: the split's rows of `clips`, with an index from 0.
        labels: int64 [N], on the CPU.
    """

    def __init__(
        self,
        cache: WaveformCache,
        clips: pd.DataFrame,
        split: str,
        clip_seconds: float,
        device: torch.device,
        seed: int,
        resident: bool | None = None,
    ) -> None:
        """
        Args:
            clips: the table that `cache` was built from, row for row.
            split: train, validation or test.
            clip_seconds: length of the window, s.
            resident: keep the split's waveform on the device; None: on a GPU with room for it.

        Raises:
            ValueError: cache and table differ in length.
        """
        if len(cache) != len(clips):
            raise ValueError(f"a cache of {len(cache)} clips does not belong to a table of {len(clips)}")
        mine = np.flatnonzero((clips["split"] == split).to_numpy())
        self.table = clips.iloc[mine].reset_index(drop=True)
        self.labels = torch.tensor(self.table["label"].to_numpy(dtype=np.int64))
        self.device, self.seed, self.clip_seconds = torch.device(device), seed, clip_seconds
        self._cache = cache
        self._first = torch.from_numpy(cache.offsets[mine])  # each clip's first sample in cache.wave
        self._samples = torch.from_numpy(cache.offsets[mine + 1] - cache.offsets[mine])
        if resident is None:
            needed = 2 * int(self._samples.sum())
            on_gpu = self.device.type == "cuda"
            resident = on_gpu and needed <= _DEVICE_SHARE * torch.cuda.mem_get_info(self.device)[0]
        self._resident = self._upload() if resident and len(self) else None

    def __len__(self) -> int:
        return len(self.table)

    def training_batches(self, batch_size: int, epoch: int, seconds: float | None = None) -> Iterator[Batch]:
        """All clips once in random order, each in a random window; the last batch may be smaller.

        Args:
            seconds: length of the window, where augmentation needs more than `clip_seconds`.
        """
        chance = torch.Generator()
        chance.manual_seed(int(np.random.SeedSequence([self.seed, epoch]).generate_state(1, np.uint64)[0] >> 1))
        order = torch.randperm(len(self), generator=chance)
        place = torch.rand(len(self), generator=chance, dtype=torch.float64)  # of the window, by row
        window = self._window(seconds)
        starts = (place * (self._spare(window) + 1)).long()
        yield from self._batches(order, starts, window, batch_size)

    def evaluation_batches(self, batch_size: int, rows: Tensor | Sequence[int] | None = None) -> Iterator[Batch]:
        """The clips' centres in the table's order, or those of `rows` in theirs."""
        window = self._window()
        order = torch.arange(len(self)) if rows is None else torch.as_tensor(rows, dtype=torch.int64).cpu()
        yield from self._batches(order, self._spare(window) // 2, window, batch_size)

    def _window(self, seconds: float | None = None) -> int:
        return round((self.clip_seconds if seconds is None else seconds) * self._cache.sample_rate)

    def _spare(self, window: int) -> Tensor:
        """Samples by which each clip is longer than the window, int64 [N]."""
        return (self._samples - window).clamp(min=0)

    def _batches(self, order: Tensor, starts: Tensor, window: int, batch_size: int) -> Iterator[Batch]:
        if not len(order):
            return
        # Where each clip's samples begin, in the device's waveform or in the mapped one.
        first = self._first if self._resident is None else self._resident[0]
        begins, lengths = (first + starts)[order], self._samples[order].clamp(max=window)
        # All at once: what a batch sends by itself it has to wait for, and for all that the GPU has yet to do.
        columns = (begins, lengths, self.labels[order], order)
        here = zip(*(column.split(batch_size) for column in columns[:2]), strict=True)
        there = zip(*(column.to(self.device).split(batch_size) for column in columns), strict=True)
        for (begin, length), (places, sound, labels, rows) in zip(here, there, strict=True):
            if self._resident is not None:
                wave = self._gather(self._resident[1], places, sound, window)
            else:
                wave = self._read(begin, length, window)
            yield Batch(wave, sound, labels, rows)

    def _gather(self, flat: Tensor, begins: Tensor, lengths: Tensor, window: int) -> Tensor:
        """int16 [B, T] out of the device's memory."""
        time = torch.arange(window, device=self.device)
        wave = flat[(begins[:, None] + time).clamp_(max=len(flat) - 1)]
        return wave.masked_fill_(time >= lengths[:, None], 0)

    def _read(self, begins: Tensor, lengths: Tensor, window: int) -> Tensor:
        """The same, to the last bit, out of the mapped file."""
        on_gpu = self.device.type == "cuda"
        wave = torch.empty(len(begins), window, dtype=torch.int16, pin_memory=on_gpu)
        for line, begin, length in zip(wave.numpy(), begins.tolist(), lengths.tolist(), strict=True):
            line[:length] = self._cache.wave[begin : begin + length]
            line[length:] = 0
        return wave.to(self.device, non_blocking=on_gpu)

    def _upload(self) -> tuple[Tensor, Tensor]:
        """Where each clip begins in the split's own waveform, int64 [N], and that waveform on the device, int16."""
        ends = self._samples.cumsum(0)
        where = ends - self._samples
        flat = torch.empty(int(ends[-1]), dtype=torch.int16, device=self.device)
        for first, begin, end in zip(self._first.tolist(), where.tolist(), ends.tolist(), strict=True):
            flat[begin:end] = torch.from_numpy(np.array(self._cache.wave[first : first + end - begin]))
        return where, flat
