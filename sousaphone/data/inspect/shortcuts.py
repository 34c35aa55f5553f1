"""Shortcuts: accuracy of a nearest neighbour on duration, stroke counts or timbre, without the stroke pattern.

A model that does not exceed it may have learned nothing about rudiments. The built-in set has no such shortcut.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np

from sousaphone.config import CLIP_SECONDS
from sousaphone.data.cache.decode import in_threads, to_mono
from sousaphone.data.dataset import Dataset
from sousaphone.data.inspect.stroke_sequences import StrokeSequences
from sousaphone.data.neighbours import nearest_votes
from sousaphone.data.readers.audio_files import open_clips
from sousaphone.data.readers.samples import read_samples

_FIRST_SECONDS = (*CLIP_SECONDS.values(), 10.0)  # parts of a clip in which strokes are counted


@dataclass(frozen=True)
class ShortcutScores:
    """Accuracy of the nearest neighbour by feature."""

    percent: dict[str, float]  # correctly classified clips by feature name
    majority: float  # percentage of clips of the largest class, the accuracy of always predicting it
    clips: int  # number of clips
    counted: str  # source of the stroke counts: "labels" or "audio"


def shortcut_scores(dataset: Dataset, strokes: StrokeSequences) -> ShortcutScores:
    """Classify each clip by its nearest neighbour among other players' clips, with one feature at a time.

    Decoding 1,000 clips takes about ten seconds on two cores.
    """
    clips = dataset.clips
    times = [own.times for own in strokes.clips]
    counted = "labels" if strokes.labelled else "audio"
    seconds, level, centroid = np.array(list(_sounds(dataset))).T
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


def _sounds(dataset: Dataset) -> Iterator[tuple[float, float, float]]:
    """Decode every clip; yield its duration (s), level (dB) and spectral centroid (Hz)."""

    def decode(clip: tuple[str, Path | BytesIO]) -> tuple[float, float, float]:
        samples, rate = read_samples(*clip)
        wave = to_mono(samples)
        power = np.abs(np.fft.rfft(wave, 2 ** int(np.ceil(np.log2(max(len(wave), 2)))))) ** 2
        hertz = np.linspace(0, rate / 2, len(power))
        level = float(10 * np.log10(np.mean(wave**2) + 1e-10))
        centroid = float((hertz * power).sum() / max(power.sum(), 1e-10)) + 1
        return len(wave) / rate, level, centroid

    return in_threads(decode, open_clips(dataset.root, dataset.clips.audio_path.tolist()))
