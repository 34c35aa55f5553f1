"""The strokes of each clip: from labels/strokes.parquet where it has them, otherwise transcribed from the audio."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet

from sousaphone.data.cache.decode import in_threads, to_mono
from sousaphone.data.dataset import Dataset
from sousaphone.data.readers.audio_files import open_clips
from sousaphone.data.readers.samples import read_samples
from sousaphone.text import tracked
from sousaphone.transcription.transcribe import transcribe

STROKES = "labels/strokes.parquet"
_TIME, _VELOCITY, _HAND, _TYPE = "actual_time_ms", "actual_velocity", "hand", "stroke_type"
_MOST_TYPES = 6  # stroke types that are distinguished, the most frequent first


@dataclass(frozen=True)
class Strokes:
    """The strokes of one clip by time: `times` [N] in seconds, and what else is known of each, `values` [C, N]."""

    times: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class StrokeSequences:
    """The strokes of every clip of a data set.

    Attributes:
        clips: one per clip, in the data set's order.
        attributes: what is known of a stroke, for messages: time, loudness, hand, type.
        labelled: False if the strokes are transcribed.
    """

    clips: list[Strokes]
    attributes: tuple[str, ...]
    labelled: bool


def labelled_strokes(dataset: Dataset) -> StrokeSequences | None:
    """Read the strokes of every clip from the labels, with velocity, hand and type where given; None if the labels
    lack the times of a clip."""
    names = dataset.clips.sample_id.tolist()
    try:
        known = pyarrow.parquet.read_schema(dataset.root / STROKES).names
        columns = ["sample_id", _TIME, *(column for column in (_VELOCITY, _HAND, _TYPE) if column in known)]
        filters = [("sample_id", "in", names)]
        table = pyarrow.parquet.read_table(dataset.root / STROKES, columns=columns, filters=filters).to_pandas()
    except (OSError, pyarrow.ArrowException):
        return None  # no such table, or not in SOUSA's format
    for column in (_TIME, _VELOCITY):
        if column in table:
            numbers = pd.to_numeric(table[column], errors="coerce").astype(float)
            table[column] = numbers.where(np.isfinite(numbers))
    for column in (_HAND, _TYPE):
        if column in table:  # numbers or lists instead of names as well
            table[column] = table[column].astype(str).where(table[column].notna())
    table = table[table[_TIME].notna()].sort_values(_TIME, kind="stable")
    given = [column for column in columns[2:] if table[column].notna().all()]
    values = {}
    if _VELOCITY in given:
        values[_VELOCITY] = _loudness(table[_VELOCITY].to_numpy(), table.groupby("sample_id")[_VELOCITY])
    if _HAND in given:
        values[_HAND] = (table[_HAND] == table.groupby("sample_id")[_HAND].shift()).to_numpy(float)
    if _TYPE in given:
        for kind in table[_TYPE].value_counts().index[:_MOST_TYPES]:
            values[f"{_TYPE} {kind}"] = (table[_TYPE] == kind).to_numpy(float)
    times, every = table[_TIME].to_numpy() / 1000, np.array([*values.values()]).reshape(len(values), len(table))
    rows = table.groupby("sample_id").indices
    if not rows.keys() >= set(names):
        return None
    clips = [Strokes(times[rows[name]], every[:, rows[name]]) for name in names]
    words = {_VELOCITY: "loudness", _HAND: "hand", _TYPE: "type"}
    return StrokeSequences(clips, ("time", *(words[column] for column in given)), labelled=True)


def _loudness(velocities: np.ndarray, of_clip: pd.api.typing.SeriesGroupBy) -> np.ndarray:
    """Return the logarithm of each velocity re the median of its clip."""
    return np.log(np.maximum(velocities, 1) / np.maximum(of_clip.transform("median").to_numpy(), 1))


def transcribed_strokes(dataset: Dataset) -> StrokeSequences:
    """Transcribe the strokes of every clip; raises a UserError if one is not decodable."""

    def decode(clip: tuple[str, Path | BytesIO]) -> Strokes:
        samples, rate = read_samples(*clip)
        return transcribed(to_mono(samples), rate)

    paths = dataset.clips.audio_path.tolist()
    found = in_threads(decode, open_clips(dataset.root, paths))
    clips = list(tracked(found, f"transcribing {len(paths):,} clips", len(paths)))
    return StrokeSequences(clips, ("time", "loudness", "type"), labelled=False)


def transcribed(wave: np.ndarray, rate: int) -> Strokes:
    """Transcribe a clip, float32 [T]: the times of its strokes, their loudness re the median, and the probabilities
    that they are grace notes or buzzes."""
    found = transcribe(wave, rate)
    velocities = np.maximum(found.velocities, 1)
    loudness = np.log(velocities / np.median(velocities)) if len(velocities) else velocities
    return Strokes(found.times, np.stack([loudness, found.grace, found.buzz]))
