"""Labels as read from a data set, before validation."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow
import pyarrow.parquet

from sousaphone.errors import UserError
from sousaphone.text import one_line

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
    to_split: str = "list them in splits.json"  # how to choose the players of each split, for messages
    file_list: str = ""  # the file that lists the paths, for messages; empty if the reader found the files itself
    read_headers: bool = False  # read durations from the headers of the audio files
    notes: tuple[str, ...] = ()  # messages for the user


@contextmanager
def open_parquet(path: Path) -> Iterator[pyarrow.parquet.ParquetFile]:
    """Open a Parquet file; convert errors to a UserError, also those of reading in the block."""
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            yield file
    except (OSError, pyarrow.ArrowException) as error:
        remedy = "make it readable, or copy it again from its source"
        raise UserError(f"{path} is not readable as Parquet ({one_line(error)}); {remedy}") from None


def read_labels(file: pyarrow.parquet.ParquetFile, origin: Path, columns: Mapping[str, str]) -> pd.DataFrame:
    """Read those of `columns` (our name: its name in the file) that the file has; the required ones must be present."""
    present = file.schema_arrow.names
    required = [columns[name] for name in REQUIRED if name in columns]
    refuse_missing(origin, [name for name in required if name not in present], present)
    used = [name for name in columns.values() if name in present]
    refuse_repeated(origin, used, present)
    return file.read(columns=used).to_pandas()


def refuse_missing(origin: Path, missing: Sequence[str], present: Collection[str]) -> None:
    """Raise a UserError if required columns are missing."""
    if missing:
        raise UserError(
            f"{origin} lacks the column{'s' if len(missing) > 1 else ''} {', '.join(missing)}; it has: "
            f"{', '.join(sorted(present))}; add or rename columns"
        )


def refuse_repeated(origin: Path, used: Sequence[str], present: Sequence[str]) -> None:
    """Raise a UserError if one of the columns that are used is there more than once."""
    if twice := [name for name in used if present.count(name) > 1]:
        raise UserError(f"{origin} has {present.count(twice[0])} columns {twice[0]}; keep one, and rename the others")
