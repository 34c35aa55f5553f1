"""How far one gets without hearing a pattern: the nearest neighbour by length, by the count of strokes, by sound.

A model that reaches no more than these has learnt nothing about rudiments; in the built-in set none of it helps.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.compute
import pyarrow.parquet

from sousaphone.config import CLIP_SECONDS
from sousaphone.data.cache.decode import in_threads, read_samples, to_mono
from sousaphone.data.dataset import Dataset
from sousaphone.data.neighbours import nearest_votes
from sousaphone.data.onsets import onsets
from sousaphone.data.readers.audio_files import open_clips
from sousaphone.data.splits import draw

STROKES = "labels/strokes.parquet"
FIRST_SECONDS = (*CLIP_SECONDS.values(), 10.0)  # of a clip, in which its strokes are counted


@dataclass(frozen=True)
class ShortcutScores:
    """What share of the clips the nearest neighbour names rightly, by what it looks at."""

    percent: dict[str, float]  # of clips, by the feature's name
    chance: float  # what guessing gives, in percent
    clips: int  # how many were looked at
    counted: str  # where the strokes were counted, in the labels or in the audio


def shortcut_scores(dataset: Dataset, size: str = "tiny") -> ShortcutScores:
    """Score one nearest neighbour among other players' clips; the equally near vote.

    Strokes are counted in labels/strokes.parquet where that knows every clip, otherwise in the audio.

    Args:
        size: at most so many clips, drawn as for training. Decoding 1,000 takes about ten seconds on two cores.

    Raises:
        UserError: an unknown size; a clip that cannot be decoded.
    """
    drawn = draw(dataset, size)
    clips = drawn.clips
    times = _labelled_times(drawn)
    sounds = list(_sounds(drawn, with_onsets=times is None))
    counted = "audio" if times is None else "labels"
    if times is None:
        times = [sound.onsets for sound in sounds]
    seconds = np.array([sound.seconds for sound in sounds])
    level, centroid = (np.array([getattr(sound, name) for sound in sounds]) for name in ("level_db", "centroid_hz"))
    counts = {"strokes": np.array([len(own) for own in times])}
    for first in FIRST_SECONDS:
        if first < seconds.max():
            counts[f"strokes in the first {first:g} s"] = np.array([(own < first).sum() for own in times])
    features = {
        "duration": seconds,
        **counts,
        "strokes a second": counts["strokes"] / seconds,
        "duration, loudness and spectral centroid": np.stack([seconds, level, np.log(centroid)], axis=1),
    }
    labels, players = clips.label.to_numpy(), clips.player.to_numpy()
    percent = {name: nearest_neighbour(values, labels, players) for name, values in features.items()}
    return ShortcutScores(percent, chance=100 / len(np.unique(labels)), clips=len(clips), counted=counted)


def nearest_neighbour(features: np.ndarray, labels: np.ndarray, players: np.ndarray) -> float:
    """Percent of clips whose label is that of the nearest one of another player.

    The equally near vote; votes that tie count by share.

    Args:
        features: [N] or [N, D]; each column is scaled to unit deviation.
        labels: int [N], indices into SLUGS.
        players: [N].
    """
    columns = np.asarray(features, np.float64).reshape(len(labels), -1)
    columns = columns / np.maximum(columns.std(axis=0), 1e-12)
    votes = nearest_votes(columns, columns, labels, (players, players))
    winners = votes == votes.max(axis=1, keepdims=True)
    right = winners[np.arange(len(labels)), labels] / winners.sum(axis=1)
    return 100 * float(right.sum()) / len(labels)


@dataclass(frozen=True)
class _Sound:
    seconds: float
    level_db: float
    centroid_hz: float
    onsets: np.ndarray


def _sounds(dataset: Dataset, with_onsets: bool) -> Iterator[_Sound]:
    """Every clip's, in the table's order, decoded in threads."""

    def listen(clip: tuple[str, Path | BytesIO]) -> _Sound:
        samples, rate = read_samples(*clip)
        wave = to_mono(samples)
        power = np.abs(np.fft.rfft(wave, 2 ** int(np.ceil(np.log2(max(len(wave), 2)))))) ** 2
        hertz = np.linspace(0, rate / 2, len(power))
        return _Sound(
            seconds=len(wave) / rate,
            level_db=float(10 * np.log10(np.mean(wave**2) + 1e-10)),
            centroid_hz=float((hertz * power).sum() / max(power.sum(), 1e-10)) + 1,
            onsets=onsets(wave, rate) if with_onsets else np.zeros(0),
        )

    return in_threads(listen, open_clips(dataset.root, dataset.clips.audio_path.tolist()))


def _labelled_times(dataset: Dataset) -> list[np.ndarray] | None:
    """Each clip's strokes in seconds, in the table's order; None where the labels do not know every clip."""
    path = dataset.root / STROKES
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            wanted = pyarrow.array(dataset.clips.sample_id.tolist())
            tables = []
            for batch in file.iter_batches(columns=["sample_id", "actual_time_ms"]):
                mine = pyarrow.compute.is_in(batch["sample_id"].cast(wanted.type), wanted)
                tables.append(batch.filter(mine).to_pandas())
    except (OSError, pyarrow.ArrowException, KeyError):
        return None  # no such table, or not in SOUSA's form: the audio tells as well
    strokes = pd.concat(tables) if tables else pd.DataFrame({"sample_id": [], "actual_time_ms": []})
    of_clip = {name: times.to_numpy() / 1000 for name, times in strokes.groupby("sample_id")["actual_time_ms"]}
    if not all(name in of_clip for name in dataset.clips.sample_id):
        return None
    return [of_clip[name] for name in dataset.clips.sample_id]
