"""Read labels from lists with at least the columns path and label: CSV files, and metadata.csv or metadata.jsonl.

These are SOUSA's older layout and the audiofolder layout of Hugging Face, which may have one in each split's folder.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from io import StringIO
from pathlib import Path

import pandas as pd

from sousaphone.data.readers.raw_labels import NUMBERS, TEXT, GivenSplits, RawLabels, refuse_missing, refuse_repeated
from sousaphone.data.splits import SPLIT_NAMES
from sousaphone.errors import UserError
from sousaphone.text import one_line

_NAMES = ("metadata.csv", "metadata.jsonl")
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


def find_lists(root: Path) -> list[Path]:
    """Return metadata.csv or metadata.jsonl of a directory, or those of its folders that are named after splits."""
    for folders in ([root], [folder for folder in sorted(root.iterdir()) if folder.name.lower() in SPLIT_NAMES]):
        found = [[path for name in _NAMES if (path := folder / name).is_file()][:1] for folder in folders]
        if lists := [path for paths in found for path in paths]:
            return lists
    return []


def read_lists(root: Path, lists: Sequence[Path]) -> RawLabels:
    """Read the clips listed in CSV or JSON Lines files; paths are relative to the folder of each file.

    A column `split` (train, validation or val, test) takes precedence over a splits.json in `root`, and this over
    folders named after splits; without all three, players are split 80/10/10. Without a player column, players are
    derived from the file names.
    """
    tables = []
    for path in lists:
        table = _read(path)
        columns = _columns(list(table.columns))
        missing = [name for name in ("audio_path", "rudiment") if name not in columns]
        refuse_missing(path, [" or ".join((TEXT[name], *_ALSO[name])) for name in missing], list(table.columns))
        paths = table[columns["audio_path"]].str.strip().str.replace("\\", "/")
        folder = path.parent.relative_to(root).as_posix()
        tables.append(table.assign(**{columns["audio_path"]: paths if folder == "." else folder + "/" + paths}))
    raw = pd.concat(tables, ignore_index=True).fillna("")
    columns = _columns(list(raw.columns))
    origin = lists[0] if len(lists) == 1 else root
    named_split = _named_split(raw.columns)
    folders = raw[columns["audio_path"]].str.removeprefix("./").str.extract("^([^/]+)/", expand=False)
    splits = None
    if named_split:
        column = f"the column {named_split[0].strip()} of"
        splits = GivenSplits(raw[named_split[0]], f"{column} {lists[0].name}", f"correct {column} {origin}")
    elif len(raw) and folders.str.lower().isin(list(SPLIT_NAMES)).all() and not (root / "splits.json").exists():
        splits = GivenSplits(folders, str(root), f"move its recordings into one folder of {root}", separate=True)
    return RawLabels(
        root=root,
        origin=origin,
        table=raw[list(columns.values())],
        columns=columns,
        splits=splits,
        to_split="fill in a column split (train, validation, test)",
        file_list=lists[0].name,
        read_headers="duration_sec" not in columns,
    )


def _read(path: Path) -> pd.DataFrame:
    """Read cells as text, since a player may be called NA, or 007."""
    header, beyond = None, "cells beyond the header"
    try:
        text = path.read_text(encoding="utf-8-sig")  # spreadsheets write a byte order mark
        if path.suffix.lower() == ".jsonl":
            rows = [dict(json.loads(line)) for line in text.split("\n") if line.strip()]
        else:
            separator = max(",;\t", key=text.partition("\n")[0].count)
            reader = csv.DictReader(StringIO(text), delimiter=separator, strict=True, restkey=beyond)
            rows, header = list(reader), list(reader.fieldnames or [])
        if excess := [row[beyond] for row in rows if "".join(row.get(beyond, ())).strip()]:
            raise ValueError(f"{beyond}: {excess[0]}")
    except (OSError, ValueError, TypeError, RecursionError, csv.Error) as error:
        raise UserError(
            f"{path} is not readable as {path.suffix[1:]} ({one_line(error)}); save it as UTF-8, one clip per line"
        ) from None
    if not text:
        raise UserError(f"{path} is empty; its first line must name the columns, such as path,label,player")
    if header is not None:
        refuse_repeated(path, [*_columns(header).values(), *_named_split(header)], header)
        header = list(dict.fromkeys(header))
    return pd.DataFrame(rows, columns=header, dtype=object).fillna("").astype(str)


def _named_split(present: Iterable[str]) -> list[str]:
    return [name for name in present if name.strip().lower() == "split"]


def _columns(present: list[str]) -> dict[str, str]:
    """Map our column names to those present; case is ignored."""
    by_name = {name.strip().lower(): name for name in reversed(present)}
    columns = {}
    for ours, theirs in {**TEXT, **NUMBERS}.items():
        found = [by_name[name] for name in (theirs, *_ALSO.get(ours, ())) if name in by_name]
        if found:
            columns[ours] = found[0]
    return columns
