"""Labels as read from a data set, before validation."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from sousaphone.errors import UserError

# Columns: our names and SOUSA's.
TEXT = {
    "sample_id": "sample_id",
    "player": "profile_id",
    "rudiment": "rudiment_slug",
    "audio_path": "audio_path",
    "skill_tier": "skill_tier",
    "soundfont": "soundfont",
    "preset": "augmentation_preset",
    "group_id": "augmentation_group_id",
}
NUMBERS = {"duration_sec": "duration_sec", "tempo_bpm": "tempo_bpm"}
REQUIRED = ("sample_id", "player", "rudiment", "audio_path")  # without empty cells, if present


@dataclass(frozen=True, eq=False)
class GivenSplits:
    """The split of every clip, as given in a data set."""

    cells: pd.Series  # name of the split for each row of the raw table
    lister: str  # source of the splits, for messages
    remedy: str  # how to correct a player in two splits, for messages
    separate: bool = False  # unnamed players of different splits are different players


@dataclass(frozen=True, eq=False)
class RawLabels:
    """Output of every reader, before validation."""

    root: Path  # the data directory
    origin: Path  # source of the labels, for messages
    table: pd.DataFrame  # one row per clip, as read; size_bytes and modified_ns if the reader knows the files
    columns: Mapping[str, str]  # our name of each column present: its name in `table`
    splits: GivenSplits | None = None  # None: from splits.json in `root`, or players split 80/10/10
    file_list: str = ""  # the file that lists the paths, for messages; empty if the reader found the files itself
    read_headers: bool = False  # read durations from the headers of the audio files
    notes: tuple[str, ...] = ()  # messages for the user


def refuse_missing(origin: Path, missing: Sequence[str], present: Collection[str]) -> None:
    """Raise a UserError if required columns are missing."""
    if missing:
        raise UserError(
            f"{origin} lacks the column{'s' if len(missing) > 1 else ''} {', '.join(missing)}; it has: "
            f"{', '.join(sorted(present))}; add or rename columns"
        )
