"""Prepare the data of a trial: read a data set, draw the clips, and open their waveforms in the cache."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path

import torch

from sousaphone.backbones.registry import REGISTRY
from sousaphone.config import TrainConfig
from sousaphone.data.batches import ClipSet
from sousaphone.data.cache.build import build_caches
from sousaphone.data.dataset import Dataset
from sousaphone.data.readers.sousa import read_dataset
from sousaphone.data.splits import HELD_OUT, SPLITS, draw, hold_out

_EXCERPT = 4096  # samples compared at the start and in the middle of a clip


def read_subset(data_dir: Path, size: str, hold_out_rule: str = "") -> Dataset:
    """Read the labels of a data set, apply `splits.hold_out` and draw a subset; no audio is decoded."""
    dataset = read_dataset(data_dir)
    return draw(hold_out(dataset, hold_out_rule) if hold_out_rule else dataset, size)


def read_further(data_dir: Path) -> Dataset:
    """Read an additional test set: all of its clips are test clips, whatever splits it has."""
    return read_dataset(data_dir, only_test=True)


def fill_caches(dataset: Dataset, trials: Iterable[TrainConfig], cache_dir: Path) -> None:
    """Decode every clip to the sample rates of the trials, with a progress bar."""
    build_caches(dataset, {REGISTRY[trial.model].sample_rate for trial in trials}, cache_dir)


def overlap(dataset: Dataset, further: Dataset, trials: Iterable[TrainConfig], cache_dir: Path) -> str:
    """Return a warning if an additional test set shares recordings with the training or validation clips, else ''.

    Clips are compared by their length and two excerpts. Both data sets must be in the cache at the trials' rates.
    """
    rate = min(REGISTRY[trial.model].sample_rate for trial in trials)

    def excerpts(data: Dataset) -> Iterator[bytes]:
        cache = build_caches(data, [rate], cache_dir, progress=False)[rate]
        for start, end in pairwise(cache.offsets.tolist()):
            clip = cache.wave[start:end]
            parts = (clip[:_EXCERPT].tobytes(), clip[len(clip) // 2 :][:_EXCERPT].tobytes())
            yield hashlib.blake2b(b"%d " % len(clip) + b"".join(parts), digest_size=16).digest()

    kinds = zip(excerpts(dataset), dataset.clips.split, strict=True)
    used = {clip for clip, split in kinds if split in ("train", "validation")}
    shared = sum(clip in used for clip in excerpts(further))
    if not shared:
        return ""
    return (
        f"{shared} of the {len(further.clips)} recordings of --test-also are also training or validation clips, so its "
        "scores are not test results; give recordings that are not used for training"
    )


@dataclasses.dataclass(frozen=True)
class TrialData:
    """The clips of one trial at its backbone's sample rate, and their data set."""

    dataset: Dataset
    train: ClipSet
    validation: ClipSet
    test: ClipSet
    # Further clip sets to score, by the prefix of their metrics: `held_out` (a timbre excluded from training), `also`
    # (another data set).
    further: Mapping[str, ClipSet] = dataclasses.field(default_factory=dict)
    score_test: bool = True  # False in a search for settings, which must not use test clips

    @property
    def tests(self) -> dict[str, ClipSet]:
        """All clip sets scored at the end of a trial, by the prefix of their metrics."""
        return {"test": self.test, **self.further} if self.score_test else {}


def open_trial_data(config: TrainConfig, sample_rate: int) -> TrialData:
    """Open the clips of a trial; every arm of a sweep gets the same clips and the same seconds of audio."""
    device = torch.device(config.device)

    def clip_set(data: Dataset, split: str) -> ClipSet:
        cache = build_caches(data, [sample_rate], Path(config.cache_dir), progress=False)[sample_rate]
        return ClipSet(cache, data.clips, split, config.clip_seconds, device, config.seed)

    dataset = read_subset(Path(config.data_dir), config.dataset, config.hold_out)
    train, validation, test = (clip_set(dataset, split) for split in SPLITS)
    further = {HELD_OUT: clip_set(dataset, HELD_OUT)} if config.hold_out else {}
    if config.test_also:
        further["also"] = clip_set(read_further(Path(config.test_also)), "test")
    return TrialData(dataset, train, validation, test, further, config.score_test)
