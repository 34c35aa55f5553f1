"""Read the layout of the Hugging Face hub: audio/{train,validation,test}-*.parquet, with the audio inside.

Nothing is extracted. A clip's audio_path gives its shard and row (`audio/train-00000-of-00097.parquet#17`); its bytes
are read from the shard when the waveform cache is built.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate, chain, pairwise
from pathlib import Path

import pandas as pd

from sousaphone.data.readers.raw_labels import NUMBERS, TEXT, GivenSplits, RawLabels, open_parquet, read_labels
from sousaphone.data.splits import SPLITS
from sousaphone.errors import UserError

_SHARD = re.compile(r"(train|validation|test)-.*\.parquet")
_NUMBERED = re.compile(r"(train|validation|test)-(\d+)-of-(\d+)\.parquet")
_COLUMNS = {ours: theirs for ours, theirs in {**TEXT, **NUMBERS}.items() if ours != "audio_path"}
_BATCH = 16  # rows read at a time; a clip has about a megabyte


def find_shards(root: Path) -> list[Path]:
    """Return the shards of a data directory by split and name; none for another layout."""
    for folder in ("audio", "data", "."):  # SOUSA's, the hub's default, and the directory itself
        shards = sorted(
            path for path in (root / folder).glob("*.parquet") if _SHARD.fullmatch(path.name) and path.is_file()
        )
        if shards:
            _refuse_gaps(shards)
            return sorted(shards, key=lambda path: SPLITS.index(_split(path)))
    return []


def _split(shard: Path) -> str:
    return shard.name.partition("-")[0]


def _refuse_gaps(shards: Sequence[Path]) -> None:
    series: dict[tuple[str, int], set[int]] = {}
    for match in filter(None, (_NUMBERED.fullmatch(shard.name) for shard in shards)):
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
        to_split="move their clips into shards of that split",
        splits=GivenSplits(raw["split"], f"the shards in {folder.name}", remedy),
    )


def _labels(shard: Path) -> pd.DataFrame:
    with open_parquet(shard) as file:
        table = read_labels(file, shard, _COLUMNS)
        leaves = [file.schema.column(i).path for i in range(len(file.schema))]
        if "audio.bytes" not in leaves:
            raise UserError(
                f"{shard} has no column audio with the bytes of the clips; it has: "
                f"{', '.join(sorted(file.schema_arrow.names))}; download the configuration with audio"
            )
        index = leaves.index("audio.bytes")
        chunks = (file.metadata.row_group(group).column(index).statistics for group in range(file.num_row_groups))
        without = sum(statistics.null_count or 0 for statistics in chunks if statistics is not None)
        if without:
            raise UserError(f"{shard}: {without} of {len(table)} clips have no audio; download it again")
        return table


def place_in_shard(audio_path: str) -> tuple[str, int | None]:
    """Split an audio_path into shard and row; (the path, None) for a separate file."""
    shard, mark, row = audio_path.rpartition("#")
    return (shard, int(row)) if mark and shard.endswith(".parquet") and row.isdigit() else (audio_path, None)


def clips_of_shard(shard: Path, rows: Sequence[int]) -> Iterator[bytes]:
    """Yield the encoded audio of rows of a shard, in ascending order; row groups without any of them are skipped."""
    if any(after <= before for before, after in pairwise(rows)):
        raise ValueError(f"rows of {shard.name} must ascend")
    with open_parquet(shard) as file:
        wanted = set(rows)
        sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        for group, (start, end) in enumerate(pairwise(accumulate(sizes, initial=0))):
            own = rows[bisect_left(rows, start) : bisect_left(rows, end)]
            if not own:
                continue
            batches = file.iter_batches(batch_size=_BATCH, row_groups=[group], columns=["audio.bytes"])
            contents = chain.from_iterable(batch.column(0).field("bytes") for batch in batches)
            for row, content in zip(range(start, own[-1] + 1), contents, strict=False):
                if row not in wanted:
                    continue
                audio = content.as_py()
                if not audio:
                    raise UserError(f"{shard}: row {row} has no audio; download the shard again")
                yield audio
        if beyond := [row for row in rows if row >= sum(sizes)]:
            raise UserError(f"{shard} has no row {beyond[0]}; the file changed while it was read: start again")
