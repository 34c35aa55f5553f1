"""How long the default sweep takes over as many clips as `small` has: the first epoch of each of its trials, by the
program's own `fit`, and from it the rest."""

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
from sousaphone.data.prepare import TrialData
from sousaphone.data.splits import SHARES, SPLITS
from sousaphone.model import build_model
from sousaphone.rudiments import SLUGS
from sousaphone.training.loop import fit

from .clips import Clips, InMemory, cached
from .setting import Setting

EPOCHS = 20


@dataclass(frozen=True)
class Trial:
    """Seconds of one trial.

    Attributes:
        ready: from nothing to its first step: the model built, the waveforms on the device.
        epoch: its first epoch, with what is compiled and recorded once, and with all scores; so each later one takes
            less.
        stepping: of that, in training steps.
        peak_mb: of the card, with what a recorded micro-batch holds.
    """

    model: str
    augment: bool
    ready: float
    epoch: float
    stepping: float
    peak_mb: float

    @property
    def whole(self) -> float:
        """Of all epochs, each as long as the first."""
        return self.ready + EPOCHS * self.epoch


def measure(
    setting: Setting, models: Sequence[str], clips: Clips, scratch: Path, say: Callable[[str], None]
) -> list[Trial]:
    """One trial after the other, as a GPU of one's own has it."""
    found = []
    for model in models:
        rate = REGISTRY[model].sample_rate
        sound = _many(cast(Any, cached(clips, rate, scratch)[0]), DATASET_SIZES["small"] or 0)
        dataset = clips.dataset
        table = dataset.clips.iloc[np.arange(len(sound)) % len(dataset.clips)].reset_index(drop=True)
        counts = [round(SHARES[split] * len(sound)) for split in SPLITS]
        table["split"] = np.repeat(SPLITS, counts)
        for augment in (False, True):
            config = dataclasses.replace(
                setting.config(model), augment=augment, learning_rate=1e-3, epochs=1, dataset="small", eval_batch=64
            )
            gc.collect()
            torch.cuda.empty_cache()  # of an earlier trial; each has a process of its own in a sweep
            began = time.perf_counter()
            classifier = build_model(config, len(SLUGS))
            sets = (
                ClipSet(cast(Any, sound), table, split, config.clip_seconds, torch.device(config.device), config.seed)
                for split in SPLITS
            )
            data = TrialData(dataset, *sets)
            ready = time.perf_counter() - began
            (epoch,) = fit(config, classifier, data)
            row = epoch.metrics
            seconds = (ready, row["wall_seconds"], row["epoch_seconds"])
            found.append(Trial(model, augment, *seconds, row["peak_memory_mb"]))
            del epoch, classifier, data
            say(
                f"{model} {'augmented' if augment else 'plain'}: {row['wall_seconds']:.1f} s an epoch, "
                f"{row['samples_per_second']:.0f} clips/s in training, train_loss {row['train_loss']:.3f}"
            )
    return found


def _many(cache: Any, count: int) -> InMemory:
    """So many clips, those of the cache again and again."""
    lengths = np.diff(cache.offsets)
    times = -(-count // len(lengths))
    ends = np.cumsum([0, *np.tile(lengths, times)[:count]], dtype=np.int64)
    wave = np.tile(cache.wave[: int(cache.offsets[-1])], times)[: int(ends[-1])]
    return InMemory(wave, ends, cache.sample_rate)
