"""Read labels from a CSV file: SOUSA's older metadata.csv, or a list of one's own with at least path and label."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from sousaphone.data.readers.raw_labels import NUMBERS, TEXT, GivenSplits, RawLabels, refuse_missing
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


def read_csv(path: Path) -> RawLabels:
    """The clips that a CSV file lists; their paths are relative to its folder.

    A column `split` (train, validation or val, test) wins over a splits.json beside the file; without either the
    players are split 80/10/10. Without a column for the player, file names stand in for it.

    Raises:
        UserError: it cannot be read, or a column that is needed is missing.
    """
    raw = _read(path)
    columns = _columns(list(raw.columns))
    missing = [" or ".join((TEXT[name], *_ALSO[name])) for name in ("audio_path", "rudiment") if name not in columns]
    refuse_missing(path, missing, list(raw.columns))
    raw[columns["audio_path"]] = raw[columns["audio_path"]].str.strip().str.replace("\\", "/")
    split = next((name for name in raw.columns if name.strip().lower() == "split"), None)
    splits = None
    if split is not None:
        remedy = f"correct the column {split.strip()} of {path}"
        splits = GivenSplits(raw[split], f"the column {split.strip()} of {path.name}", remedy)
    return RawLabels(
        root=path.parent,
        origin=path,
        table=raw[list(columns.values())],
        columns=columns,
        needed=tuple(name for name in ("sample_id", "player", "rudiment", "audio_path") if name in columns),
        splits=splits,
        file_list=path.name,
        read_headers="duration_sec" not in columns,
    )


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
