"""From a data directory to what a trial needs: the drawn clips, and their waveforms in the cache."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch

from sousaphone.backbones.registry import REGISTRY
from sousaphone.config import TrainConfig
from sousaphone.data.batches import ClipSet
from sousaphone.data.cache.build import build_caches
from sousaphone.data.dataset import Dataset
from sousaphone.data.readers.sousa import read_dataset
from sousaphone.data.splits import HELD_OUT, SPLITS, draw, hold_out

_PIECE = 4096  # samples


def read_subset(data_dir: Path, size: str, hold_out_rule: str = "") -> Dataset:
    """Read a data set's labels and draw a subset of the given size; no audio is decoded.

    Args:
        hold_out_rule: a timbre to keep out of training and validation, see `splits.hold_out`.

    Raises:
        UserError: whatever is wrong with the directory or its labels.
    """
    dataset = read_dataset(data_dir)
    return draw(hold_out(dataset, hold_out_rule) if hold_out_rule else dataset, size)


def read_further(data_dir: Path) -> Dataset:
    """Every clip of a further data set, whatever splits it has: all of it is for testing."""
    return read_dataset(data_dir, only_test=True)


def fill_caches(dataset: Dataset, trials: Iterable[TrainConfig], cache_dir: Path) -> None:
    """Decode every clip, once, to every sample rate that the trials want; with a progress bar.

    Raises:
        UserError: a clip that cannot be decoded; no space.
    """
    build_caches(dataset, {REGISTRY[trial.model].sample_rate for trial in trials}, cache_dir, progress=True)


def overlap(dataset: Dataset, further: Dataset, trials: Iterable[TrainConfig], cache_dir: Path) -> str:
    """What must be said where a further data set shares recordings with the training clips; empty if it shares none.

    A clip is told by its length and two pieces of its sound. Both sets are in the cache at the rates of these trials.
    """
    rate = min(REGISTRY[trial.model].sample_rate for trial in trials)

    def sounds(data: Dataset, rows: Iterable[int]) -> list[tuple[int, bytes]]:
        cache = build_caches(data, [rate], cache_dir, progress=False)[rate]
        bounds = ((int(cache.offsets[row]), int(cache.offsets[row + 1])) for row in rows)
        return [
            (
                end - start,
                b"".join(cache.wave[at : min(at + _PIECE, end)].tobytes() for at in (start, (start + end) // 2)),
            )
            for start, end in bounds
        ]

    train = set(sounds(dataset, (dataset.clips.split == "train").to_numpy().nonzero()[0]))
    shared = sum(sound in train for sound in sounds(further, range(len(further.clips))))
    if not shared:
        return ""
    return (
        f"{shared} of the {len(further.clips)} recordings of --test-also are among the training clips: what is scored "
        "there is no test; give recordings that nobody trained on"
    )


@dataclasses.dataclass(frozen=True)
class TrialData:
    """What one trial hears, at its backbone's rate, and the data set it comes from."""

    dataset: Dataset
    train: ClipSet
    validation: ClipSet
    test: ClipSet
    # Clip sets that are scored beside the test clips, by the prefix of their metrics: `held_out` (a timbre kept from
    # training), `also` (another data set).
    further: Mapping[str, ClipSet] = dataclasses.field(default_factory=dict)
    score_test: bool = True  # whether anything is scored at a trial's end; a search among settings must not look

    @property
    def tests(self) -> dict[str, ClipSet]:
        """All that is scored at a trial's end, by the prefix of its metrics."""
        return {"test": self.test, **self.further} if self.score_test else {}


def open_trial_data(config: TrainConfig, sample_rate: int) -> TrialData:
    """The clips that a trial hears; every arm of a sweep gets the same clips and the same seconds."""
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
