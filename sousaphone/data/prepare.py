"""From a data directory to what a trial needs: the drawn clips, and their waveforms in the cache."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path

import torch

from sousaphone.config import TrainConfig
from sousaphone.data.batches import ClipSet
from sousaphone.data.cache import WaveformCache, build_caches
from sousaphone.data.sousa import Dataset, read_dataset
from sousaphone.data.splits import draw


def prepare(
    data_dir: Path, size: str, sample_rates: Iterable[int], cache_dir: Path, progress: bool
) -> tuple[Dataset, dict[int, WaveformCache]]:
    """Read a data set, draw a subset of the given size, and map its waveforms at each rate (Hz).

    Raises:
        UserError: whatever is wrong with the directory, a clip, or the cache directory.
    """
    dataset = draw(read_dataset(data_dir), size)
    return dataset, build_caches(dataset, sample_rates, cache_dir, progress=progress)


@dataclasses.dataclass(frozen=True)
class TrialData:
    """The three splits of one trial at its backbone's rate, and the data set they come from."""

    dataset: Dataset
    train: ClipSet
    validation: ClipSet
    test: ClipSet


def open_trial_data(config: TrainConfig, sample_rate: int) -> TrialData:
    """The clips that a trial hears; every arm of a sweep gets the same clips and the same seconds."""
    dataset, caches = prepare(
        Path(config.data_dir), config.dataset, [sample_rate], Path(config.cache_dir), progress=False
    )
    device = torch.device(config.device)
    train, validation, test = (
        ClipSet(caches[sample_rate], dataset.clips, split, config.clip_seconds, device, config.seed)
        for split in ("train", "validation", "test")
    )
    return TrialData(dataset, train, validation, test)
