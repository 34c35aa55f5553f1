"""Shortcuts: accuracy of a nearest neighbour on duration, stroke counts or timbre, without the stroke pattern.

A model that does not exceed it may have learned nothing about rudiments. The built-in set has no such shortcut.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet

from sousaphone.config import CLIP_SECONDS
from sousaphone.data.cache.decode import in_threads, to_mono
from sousaphone.data.dataset import Dataset
from sousaphone.data.neighbours import nearest_votes
from sousaphone.data.readers.audio_files import open_clips
from sousaphone.data.readers.samples import read_samples
from sousaphone.data.splits import draw
from sousaphone.transcription.transcribe import transcribe

STROKES = "labels/strokes.parquet"
_FIRST_SECONDS = (*CLIP_SECONDS.values(), 10.0)  # parts of a clip in which strokes are counted


@dataclass(frozen=True)
class ShortcutScores:
    """Accuracy of the nearest neighbour by feature."""

    percent: dict[str, float]  # correctly classified clips by feature name
    majority: float  # percentage of clips of the largest class, the accuracy of always predicting it
    clips: int  # number of clips
    counted: str  # source of the stroke counts: "labels" or "audio"


def shortcut_scores(dataset: Dataset, size: str = "tiny") -> ShortcutScores:
    """Classify each clip by its nearest neighbour among other players' clips, with one feature at a time.

    Strokes are counted in labels/strokes.parquet if it has every clip, otherwise in the audio. Clips are drawn as for
    training; decoding 1,000 takes about ten seconds on two cores.
    """
    drawn = draw(dataset, size)
    clips = drawn.clips
    times = _labelled_times(drawn)
    counted = "audio" if times is None else "labels"
    sounds, detected = zip(*_sounds(drawn, with_onsets=times is None), strict=True)
    times = list(detected) if times is None else times
    seconds, level, centroid = np.array(sounds).T
    features = {"duration": seconds, "strokes": np.array([len(own) for own in times])}
    for first in _FIRST_SECONDS:
        if first < seconds.max():
            features[f"strokes in the first {first:g} s"] = np.array([(own < first).sum() for own in times])
    features["strokes per second"] = features["strokes"] / seconds
    features["duration, loudness and spectral centroid"] = np.stack([seconds, level, np.log(centroid)], axis=1)
    labels, players = clips.label.to_numpy(), clips.player.to_numpy()
    percent = {name: nearest_neighbour(values, labels, players) for name, values in features.items()}
    majority = 100 * float(np.bincount(labels).max()) / len(labels)
    return ShortcutScores(percent, majority, clips=len(clips), counted=counted)


def nearest_neighbour(features: np.ndarray, labels: np.ndarray, players: np.ndarray) -> float:
    """Return the percentage of clips with the label of the nearest clip of another player.

    Equally near clips vote; a tied vote counts fractionally.

    Args:
        features: [N] or [N, D]; each column is scaled to unit standard deviation.
        labels: int [N], indices into SLUGS.
        players: [N].
    """
    columns = np.asarray(features, np.float64).reshape(len(labels), -1)
    columns = columns / np.maximum(columns.std(axis=0), 1e-12)
    votes = nearest_votes(columns, columns, labels, (players, players))
    winners = votes == votes.max(axis=1, keepdims=True)
    correct = winners[np.arange(len(labels)), labels] / winners.sum(axis=1)
    return 100 * float(correct.sum()) / len(labels)


def _sounds(dataset: Dataset, with_onsets: bool) -> Iterator[tuple[tuple[float, float, float], np.ndarray]]:
    """Decode every clip; yield its duration (s), level (dB) and spectral centroid (Hz), and its onsets (s)."""

    def decode(clip: tuple[str, Path | BytesIO]) -> tuple[tuple[float, float, float], np.ndarray]:
        samples, rate = read_samples(*clip)
        wave = to_mono(samples)
        power = np.abs(np.fft.rfft(wave, 2 ** int(np.ceil(np.log2(max(len(wave), 2)))))) ** 2
        hertz = np.linspace(0, rate / 2, len(power))
        level = float(10 * np.log10(np.mean(wave**2) + 1e-10))
        centroid = float((hertz * power).sum() / max(power.sum(), 1e-10)) + 1
        return (len(wave) / rate, level, centroid), transcribe(wave, rate).times if with_onsets else np.zeros(0)

    return in_threads(decode, open_clips(dataset.root, dataset.clips.audio_path.tolist()))


def _labelled_times(dataset: Dataset) -> list[np.ndarray] | None:
    """Return each clip's stroke times in seconds, in the table's order; None if the labels lack a clip."""
    names, columns = dataset.clips.sample_id.tolist(), ["sample_id", "actual_time_ms"]
    try:
        strokes = pyarrow.parquet.read_table(
            dataset.root / STROKES, columns=columns, filters=[("sample_id", "in", names)]
        ).to_pandas()
    except (OSError, pyarrow.ArrowException):
        return None  # no such table, or not in SOUSA's format
    of_clip = {name: times.to_numpy() / 1000 for name, times in strokes.groupby("sample_id")["actual_time_ms"]}
    return [of_clip[name] for name in names] if of_clip.keys() >= set(names) else None
