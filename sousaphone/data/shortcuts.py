"""How far one gets without hearing a pattern: the nearest neighbour by length, by the count of strokes, by sound.

A model that reaches no more than these has learnt nothing about rudiments. In a set whose exercises have fixed cycle
counts, counting the strokes alone names many of them; the built-in set is drawn so that nothing here helps.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.compute
import pyarrow.parquet
import torch

from sousaphone.data.audio_files import open_clips
from sousaphone.data.decode import in_threads, read_samples, to_mono
from sousaphone.data.index import Dataset
from sousaphone.data.splits import draw
from sousaphone.rudiments import SLUGS

STROKES = "labels/strokes.parquet"
FIRST_SECONDS = (2.5, 5.0, 10.0)  # of a clip, in which its strokes are counted

# The onset counter: see `onsets`.
_FRAME_SECONDS, _HOP_SECONDS = 0.0116, 0.0029
_BANDS, _BAND_HERTZ = 16, (200.0, 16_000.0)
_COMPRESSION = 10.0
_LAG = 3  # hops over which a band's rise is taken
_APART_HOPS, _AROUND_HOPS = 7, 34  # 20 and 100 ms
_SHARE = 0.25  # of the strongest onsets, by which one must stand out


@dataclass(frozen=True)
class ShortcutScores:
    """What share of the clips the nearest neighbour names rightly, by what it looks at.

    Attributes:
        percent: of clips, by the feature's name.
        chance: what guessing gives, in percent.
        clips: how many were looked at.
        counted: where the strokes were counted, in the labels or in the audio.
    """

    percent: dict[str, float]
    chance: float
    clips: int
    counted: str


def shortcut_scores(dataset: Dataset, size: str = "tiny") -> ShortcutScores:
    """Score one nearest neighbour among other players' clips; the equally near vote.

    Strokes are counted in labels/strokes.parquet where that knows every clip, otherwise in the audio. A count within
    the first seconds is left out where no clip is longer: there it is the count of the whole.

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
    is_label = np.eye(len(SLUGS))[labels]  # [N, C]
    right = 0.0
    for rows in np.array_split(np.arange(len(labels)), -(-len(labels) // 256)):
        apart = sum((column[rows, None] - column) ** 2 for column in columns.T)  # [rows, N]
        apart = np.where(players[rows, None] == players, np.inf, apart)
        votes = (apart == apart.min(axis=1, keepdims=True)) @ is_label  # [rows, C]
        winners = votes == votes.max(axis=1, keepdims=True)
        right += float((winners[np.arange(len(rows)), labels[rows]] / winners.sum(axis=1)).sum())
    return 100 * right / len(labels)


def onsets(wave: np.ndarray, rate: int) -> np.ndarray:
    """When something is struck, in seconds, float [N]: the peaks of the spectral flux.

    The flux is the summed rise, over three hops of 3 ms, of log-compressed bands (S. Dixon, "Onset detection
    revisited", 2006). A peak counts that is the highest within 20 ms and stands out from the mean of 100 ms on both
    sides by a share of the clip's strongest ones. Grace notes and soft strokes under a loud one's decay are missed.

    Args:
        wave: float32 [T], mono.
        rate: Hz.
    """
    hop, frame = max(1, round(_HOP_SECONDS * rate)), max(2, round(_FRAME_SECONDS * rate))
    if len(wave) < frame + _LAG * hop:
        return np.zeros(0)
    padded = torch.nn.functional.pad(torch.from_numpy(wave), (frame, 0))
    spectrum = torch.stft(padded, frame, hop, window=torch.hann_window(frame), center=False, return_complex=True)
    bands = (_bands(frame, rate) @ spectrum.abs().square()).sqrt()  # [bands, F]
    loud = torch.log1p(_COMPRESSION * bands / bands.amax(dim=1, keepdim=True).clamp(min=1e-9))
    flux = (loud[:, _LAG:] - loud[:, :-_LAG]).clamp(min=0).mean(dim=0)[None]  # [1, F - lag]
    highest = torch.nn.functional.max_pool1d(flux, 2 * _APART_HOPS + 1, 1, _APART_HOPS)
    mean = torch.nn.functional.avg_pool1d(flux, 2 * _AROUND_HOPS + 1, 1, _AROUND_HOPS, count_include_pad=False)
    threshold = mean + _SHARE * torch.quantile(flux, 0.98)
    peaks = torch.nonzero((flux == highest) & (flux > threshold))[:, 1].numpy()
    return (peaks + _LAG) * hop / rate


@functools.cache
def _bands(frame: int, rate: int) -> torch.Tensor:
    """Means over the bins of logarithmic bands, float [bands, bins]; bands without a bin are left out."""
    hertz = torch.arange(frame // 2 + 1) * (rate / frame)
    edges = torch.from_numpy(np.geomspace(*_BAND_HERTZ, _BANDS + 1)).float()
    inside = (torch.bucketize(hertz, edges) - 1 == torch.arange(_BANDS)[:, None]).float()
    inside = inside[inside.sum(dim=1) > 0]
    return inside / inside.sum(dim=1, keepdim=True)


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
