"""The one table that every form of a data set is read into."""

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
        clips: one row a clip: sample_id, player, rudiment, label (index into SLUGS), split (train, validation,
            test), audio_path (below root, with '/'; SHARD#ROW for a clip inside a Parquet shard), size_bytes and
            modified_ns (of the file or the shard), duration_sec (s), tempo_bpm, skill_tier, soundfont, preset,
            group_id. What the data set does not say is NaN or ''.
        notes: what to say aloud about it, and what can be done about it.
        players_known: whether what counts as a player is one, and no group of recordings with one name stem.
    """

    root: Path
    clips: pd.DataFrame
    notes: tuple[str, ...] = ()
    players_known: bool = True

    @cached_property
    def fingerprint(self) -> str:
        """Short hash of labels, players, splits, relative paths and file sizes; a copied data set keeps it."""
        columns = ["audio_path", "rudiment", "player", "split", "size_bytes"]
        rows = zip(*(self.clips[column].tolist() for column in columns), strict=True)
        return hashlib.sha256("\n".join(repr(row) for row in rows).encode()).hexdigest()[:12]
