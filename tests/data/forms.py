"""Conversion of a SOUSA directory to the other layouts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pyarrow
import pyarrow.parquet

SPLITS = {"train": "train_profile_ids", "validation": "val_profile_ids", "test": "test_profile_ids"}


def labels(root: Path) -> pd.DataFrame:
    """Return the rows of labels/samples.parquet with their split."""
    table = pd.read_parquet(root / "labels" / "samples.parquet")
    lists = json.loads((root / "splits.json").read_text())
    split_of = {player: split for split, key in SPLITS.items() for player in lists[key]}
    return table.assign(split=table.profile_id.map(split_of))


def as_metadata_csv(root: Path, out: Path) -> Path:
    """The older layout: metadata.csv with a split column next to the audio files."""
    shutil.copytree(root / "audio", out / "audio")
    table = labels(root)
    table.assign(split=table.split.replace("validation", "val")).to_csv(out / "metadata.csv", index=False)
    return out


def as_shards(root: Path, out: Path, shards: int = 2, rows_in_group: int = 2) -> Path:
    """The hub's layout: the bytes and the file name of each clip, in row groups."""
    (out / "audio").mkdir(parents=True)
    for split, table in labels(root).groupby("split", sort=False):
        size = -(-len(table) // shards)
        for shard in range(shards):
            part = table.iloc[shard * size : (shard + 1) * size].drop(columns="split")
            audio = [{"bytes": (root / path).read_bytes(), "path": Path(path).name} for path in part.audio_path]
            content = pyarrow.Table.from_pandas(part.drop(columns="audio_path"), preserve_index=False)
            content = content.append_column("audio", pyarrow.array(audio))
            name = f"{split}-{shard:05d}-of-{shards:05d}.parquet"
            pyarrow.parquet.write_table(content, out / "audio" / name, row_group_size=rows_in_group)
    return out


def as_recordings(root: Path, out: Path, players: bool) -> Path:
    """A plain folder: RUDIMENT/FILE, or PLAYER/RUDIMENT/FILE."""
    for row in labels(root).itertuples():
        folder = out / (row.profile_id if players else "") / row.rudiment_slug.replace("_", " ").title()
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / row.audio_path, folder)
    return out
