"""The time of the default sweep over as many clips as `small` has, extrapolated from the first epoch of each trial,
which our own `fit` trains."""

from __future__ import annotations

import dataclasses
import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from sousaphone.backbones.registry import REGISTRY
from sousaphone.config import DATASET_SIZES
from sousaphone.data.batches import ClipSet
from sousaphone.data.cache.build import WaveformCache
from sousaphone.data.prepare import TrialData
from sousaphone.data.splits import SHARES, SPLITS
from sousaphone.model import build_model
from sousaphone.rudiments import SLUGS
from sousaphone.training.loop import fit

from .clips import Clips, cached
from .setting import Setting

EPOCHS = 20


@dataclass(frozen=True)
class Trial:
    """Seconds of one trial.

    Attributes:
        ready: until its first step: the model is built, the waveforms are on the device.
        epoch: its first epoch, evaluation included; later ones take less, since compilation and capture happen once.
        stepping: the part of it in training steps.
        peak_mb: of the GPU, with what a captured micro-batch holds.
    """

    model: str
    augment: bool
    ready: float
    epoch: float
    stepping: float
    peak_mb: float

    @property
    def total(self) -> float:
        """Of all epochs, assuming each is as long as the first."""
        return self.ready + EPOCHS * self.epoch


def measure(
    setting: Setting, models: Sequence[str], clips: Clips, scratch: Path, log: Callable[[str], None]
) -> list[Trial]:
    """One trial at a time, as on a GPU that nothing else uses."""
    found = []
    for model in models:
        rate = REGISTRY[model].sample_rate
        cache = _repeated(cached(clips, rate, scratch)[0], DATASET_SIZES["small"] or 0)
        dataset = clips.dataset
        table = dataset.clips.iloc[np.arange(len(cache)) % len(dataset.clips)].reset_index(drop=True)
        counts = [round(SHARES[split] * len(cache)) for split in SPLITS]
        table["split"] = np.repeat(SPLITS, counts)
        for augment in (False, True):
            config = dataclasses.replace(
                setting.config(model), augment=augment, learning_rate=1e-3, epochs=1, dataset="small", eval_batch=64
            )
            gc.collect()
            torch.cuda.empty_cache()  # of an earlier trial; in a sweep each has its own process
            began = time.perf_counter()
            classifier = build_model(config, len(SLUGS))
            train, validation, test = (
                ClipSet(cast(Any, cache), table, split, config.clip_seconds, torch.device(config.device), config.seed)
                for split in SPLITS
            )
            data = TrialData(dataset, train, validation, test)
            ready = time.perf_counter() - began
            (epoch,) = fit(config, classifier, data)
            row = epoch.metrics
            seconds = (ready, row["wall_seconds"], row["epoch_seconds"])
            found.append(Trial(model, augment, *seconds, row["peak_memory_mb"]))
            del epoch, classifier, data
            log(
                f"{model} {'augmented' if augment else 'plain'}: {row['wall_seconds']:.1f} s per epoch, "
                f"{row['samples_per_second']:.0f} clips/s in training, train_loss {row['train_loss']:.3f}"
            )
    return found


@dataclass(frozen=True)
class InMemoryCache:
    """The attributes of a WaveformCache that `ClipSet` uses."""

    wave: np.ndarray
    offsets: np.ndarray
    sample_rate: int

    def __len__(self) -> int:
        return len(self.offsets) - 1


def _repeated(cache: WaveformCache, count: int) -> InMemoryCache:
    """`count` clips, those of the cache again and again."""
    lengths = np.diff(cache.offsets)
    times = -(-count // len(lengths))
    ends = np.cumsum([0, *np.tile(lengths, times)[:count]], dtype=np.int64)
    wave = np.tile(cache.wave[: int(cache.offsets[-1])], times)[: int(ends[-1])]
    return InMemoryCache(wave, ends, cache.sample_rate)
