"""The worst confusions to listen to: clips that were taken for another rudiment, beside clips of that other one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from io import BytesIO
from math import gcd
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile
from scipy.signal import resample_poly

from analysis.stats.confusion import Pair, spoken
from analysis.write.blocks import Sound, Sounds
from sousaphone.data.readers.audio_files import find_files, open_clips
from sousaphone.data.readers.parquet import place_in_shard
from sousaphone.errors import UserError
from sousaphone.text import one_line

RATE = 22_050  # Hz; strokes on a snare have little above 11 kHz that tells rudiments apart
MOST_SECONDS, MOST_BYTES = 5.0, 20_000  # of one clip; of one MP3, about
# libsndfile's scale, from the best sound to the smallest file.
_COMPRESSION = (0.6, 0.8, 0.99)


def listening(
    root: Path,
    predictions: pd.DataFrame,
    pairs: Sequence[Pair],
    clip_seconds: float,
    most_pairs: int = 4,
    clips_each: int = 2,
) -> tuple[list[Sounds], list[str]]:
    """Short clips for the first of these pairs.

    Args:
        root: the data directory; what is not there any more is remarked upon.
        predictions: those that the pairs were counted in: sample_id, player, rudiment, predicted, audio_path and
            tempo_bpm.
        clip_seconds: what the models heard: the centre of each clip, or all of a shorter one.
        clips_each: clips of the one rudiment, and as many of the other, by different players where there are some.

    Returns:
        One group of sounds a pair, and remarks.
    """
    found, lost = [], dict[str, None]()
    for pair in pairs[:most_pairs]:
        named = predictions[predictions.predicted == pair.predicted]
        clips = []
        for played, words in (
            (pair.true, f"{spoken(pair.true)}, taken for {spoken(pair.predicted)}"),
            (pair.predicted, f"{spoken(pair.predicted)}, recognised"),
        ):
            for row in _choose(named[named.rudiment == played], clips_each):
                try:
                    content, mime = _excerpt(root, str(row.audio_path), min(clip_seconds, MOST_SECONDS))
                except (UserError, OSError, ValueError, RuntimeError) as error:  # soundfile's are RuntimeErrors
                    lost[one_line(error, 200)] = None
                else:
                    clips.append(Sound(f"{words}: {_told(row)}", content, mime))
        if clips:
            heading = f"{spoken(pair.true)} taken for {spoken(pair.predicted)} ({pair.count} of {pair.heard})"
            found.append(Sounds(heading, clips))
    remarks = [f"Not all clips can be listened to: {next(iter(lost))}"] if lost else []
    return found, remarks


def _choose(rows: pd.DataFrame, most: int) -> Iterator[pd.Series]:
    """The clips that the most seeds agree on, a player's second one only where there are too few players."""
    if rows.empty:
        return
    firsts = {name: (name, "first") for name in ("player", "audio_path", "tempo_bpm")}
    clips = rows.groupby("sample_id", observed=True, as_index=False).agg(seeds=("sample_id", "size"), **firsts)
    clips = clips.sort_values(["seeds", "sample_id"], ascending=[False, True])
    turn = clips.groupby("player", observed=True).cumcount()
    for _, row in clips.assign(turn=turn).sort_values("turn", kind="stable").head(most).iterrows():
        yield row


def _told(row: pd.Series) -> str:
    tempo = f", {row.tempo_bpm:.0f} BPM" if np.isfinite(row.tempo_bpm) else ""
    name = str(row.player)
    return f"{name if name.startswith('player') else f'player {name}'}{tempo}"


def _excerpt(root: Path, audio_path: str, seconds: float) -> tuple[bytes, str]:
    """The centre of a clip, mono, and its MIME type; UserError, OSError, ValueError or RuntimeError if unreadable."""
    if not audio_path:
        raise UserError("the predictions do not say where the clips are")
    # Refuses a path that leaves the data directory: the page would hold what is none of its business.
    find_files(root, [place_in_shard(audio_path)[0]], "the predictions")
    _, source = next(open_clips(root, [audio_path]))
    with soundfile.SoundFile(source) as file:
        frames = min(file.frames, round(seconds * file.samplerate))
        file.seek((file.frames - frames) // 2)
        wave = file.read(frames, dtype="float32", always_2d=True).mean(axis=1)
        rate = file.samplerate
    if not len(wave):
        raise UserError(f"{audio_path} is empty")
    if rate != RATE:
        common = gcd(rate, RATE)
        wave = resample_poly(wave, RATE // common, rate // common).astype(np.float32)
    return encoded(np.clip(wave, -1.0, 1.0))


def encoded(wave: np.ndarray) -> tuple[bytes, str]:
    """Samples [T] at RATE as a file in memory, and its MIME type: a small MP3, or WAV where there is no encoder."""
    if "MP3" not in soundfile.available_formats():
        return _written(wave, "WAV"), "audio/wav"
    content = b""
    for level in _COMPRESSION:
        content = _written(wave, "MP3", level)
        if len(content) <= MOST_BYTES:
            break
    return content, "audio/mpeg"


def _written(wave: np.ndarray, form: str, compression: float | None = None) -> bytes:
    buffer = BytesIO()
    more = {} if compression is None else {"compression_level": compression}
    soundfile.write(buffer, wave, RATE, format=form, **more)
    return buffer.getvalue()
