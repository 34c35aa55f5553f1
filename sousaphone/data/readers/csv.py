"""Read labels from a CSV file: SOUSA's older metadata.csv, or a list of one's own with at least path and label."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from sousaphone.data.dataset import Dataset
from sousaphone.data.readers.audio_files import durations, find_files
from sousaphone.data.readers.labels import (
    NUMBERS,
    TEXT,
    check_labels,
    in_order,
    lacking,
    split_players,
    splits_of_players,
    stand_ins,
)
from sousaphone.data.splits import SPLIT_NAMES, read_splits
from sousaphone.errors import UserError
from sousaphone.text import one_line

# What else our columns are called; SOUSA's own names come first.
_ALSO = {
    "sample_id": ("id",),
    "player": ("player", "player_id", "session"),
    "rudiment": ("rudiment", "label"),
    "audio_path": ("path", "file_name", "file"),
    "preset": ("preset",),
    "group_id": ("group_id",),
    "duration_sec": ("duration",),
    "tempo_bpm": ("tempo",),
}


def read_csv(path: Path, only_test: bool = False) -> Dataset:
    """Read the clips that a CSV file lists; their paths are relative to its folder.

    A column `split` (train, validation or val, test) wins over a splits.json beside the file; without either the
    players are split 80/10/10. Without a column for the player, file names stand in for it.

    Args:
        only_test: every clip is a test clip, whatever splits there are.

    Raises:
        UserError: a column or a cell that is needed is missing, an unknown split, a player in two splits, and what
            can be wrong with every data set.
    """
    raw = _read(path)
    columns = _columns(list(raw.columns))
    missing = [" or ".join((TEXT[name], *_ALSO[name])) for name in ("audio_path", "rudiment") if name not in columns]
    if missing:
        raise lacking(path, missing, list(raw.columns))
    needed = [name for name in ("sample_id", "player", "rudiment", "audio_path") if name in columns]
    raw[columns["audio_path"]] = raw[columns["audio_path"]].str.strip().str.replace("\\", "/")
    clips, notes = check_labels(raw, columns, needed, path)
    if "sample_id" not in columns:
        clips["sample_id"] = clips.audio_path
    if "player" not in columns:
        labels = raw[columns["rudiment"]].tolist()
        clips["player"], said = stand_ins(path, clips.audio_path.tolist(), labels, only_test)
        notes += said
    split = next((name for name in raw.columns if name.strip().lower() == "split"), None)
    if only_test:
        clips, _ = split_players(clips, None, only_test=True)
    elif split is not None:
        clips["split"] = _splits(raw[split], path)
        listed = splits_of_players(clips, f"correct the column {split.strip()} of {path}")
        clips, said = split_players(clips.drop(columns="split"), listed, f"the column {split.strip()} of {path.name}")
        notes += said
    elif "player" in columns:
        clips, said = split_players(clips, read_splits(path.parent / "splits.json"))
        notes += said
    else:
        clips, _ = split_players(clips, None)
    audio_paths = clips.audio_path.tolist()
    clips["size_bytes"], clips["modified_ns"] = find_files(path.parent, audio_paths, path.name)
    if "duration_sec" not in columns:
        clips["duration_sec"] = durations(path.parent, audio_paths)
    return Dataset(path.parent, in_order(clips), notes, players_known="player" in columns)


def _read(path: Path) -> pd.DataFrame:
    try:
        with path.open(encoding="utf-8-sig") as file:  # spreadsheets begin theirs with a byte order mark
            header = file.readline()
        separator = max(",;\t", key=header.count)
        # Cells stay as they are written: a player may be called NA, or 007.
        return pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except pd.errors.EmptyDataError:
        raise UserError(f"{path} is empty; its first line must name the columns, such as path,label,player") from None
    except (OSError, ValueError) as error:  # pandas' ParserError and a wrong encoding are ValueErrors
        raise UserError(
            f"{path} cannot be read as CSV ({one_line(error)}); save it as UTF-8, one clip a line"
        ) from None


def _columns(present: list[str]) -> dict[str, str]:
    """Our names of the columns that are there, and what they are called; case does not matter."""
    called = {name.strip().lower(): name for name in reversed(present)}
    columns = {}
    for ours, theirs in {**TEXT, **NUMBERS}.items():
        found = next((called[name] for name in (theirs, *_ALSO.get(ours, ())) if name in called), None)
        if found is not None:
            columns[ours] = found
    return columns


def _splits(cells: pd.Series, path: Path) -> pd.Series:
    splits = cells.str.strip().str.lower().map(SPLIT_NAMES)
    if splits.isna().any():
        raise UserError(
            f"{path}: {splits.isna().sum()} of {len(cells)} rows have no known split (the first: "
            f"{cells[splits.isna()].iloc[0]!r}); give each one of: train, validation, test"
        )
    return splits
