"""What is in a data set, in tables and sentences: for `python -m sousaphone.data check` and `info`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from rich import box
from rich.table import Table

from sousaphone.config import CLIP_SECONDS
from sousaphone.data.dataset import Dataset
from sousaphone.data.readers.parquet import place_in_shard
from sousaphone.data.readers.sousa import LABELS, METADATA
from sousaphone.data.splits import SPLITS

_MOST_ROWS = 40  # a table with more is a summary
_TEMPO_BAND = 20  # BPM


def form(source: Path | str, dataset: Dataset) -> str:
    """Which kind of data set it is, and where."""
    if place_in_shard(dataset.clips.audio_path.iloc[0])[1] is not None:
        kind = "Parquet shards with the audio inside, as on the hub"
    elif Path(source).suffix.lower() == ".csv":
        return f"a CSV file of labels, {Path(source).expanduser().absolute()}"
    elif (dataset.root / LABELS).is_file():
        kind = f"SOUSA's local layout ({LABELS})"
    elif (dataset.root / METADATA).is_file():
        kind = f"SOUSA's older layout ({METADATA})"
    else:
        kind = "a folder of recordings"
    return f"{kind}, {dataset.root}"


def lengths(seconds: pd.Series, labels: pd.Series, decoded: bool) -> list[str]:
    """How long the clips are, and how many are padded in a model's window; NaN where it is not known.

    Args:
        seconds: of each clip, of its audio where that was `decoded`.
        labels: as the data set says. SOUSA's end with the last stroke; the recordings go on for as long as it sounds.
    """
    known = seconds.dropna()
    if known.empty:
        return ["lengths: the labels do not give them"]
    by = "" if decoded else " by the labels, or the files' headers"
    longer = (seconds - labels).median()
    shorter = ", ".join(f"{(known < window).sum():,} shorter than {window:g} s" for window in CLIP_SECONDS.values())
    hear = " or ".join(f"{window:g} s ({scale})" for scale, window in CLIP_SECONDS.items())
    return [
        f"lengths{by}: {known.min():.2f} to {known.max():.2f} s, median {known.median():.2f} s, "
        f"{known.sum() / 3600:.2f} h in all",
        f"windows: of {len(known):,} clips {shorter}; models hear {hear} of a clip, and a shorter one is padded",
        *([f"labels: the recordings last {longer:.2f} s longer than they say, at the median"] if longer > 0.05 else []),
    ]


def tables(dataset: Dataset) -> Iterator[Table]:
    """Clips by split, player, rudiment, tempo, SoundFont and room; what the data set does not say is left out."""
    clips = dataset.clips
    yield _splits(clips)
    tempo = clips.tempo_bpm
    columns = {"player": clips.player}
    if tempo.notna().any():
        columns["tempo (BPM)"] = _bands(tempo)
    columns |= {"SoundFont": clips.soundfont, "room/preset": clips.preset, "rudiment": clips.rudiment}
    for name, values in columns.items():
        if (values != "").any():
            yield _counts(name, values, clips.split)


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE, pad_edge=False)
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left")
    return table


def _splits(clips: pd.DataFrame) -> Table:
    table = _table("split", "clips", "players", "rudiments")
    for name, own in [*((split, clips[clips.split == split]) for split in SPLITS), ("all", clips)]:
        table.add_row(name, f"{len(own):,}", str(own.player.nunique()), str(own.rudiment.nunique()))
    return table


def _counts(name: str, values: pd.Series, splits: pd.Series) -> Table:
    """Clips by value and split; where there are very many values, how many and their least and most clips."""
    counts = pd.crosstab(values, splits).reindex(columns=list(SPLITS), fill_value=0)
    if len(counts) <= _MOST_ROWS:
        table = _table(name, *SPLITS)
        for value, row in counts.iterrows():
            table.add_row(str(value) or "not given", *(f"{count:,}" for count in row))
        return table
    table = _table(f"{name}: {len(counts):,} of them", *SPLITS)
    present = {split: counts[split][counts[split] > 0] for split in SPLITS}
    table.add_row("with clips", *(f"{len(present[split]):,}" for split in SPLITS))
    for what in ("min", "median", "max"):
        cells = (f"{getattr(own, what)():,.0f}" if len(own) else "" for own in present.values())
        table.add_row(f"clips of one, {what}", *cells)
    return table


def _bands(tempo: pd.Series) -> pd.Series:
    floor = (tempo.replace([np.inf, -np.inf], np.nan) // _TEMPO_BAND) * _TEMPO_BAND
    return floor.map(lambda low: "not given" if np.isnan(low) else f"{low:3.0f} to {low + _TEMPO_BAND - 1:.0f}")
