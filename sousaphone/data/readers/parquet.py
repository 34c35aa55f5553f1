"""Read the layout of the Hugging Face hub: audio/{train,validation,test}-*.parquet, with the audio inside.

Nothing is extracted. A clip's audio_path gives its shard and row (`audio/train-00000-of-00097.parquet#17`); its bytes
are read from the shard when the waveform cache is built.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from pathlib import Path

import pandas as pd
import pyarrow
import pyarrow.parquet

from sousaphone.data.readers.raw_labels import NUMBERS, REQUIRED, TEXT, GivenSplits, RawLabels, refuse_missing
from sousaphone.errors import UserError
from sousaphone.text import one_line

# Folders of shards: SOUSA's, the hub's default, and the directory itself.
_FOLDERS = ("audio", "data", ".")
_SHARD = re.compile(r"(train|validation|test)-(?:(\d+)(?:-of-(\d+))?|.*)\.parquet")
_COLUMNS = {ours: theirs for ours, theirs in {**TEXT, **NUMBERS}.items() if ours != "audio_path"}
_BATCH = 16  # rows read at a time; a clip has about a megabyte


def find_shards(root: Path) -> list[Path]:
    """Return the shards of a data directory by split and name; none for another layout."""
    for folder in _FOLDERS:
        shards = sorted(path for path in (root / folder).glob("*.parquet") if _SHARD.fullmatch(path.name))
        if shards:
            _refuse_gaps(shards)
            return sorted(shards, key=lambda path: ("train", "validation", "test").index(_split(path)))
    return []


def _split(shard: Path) -> str:
    return shard.name.partition("-")[0]


def _refuse_gaps(shards: Sequence[Path]) -> None:
    series: dict[tuple[str, int], set[int]] = {}
    for shard in shards:
        match = _SHARD.fullmatch(shard.name)
        if match and match[3]:
            series.setdefault((match[1], int(match[3])), set()).add(int(match[2]))
    for (split, total), present in series.items():
        if len(present) < total:
            raise UserError(
                f"{shards[0].parent} has {len(present)} of {total} {split} shards (the first missing is number "
                f"{min(set(range(total)) - present)}); download the rest"
            )


def read_shards(root: Path, shards: Sequence[Path]) -> RawLabels:
    """Read the labels of all shards, whose names give the splits; no audio is read."""
    tables = []
    for shard in shards:
        table, status, name = _labels(shard), shard.stat(), shard.relative_to(root).as_posix()
        table["audio_path"] = [f"{name}#{row}" for row in range(len(table))]
        table["split"] = _split(shard)
        tables.append(table.assign(size_bytes=status.st_size, modified_ns=status.st_mtime_ns))
    raw = pd.concat(tables, ignore_index=True)
    folder = shards[0].parent
    remedy = f"splits are the names of the shards in {folder}; download them again"
    return RawLabels(
        root=root,
        origin=folder,
        table=raw,
        columns={**{ours: theirs for ours, theirs in _COLUMNS.items() if theirs in raw}, "audio_path": "audio_path"},
        splits=GivenSplits(raw["split"], f"the shards in {folder.name}", remedy),
    )


def _labels(shard: Path) -> pd.DataFrame:
    try:
        with pyarrow.parquet.ParquetFile(shard) as file:
            present = file.schema_arrow.names
            required = [_COLUMNS[name] for name in REQUIRED if name in _COLUMNS]
            refuse_missing(shard, [name for name in required if name not in present], present)
            leaves = [file.schema.column(i).path for i in range(len(file.schema))]
            if "audio.bytes" not in leaves:
                raise UserError(
                    f"{shard} has no column audio with the bytes of the clips; it has: {', '.join(sorted(present))}; "
                    "download the configuration with audio"
                )
            index = leaves.index("audio.bytes")
            chunks = (file.metadata.row_group(group).column(index).statistics for group in range(file.num_row_groups))
            without = sum(statistics.null_count or 0 for statistics in chunks if statistics is not None)
            if without:
                raise UserError(
                    f"{shard}: {without} of {file.metadata.num_rows} clips have no audio; download it again"
                )
            return file.read(columns=[name for name in _COLUMNS.values() if name in present]).to_pandas()
    except (OSError, pyarrow.ArrowException) as error:
        raise _unreadable(shard, error) from None


def place_in_shard(audio_path: str) -> tuple[str, int | None]:
    """Split an audio_path into shard and row; (the path, None) for a separate file."""
    shard, mark, row = audio_path.rpartition("#")
    return (shard, int(row)) if mark and shard.endswith(".parquet") and row.isdigit() else (audio_path, None)


def clips_of_shard(shard: Path, rows: Sequence[int]) -> Iterator[bytes]:
    """Yield the encoded audio of rows of a shard, in ascending order; row groups without any of them are skipped."""
    if any(after <= before for before, after in pairwise(rows)):
        raise ValueError(f"rows of {shard.name} must ascend")
    try:
        with pyarrow.parquet.ParquetFile(shard) as file:
            sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
            wanted = deque(rows)
            for group, (start, end) in enumerate(pairwise(accumulate(sizes, initial=0))):
                if wanted and wanted[0] < end:
                    yield from _clips_of_group(file, shard, group, start, end, wanted)
            if wanted:
                raise UserError(f"{shard} has no row {wanted[0]}; the file changed while it was read: start again")
    except (OSError, pyarrow.ArrowException) as error:
        raise _unreadable(shard, error) from None


def _clips_of_group(
    file: pyarrow.parquet.ParquetFile, shard: Path, group: int, start: int, end: int, wanted: deque[int]
) -> Iterator[bytes]:
    """Yield the clips of one row group, which has the rows from `start` to `end`; remove their rows from `wanted`."""
    for batch in file.iter_batches(batch_size=_BATCH, row_groups=[group], columns=["audio.bytes"]):
        contents = batch.column(0).field("bytes")
        while wanted and wanted[0] < start + len(batch):
            row = wanted.popleft()
            content = contents[row - start].as_py()
            if not content:
                raise UserError(f"{shard}: row {row} has no audio; download the shard again")
            yield content
        start += len(batch)
        if not wanted or wanted[0] >= end:
            return


def _unreadable(shard: Path, error: Exception) -> UserError:
    return UserError(f"{shard} is not readable as Parquet ({one_line(error)}); download it again")
