"""Read a data set as the Hugging Face hub holds it: audio/{train,validation,test}-*.parquet, the audio inside.

Nothing is extracted. A clip's audio_path names its shard and its row there (`audio/train-00000-of-00097.parquet#17`),
and its bytes are read from the shard while the waveform cache is built.
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

from sousaphone.data.readers.raw_labels import NUMBERS, TEXT, GivenSplits, RawLabels, refuse_missing
from sousaphone.errors import UserError
from sousaphone.text import one_line

# Where shards are looked for: as SOUSA names the folder, as the hub does by default, and the directory itself.
_FOLDERS = ("audio", "data", ".")
_SHARD = re.compile(r"(train|validation|test)-(?:(\d+)(?:-of-(\d+))?|.*)\.parquet")
_COLUMNS = {ours: theirs for ours, theirs in {**TEXT, **NUMBERS}.items() if ours != "audio_path"}
_NEEDED = ("sample_id", "player", "rudiment")
# Rows decoded at a time: a clip has about a megabyte.
_BATCH = 16


def find_shards(root: Path) -> list[Path]:
    """The shards of a data directory by split and name; none where it is of another form.

    Raises:
        UserError: some of a numbered series are missing.
    """
    for folder in _FOLDERS:
        shards = sorted(path for path in (root / folder).glob("*.parquet") if _SHARD.fullmatch(path.name))
        if shards:
            _refuse_gaps(shards)
            return sorted(shards, key=lambda path: ("train", "validation", "test").index(_split(path)))
    return []


def _split(shard: Path) -> str:
    return shard.name.partition("-")[0]


def _refuse_gaps(shards: Sequence[Path]) -> None:
    counted: dict[tuple[str, int], set[int]] = {}
    for shard in shards:
        match = _SHARD.fullmatch(shard.name)
        if match and match[3]:
            counted.setdefault((match[1], int(match[3])), set()).add(int(match[2]))
    for (split, total), there in counted.items():
        if len(there) < total:
            first = min(set(range(total)) - there)
            raise UserError(
                f"{shards[0].parent} has {len(there)} of the {total} {split} shards (the first that is missing is "
                f"number {first}); download the rest"
            )


def read_shards(root: Path, shards: Sequence[Path]) -> RawLabels:
    """The labels of all shards, whose names give the splits; no audio is read.

    Raises:
        UserError: a shard that cannot be read or lacks a column, clips without audio.
    """
    tables = []
    for shard in shards:
        table = _labels(shard)
        status = shard.stat()
        name = shard.relative_to(root).as_posix()
        tables.append(
            table.assign(
                audio_path=[f"{name}#{row}" for row in range(len(table))],
                split=_split(shard),
                size_bytes=status.st_size,
                modified_ns=status.st_mtime_ns,
            )
        )
    raw = pd.concat(tables, ignore_index=True)
    folder = shards[0].parent
    remedy = f"the names of the shards in {folder} give the splits; download them again"
    return RawLabels(
        root=root,
        origin=folder,
        table=raw,
        columns={**{ours: theirs for ours, theirs in _COLUMNS.items() if theirs in raw}, "audio_path": "audio_path"},
        needed=_NEEDED,
        splits=GivenSplits(raw["split"], "the naming of the shards", remedy),
    )


def _labels(shard: Path) -> pd.DataFrame:
    try:
        with pyarrow.parquet.ParquetFile(shard) as file:
            present = file.schema_arrow.names
            missing = [_COLUMNS[name] for name in _NEEDED if _COLUMNS[name] not in present]
            refuse_missing(shard, missing, present)
            if "audio.bytes" not in _leaves(file):
                raise UserError(
                    f"{shard} has no column audio with the bytes of the clips; it has: {', '.join(sorted(present))}; "
                    "download the configuration with audio"
                )
            without = _without_audio(file)
            if without:
                raise UserError(
                    f"{shard}: {without} of {file.metadata.num_rows} clips have no audio; download it again"
                )
            return file.read(columns=[name for name in _COLUMNS.values() if name in present]).to_pandas()
    except (OSError, pyarrow.ArrowException) as error:
        raise _unreadable(shard, error) from None


def _leaves(file: pyarrow.parquet.ParquetFile) -> list[str]:
    return [file.schema.column(i).path for i in range(len(file.schema))]


def _without_audio(file: pyarrow.parquet.ParquetFile) -> int:
    """How many clips the statistics of a shard count without audio; 0 where it has none."""
    index = _leaves(file).index("audio.bytes")
    chunks = (file.metadata.row_group(group).column(index) for group in range(file.num_row_groups))
    return sum(chunk.statistics.null_count or 0 for chunk in chunks if chunk.statistics is not None)


def place_in_shard(audio_path: str) -> tuple[str, int | None]:
    """The shard and the row in it that an audio_path names; (the path, None) for a file of its own."""
    shard, mark, row = audio_path.rpartition("#")
    return (shard, int(row)) if mark and shard.endswith(".parquet") and row.isdigit() else (audio_path, None)


def clips_of_shard(shard: Path, rows: Sequence[int]) -> Iterator[bytes]:
    """The encoded audio of rows of a shard; row groups without any of them are skipped, others are streamed.

    Raises:
        ValueError: `rows` do not ascend.
        UserError: the shard cannot be read, or a row has no audio.
    """
    if any(after <= before for before, after in pairwise(rows)):
        raise ValueError(f"rows of {shard.name} must ascend")
    try:
        with pyarrow.parquet.ParquetFile(shard) as file:
            sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
            starts = list(accumulate(sizes, initial=0))
            wanted = deque(rows)
            for group in range(file.num_row_groups):
                yield from _of_group(file, shard, group, starts[group], starts[group + 1], wanted)
            if wanted:
                raise UserError(f"{shard} has no row {wanted[0]} any more; it changed while it was read: start again")
    except (OSError, pyarrow.ArrowException) as error:
        raise _unreadable(shard, error) from None


def _of_group(
    file: pyarrow.parquet.ParquetFile, shard: Path, group: int, start: int, end: int, wanted: deque[int]
) -> Iterator[bytes]:
    """The clips of one row group; they are taken off `wanted`."""
    if not wanted or wanted[0] >= end:
        return
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
    return UserError(f"{shard} cannot be read as Parquet ({one_line(error)}); download it again")
