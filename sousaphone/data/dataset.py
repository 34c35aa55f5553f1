"""The table that every data set is read into."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd


@dataclass(frozen=True, eq=False)
class Dataset:
    """Clips on disk.

    Attributes:
        root: the data directory.
        clips: one row per clip: sample_id, player, rudiment, label (index into SLUGS), split (train, validation,
            test), audio_path (relative to root, with '/'; SHARD#ROW for a clip inside a Parquet shard), size_bytes and
            modified_ns (of the file or the shard), duration_sec (s), tempo_bpm, skill_tier, soundfont, preset,
            group_id. Missing values are NaN or ''.
        notes: messages for the user about the data set.
        players_known: False if `player` is derived from file names.
    """

    root: Path
    clips: pd.DataFrame
    notes: tuple[str, ...] = ()
    players_known: bool = True

    @cached_property
    def fingerprint(self) -> str:
        """Short hash of labels, players, splits, relative paths and file sizes, equal for a copy of the data set."""
        columns = ["audio_path", "rudiment", "player", "split", "size_bytes"]
        rows = zip(*(self.clips[column].tolist() for column in columns), strict=True)
        return hashlib.sha256("\n".join(repr(row) for row in rows).encode()).hexdigest()[:12]
