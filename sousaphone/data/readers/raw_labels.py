"""What every reader hands over: labels as the data set gives them, before anything is checked."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from sousaphone.errors import UserError

# Our columns, and SOUSA's names for them.
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


@dataclass(frozen=True, eq=False)
class GivenSplits:
    """A split for every clip, as a data set gives it."""

    cells: pd.Series  # the split's name for each row of the raw table
    lister: str  # what gives it, for messages
    remedy: str  # what to do about a player in two splits, for messages
    apart: bool = False  # whether players without a name are taken for others in each split


@dataclass(frozen=True, eq=False)
class RawLabels:
    """What a reader finds in a data set, before anything is checked."""

    root: Path  # the data directory
    origin: Path  # where the labels come from, for messages
    # One row a clip, as it is written there; where the reader knows the files, also their size_bytes and modified_ns.
    table: pd.DataFrame
    columns: Mapping[str, str]  # our name of a column: its name in `table`, for those that are there
    needed: tuple[str, ...]  # our names of the columns in which every cell must be filled
    splits: GivenSplits | None = None  # None: those of a splits.json in `root`, or players split 80/10/10
    file_list: str = ""  # the file that lists the paths, for messages; empty where the reader found the files itself
    read_headers: bool = False  # whether the audio files' headers say how long the clips last
    notes: tuple[str, ...] = ()  # what to say aloud about it


def refuse_missing(origin: Path, missing: Sequence[str], present: Collection[str]) -> None:
    """Raise a UserError where columns are not there that must be."""
    if missing:
        raise UserError(
            f"{origin} lacks the column{'s' if len(missing) > 1 else ''} {', '.join(missing)}; it has: "
            f"{', '.join(sorted(present))}; add what is missing, or rename the column that holds it"
        )
