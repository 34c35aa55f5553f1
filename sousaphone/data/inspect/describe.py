"""Description of a data set, in tables and sentences, for `python -m sousaphone.data check` and `info`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from rich import box
from rich.table import Table

from sousaphone.config import CLIP_SECONDS, FEW_PLAYERS
from sousaphone.data.dataset import Dataset
from sousaphone.data.inspect.check import Repeated
from sousaphone.data.inspect.inseparable import Pair
from sousaphone.data.inspect.stroke_sequences import StrokeSequences
from sousaphone.data.readers import csv
from sousaphone.data.readers.parquet import place_in_shard
from sousaphone.data.readers.paths import LISTS
from sousaphone.data.readers.sousa import LABELS
from sousaphone.data.splits import SPLITS
from sousaphone.files import expanded
from sousaphone.text import counted

_MAX_ROWS = 40  # a longer table is summarised
_TEMPO_BAND = 20  # BPM
_FEWEST_PAIRS, _MOST_PAIRS = 5, 10  # of classes that are shown: more than the fewest if they may be alike


def form(source: Path | str, dataset: Dataset) -> str:
    """Return the layout and location of a data set."""
    if place_in_shard(dataset.clips.audio_path.iloc[0])[1] is not None:
        kind = "Parquet shards with audio, as on the hub"
    elif Path(source).suffix.lower() in LISTS:
        return f"list of clips, {expanded(source).absolute()}"
    elif (dataset.root / LABELS).is_file():
        kind = f"SOUSA's local layout ({LABELS})"
    elif lists := csv.find_lists(dataset.root):
        kind = f"clips listed in {', '.join(path.relative_to(dataset.root).as_posix() for path in lists)}"
    else:
        kind = "folder of recordings"
    return f"{kind}, {dataset.root}"


def lengths(seconds: pd.Series, labels: pd.Series, decoded: bool) -> list[str]:
    """Report the durations of the clips (of their audio if `decoded`), and how many are shorter than a model's window.

    Durations in SOUSA's `labels` end with the last stroke, without its decay.
    """
    known = seconds.dropna()
    if known.empty:
        return ["durations: not in the labels"]
    source = "" if decoded else " (from labels or file headers)"
    longer = (seconds - labels).median()
    shorter = ", ".join(f"{(known < window).sum():,} shorter than {window:g} s" for window in CLIP_SECONDS.values())
    windows = " or ".join(f"{window:g} s ({scale})" for scale, window in CLIP_SECONDS.items())
    return [
        f"durations{source}: {known.min():.2f} to {known.max():.2f} s, median {known.median():.2f} s, "
        f"total {known.sum() / 3600:.2f} h",
        f"windows: of {counted(len(known), 'clip')}, {shorter}; models use {windows} of a clip and pad shorter ones",
        *([f"labels: the recordings are {longer:.2f} s longer than labelled, in the median"] if longer > 0.05 else []),
    ]


def tables(dataset: Dataset) -> Iterator[Table]:
    """Count clips by split, player, rudiment, tempo, SoundFont and room; unknown attributes are omitted."""
    clips = dataset.clips
    table = _table("split", "clips", "players", "rudiments")
    for name, own in [*((split, clips[clips.split == split]) for split in SPLITS), ("all", clips)]:
        table.add_row(name, f"{len(own):,}", str(own.player.nunique()), str(own.rudiment.nunique()))
    yield table
    tempo = clips.tempo_bpm
    columns = {"player": clips.player}
    if tempo.notna().any():
        columns["tempo (BPM)"] = _bands(tempo)
    columns |= {"SoundFont": clips.soundfont, "room/preset": clips.preset, "rudiment": clips.rudiment}
    for name, values in columns.items():
        if (values != "").any():
            yield _counts(name, values, clips.split)


def repeats(dataset: Dataset, repeated: Sequence[Repeated]) -> Iterator[str]:
    """Show the recordings that occur more than once, at most 40, with their full paths."""
    compared = (
        f"\nrecordings that occur twice, by their samples, or by their strokes and sound ({len(dataset.clips):,} clips)"
    )
    yield f"{compared}: {len(repeated) or 'none'}"
    for recording in repeated[:_MAX_ROWS]:
        clips = dataset.clips.loc[recording.clips]
        copy = "identical" if recording.identical else "re-encoded, shifted or at another level"
        yield f"  {copy}: " + " = ".join(f"{clip.audio_path} ({clip.split})" for clip in clips.itertuples())
    if more := len(repeated[_MAX_ROWS:]):
        yield f"  and {more} more"


def inseparable(dataset: Dataset, sequences: StrokeSequences, pairs: Sequence[Pair]) -> Iterator[str]:
    """Show the pairs of classes that strokes distinguish least, and clips of those that may be defined alike."""
    clips = dataset.clips
    source = "from the labels" if sequences.labelled else "transcribed from the audio"
    yield (
        f"\npairs of classes: accuracy of distinguishing them by their strokes ({', '.join(sequences.attributes)}; "
        f"{source}), in clips of unseen players; chance is 50 % ({len(clips):,} clips, "
        f"{counted(clips.player.nunique(), 'player')})"
    )
    alike = [pair for pair in pairs if pair.alike]
    shown = [pair for place, pair in enumerate(pairs) if place < _FEWEST_PAIRS or pair.alike][:_MOST_PAIRS]
    if shown:
        yield "  accuracy (95 % interval)  sequences agree by"
    for pair in shown:
        low, high = 100 * max(pair.low, 0), 100 * min(pair.high, 1)
        interval = f"({low:2.0f} to {high:3.0f} %)" if np.isfinite(pair.low) else "(unknown)"
        agreement = f"{100 * min(pair.agreement, 1):3.0f} %"
        line = f"  {100 * pair.accuracy:4.0f} %  {interval:>15}  {agreement}  {' / '.join(pair.classes)}"
        yield line + (f"  {pair.suspicion}" if pair.alike else "")
    if more := len([pair for pair in alike if pair not in shown]):
        yield f"  and {counted(more, 'pair')} more that may be alike"
    for pair in shown:
        if pair.alike:
            yield f"to listen to, {' / '.join(pair.classes)}:"
            for name, examples in zip(pair.classes, pair.examples, strict=True):
                yield f"  {name}: {', '.join(clips.audio_path.iloc[examples])}"
    if not sequences.labelled:
        yield (
            "The transcription misses strokes and does not detect the hands: a pair that it does not distinguish may "
            "still differ. Only labels of the strokes (labels/strokes.parquet) can decide."
        )
    fewest = min((pair.players for pair in shown), default=0)
    if fewest < FEW_PLAYERS:
        yield (
            f"With clips of {counted(fewest, 'player')} the intervals are wide or unknown; {FEW_PLAYERS} players or "
            "more would narrow them."
        )
    classes = clips.rudiment.nunique()
    if missing := classes * (classes - 1) // 2 - len(pairs):
        yield f"{counted(missing, 'pair')} not measured: a class has clips of a single player."


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE, pad_edge=False)
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left")
    return table


def _counts(name: str, values: pd.Series, splits: pd.Series) -> Table:
    """Count clips by value and split; for more than 40 values, summarise the counts."""
    counts = pd.crosstab(values, splits).reindex(columns=list(SPLITS), fill_value=0)
    if len(counts) <= _MAX_ROWS:
        table = _table(name, *SPLITS)
        for value, row in counts.iterrows():
            table.add_row(str(value) or "not given", *(f"{count:,}" for count in row))
        return table
    table = _table(f"{name}: {len(counts):,} values", *SPLITS)
    present = {split: counts[split][counts[split] > 0] for split in SPLITS}
    table.add_row("with clips", *(f"{len(present[split]):,}" for split in SPLITS))
    for statistic in ("min", "median", "max"):
        cells = (f"{own.agg(statistic):,.0f}" if len(own) else "" for own in present.values())
        table.add_row(f"clips per value, {statistic}", *cells)
    return table


def _bands(tempo: pd.Series) -> pd.Series:
    floor = (tempo.replace([np.inf, -np.inf], np.nan) // _TEMPO_BAND) * _TEMPO_BAND
    return floor.map(lambda low: "not given" if np.isnan(low) else f"{low:3.0f} to {low + _TEMPO_BAND - 1:.0f}")
