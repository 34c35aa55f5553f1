"""Audio of the worst confusions: misclassified clips, and clips of the rudiment that was predicted instead."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from io import BytesIO
from math import gcd
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile
from scipy.signal import resample_poly

from analysis.stats.confusion import Pair
from analysis.write.blocks import Sound, Sounds
from sousaphone.data.readers.audio_files import find_files, open_clips
from sousaphone.data.readers.parquet import place_in_shard
from sousaphone.data.readers.samples import read_samples
from sousaphone.errors import UserError
from sousaphone.rudiments import spoken
from sousaphone.text import one_line

RATE = 22_050  # Hz; snare strokes have little above 11 kHz that distinguishes rudiments
MOST_SECONDS, MOST_BYTES = 5.0, 20_000  # of one clip; of one MP3, approximately
# Clips of the true rudiment, and as many of the predicted one, by different players if possible.
MOST_PAIRS, CLIPS_EACH = 4, 2
_COMPRESSION = (0.6, 0.8, 0.99)  # on libsndfile's scale, from the best sound to the smallest file


def listening(
    root: Path, predictions: pd.DataFrame, pairs: Sequence[Pair], clip_seconds: float
) -> tuple[list[Sounds], list[str]]:
    """Return a group of short clips for each of the first pairs, and remarks about unreadable clips.

    Args:
        root: the data directory.
        predictions: the rows that the pairs were counted in, see `analysis.load.predictions.read_predictions`.
        clip_seconds: length of the models' input: the centre of each clip, or all of a shorter one.
    """
    found, errors = [], dict[str, None]()
    for pair in pairs[:MOST_PAIRS]:
        candidates = predictions[predictions.predicted == pair.predicted]
        clips = []
        for true, words in (
            (pair.true, f"{spoken(pair.true)}, predicted as {spoken(pair.predicted)}"),
            (pair.predicted, f"{spoken(pair.predicted)}, correctly classified, for comparison"),
        ):
            for row in _choose(candidates[candidates.rudiment == true], CLIPS_EACH):
                try:
                    content = _excerpt(root, str(row.audio_path), min(clip_seconds, MOST_SECONDS))
                except (UserError, OSError, ValueError, RuntimeError) as error:  # soundfile raises RuntimeError
                    errors[one_line(error, 200)] = None
                else:
                    clips.append(Sound(f"{words}: {_described(row)}", content))
        if clips:
            heading = f"{spoken(pair.true)} predicted as {spoken(pair.predicted)} ({pair.count} of {pair.support})"
            found.append(Sounds(heading, clips))
    return found, [f"Audio of some confused clips is unavailable: {next(iter(errors))}"] if errors else []


def _choose(rows: pd.DataFrame, most: int) -> Iterator[pd.Series]:
    """Yield the clips on which the most seeds agree; a player's second clip only if there are too few players."""
    if rows.empty:
        return
    firsts = {name: (name, "first") for name in ("player", "audio_path", "tempo_bpm")}
    clips = rows.groupby("sample_id", observed=True, as_index=False).agg(seeds=("sample_id", "size"), **firsts)
    clips = clips.sort_values(["seeds", "sample_id"], ascending=[False, True])
    turn = clips.groupby("player", observed=True).cumcount()
    for _, row in clips.assign(turn=turn).sort_values("turn", kind="stable").head(most).iterrows():
        yield row


def _described(row: pd.Series) -> str:
    tempo = f", {row.tempo_bpm:.0f} BPM" if np.isfinite(row.tempo_bpm) else ""
    name = str(row.player)
    return f"{name if name.startswith('player') else f'player {name}'}{tempo}"


def _excerpt(root: Path, audio_path: str, seconds: float) -> bytes:
    """Encode the centre of a clip in mono; raise a UserError, OSError, ValueError or RuntimeError if unreadable."""
    if not audio_path:
        raise UserError("the predictions contain no audio_path")
    # Rejects a path outside the data directory, so that the page embeds no other file.
    find_files(root, [place_in_shard(audio_path)[0]], "give another --data-dir")
    samples, rate = read_samples(*next(open_clips(root, [audio_path])))
    frames = min(len(samples), round(seconds * rate))
    start = (len(samples) - frames) // 2
    wave = samples[start : start + frames].mean(axis=1)
    if rate != RATE:
        common = gcd(rate, RATE)
        wave = resample_poly(wave, RATE // common, rate // common).astype(np.float32)
    return encoded(np.clip(wave, -1.0, 1.0))


def encoded(wave: np.ndarray) -> bytes:
    """Encode samples [T] at RATE as a small MP3."""
    content = b""
    for level in _COMPRESSION:
        buffer = BytesIO()
        soundfile.write(buffer, wave, RATE, format="MP3", compression_level=level)
        content = buffer.getvalue()
        if len(content) <= MOST_BYTES:
            break
    return content
