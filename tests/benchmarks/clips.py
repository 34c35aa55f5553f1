"""The clips that all contenders of a speed measurement train on, as audio files and as our waveform cache."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile
import torch
from torch import Tensor

from sousaphone.data.cache.build import WaveformCache, build_caches
from sousaphone.data.dataset import Dataset
from sousaphone.data.readers.sousa import read_dataset


@dataclass(frozen=True)
class Clips:
    """Clips on disk, all of the training split.

    Attributes:
        description: of the files, in words.
    """

    dataset: Dataset
    description: str

    def __len__(self) -> int:
        return len(self.dataset.clips)

    @property
    def paths(self) -> list[Path]:
        return [self.dataset.root / path for path in self.dataset.clips.audio_path]

    @property
    def labels(self) -> Tensor:
        return torch.tensor(self.dataset.clips["label"].to_numpy(dtype=np.int64))


def make_clips(source: Path | None, count: int, scratch: Path) -> Clips:
    """`count` clips of the data set in `source` (None: of the built-in kind), repeated where it has fewer."""
    if source is None:
        from sousaphone.data.synthetic.generate import generate

        source = scratch / "made"
        generate(source, clips=max(count, 100), seed=0)
    dataset = read_dataset(source)
    table = pd.concat([dataset.clips] * -(-count // len(dataset.clips)), ignore_index=True)[:count]
    table = table.assign(split="train")
    info = soundfile.info(dataset.root / table.audio_path[0])
    description = (
        f"{min(count, len(dataset.clips))} clips of {table.duration_sec.mean():.1f} s on average, {info.format} "
        f"{info.subtype}, {info.samplerate / 1000:g} kHz, {info.channels} channel{'s' if info.channels > 1 else ''}"
    )
    return Clips(Dataset(dataset.root, table), description)


def cached(clips: Clips, rate: int, scratch: Path) -> tuple[WaveformCache, float]:
    """Our cache of the clips at `rate`, and the seconds per clip of building it."""
    began = time.perf_counter()
    cache = build_caches(clips.dataset, [rate], scratch / "cache", progress=False)[rate]
    return cache, (time.perf_counter() - began) / len(clips)
