"""Read labels from a CSV file: SOUSA's older metadata.csv, or a list with at least the columns path and label."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from sousaphone.data.readers.raw_labels import NUMBERS, TEXT, GivenSplits, RawLabels, refuse_missing
from sousaphone.errors import UserError
from sousaphone.text import one_line

# Accepted names of our columns in addition to SOUSA's, which take precedence.
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
    """Read the clips listed in a CSV file; their paths are relative to its folder.

    A column `split` (train, validation or val, test) takes precedence over a splits.json next to the file; without
    both, players are split 80/10/10. Without a player column, players are derived from the file names.
    """
    raw = _read(path)
    columns = _columns(list(raw.columns))
    missing = [" or ".join((TEXT[name], *_ALSO[name])) for name in ("audio_path", "rudiment") if name not in columns]
    refuse_missing(path, missing, list(raw.columns))
    raw[columns["audio_path"]] = raw[columns["audio_path"]].str.strip().str.replace("\\", "/")
    named_split = [name for name in raw.columns if name.strip().lower() == "split"]
    splits = None
    if named_split:
        column = f"the column {named_split[0].strip()} of"
        splits = GivenSplits(raw[named_split[0]], f"{column} {path.name}", f"correct {column} {path}")
    return RawLabels(
        root=path.parent,
        origin=path,
        table=raw[list(columns.values())],
        columns=columns,
        splits=splits,
        file_list=path.name,
        read_headers="duration_sec" not in columns,
    )


def _read(path: Path) -> pd.DataFrame:
    try:
        with path.open(encoding="utf-8-sig") as file:  # spreadsheets write a byte order mark
            header = file.readline()
        separator = max(",;\t", key=header.count)
        # Keep cells as text: a player may be called NA, or 007.
        return pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except pd.errors.EmptyDataError:
        raise UserError(f"{path} is empty; its first line must name the columns, such as path,label,player") from None
    except (OSError, ValueError) as error:  # pandas' ParserError and encoding errors are ValueErrors
        raise UserError(
            f"{path} is not readable as CSV ({one_line(error)}); save it as UTF-8, with one clip per line"
        ) from None


def _columns(present: list[str]) -> dict[str, str]:
    """Map our column names to those present; case is ignored."""
    by_name = {name.strip().lower(): name for name in reversed(present)}
    columns = {}
    for ours, theirs in {**TEXT, **NUMBERS}.items():
        found = [by_name[name] for name in (theirs, *_ALSO.get(ours, ())) if name in by_name]
        if found:
            columns[ours] = found[0]
    return columns
