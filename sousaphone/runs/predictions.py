"""Tables of the predictions of a trial or a baseline on clips, which may come from anybody: read in bounded memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sousaphone.rudiments import SLUGS

NEEDED = ("sample_id", "player", "rudiment")
NUMBERS = ("tempo_bpm", "duration_sec")
# Optional labels of a clip; '' or NaN where the data set lacks them.
CLIP = ("audio_path", "tempo_bpm", "skill_tier", "soundfont", "preset", "duration_sec")
LOGITS = [f"logit_{slug}" for slug in SLUGS]
AVERAGED_LOGITS = [f"averaged_{name}" for name in LOGITS]  # means over windows; absent in older runs
# A small file may unpack to any number of equal rows.
MOST_ROWS = 4_000_000  # of all trials
DAMAGED = (OSError, ValueError, KeyError, TypeError, pa.ArrowException)  # raised on reading a damaged table
_MOST_LETTERS = 2**29  # of one column
_TEXTS = {"predicted", *NEEDED, *CLIP} - {*NUMBERS}
_FLOATS = {*LOGITS, *AVERAGED_LOGITS}


def read_table(path: Path, names: Sequence[str], most: int = MOST_ROWS) -> pd.DataFrame:
    """Read those of the columns that a table has; raise one of `DAMAGED` unless it has at most `most` rows, each of
    another clip and of a known rudiment.

    Texts are read as dictionaries, whose size is bounded by the file's, and unpacked only if they then fit.
    """
    present = pq.read_schema(path).names
    if len(set(present)) < len(present):
        raise ValueError("some columns are double")
    texts = [name for name in names if name in _TEXTS and name in present]
    with pq.ParquetFile(path, read_dictionary=texts) as file:
        if (rows := file.metadata.num_rows) > most:
            raise ValueError(f"{rows} rows; the trials of a run have at most {MOST_ROWS}")
        for name in names:
            if name in _FLOATS and name in present and not pa.types.is_floating(file.schema_arrow.field(name).type):
                raise ValueError(f"{name} is not a column of numbers")
        columns = file.read(list(names))
    for name in texts:
        if pa.types.is_null(columns[name].type):
            continue
        words = [part.dictionary for part in columns[name].chunks if pa.types.is_dictionary(part.type)]
        if len(words) < columns[name].num_chunks or not all(map(_is_text, words)):
            raise ValueError(f"{name} is not a column of text")
        if rows * max((pc.max(pc.binary_length(each)).as_py() or 0 for each in words), default=0) > _MOST_LETTERS:
            raise ValueError(f"{name} has texts that are too long")
    table = columns.to_pandas(ignore_metadata=True)  # the pandas metadata of the file are not needed
    if not table["rudiment"].isin(SLUGS).all():
        raise ValueError("some rudiments are unknown")
    if table["sample_id"].duplicated().any():
        raise ValueError("some clips occur twice")
    return table


def _is_text(words: pa.Array) -> bool:
    return bool(pa.types.is_string(words.type) or pa.types.is_large_string(words.type))
