"""Read a data set of any layout; the reader of SOUSA's local layout (labels/samples.parquet, splits.json, audio)."""

from __future__ import annotations

from pathlib import Path

from sousaphone.data.dataset import Dataset
from sousaphone.data.readers import csv, folder, hub, parquet
from sousaphone.data.readers.labels import finish
from sousaphone.data.readers.paths import LISTS, accessible, local_path
from sousaphone.data.readers.raw_labels import NUMBERS, TEXT, RawLabels, open_parquet, read_labels
from sousaphone.errors import UserError

LABELS = "labels/samples.parquet"


def read_dataset(source: Path | str, only_test: bool = False) -> Dataset:
    """Read labels and splits and locate every audio file.

    Args:
        source: a directory (labels/samples.parquet; metadata.csv or metadata.jsonl, also in folders named after splits;
            Parquet shards of the hub; or one folder of recordings per rudiment, tried in this order), a CSV or
            JSONL file, or hub:OWNER/NAME.
        only_test: use every clip as a test clip and ignore splits; a single player is enough.

    Raises:
        UserError: no rows, an empty cell, a clip listed twice, an unknown rudiment or split, a player in two splits,
            too few players, an audio file that is missing or unreadable, or a path outside of the directory.
    """
    return finish(_read(located(source)), only_test)


def located(source: Path | str) -> Path:
    """Return the absolute path of a data set; download it from the hub if necessary."""
    word = Path(source).as_posix()
    return local_path(hub.snapshot(word) if hub.is_word(word) else source)


def _read(root: Path) -> RawLabels:
    if root.is_file() and root.suffix.lower() in LISTS:
        return csv.read_lists(root.parent, [root])
    if not root.is_dir():
        raise UserError(
            f"data directory {root} is not a directory; give the directory that contains {LABELS} or one folder per "
            "rudiment, or a CSV or JSONL file"
        )
    with accessible(root):
        has_labels, metadata = (root / LABELS).is_file(), csv.find_lists(root)
    if has_labels:
        with open_parquet(root / LABELS) as file:
            raw = read_labels(file, root / LABELS, {**TEXT, **NUMBERS})
        columns = {ours: theirs for ours, theirs in {**TEXT, **NUMBERS}.items() if theirs in raw}
        return RawLabels(root, root / LABELS, raw, columns, file_list=LABELS)
    if metadata:
        return csv.read_lists(root, metadata)
    shards = parquet.find_shards(root)
    if shards:
        return parquet.read_shards(root, shards)
    recordings = folder.find_recordings(root)
    lists = sorted(path for path in root.iterdir() if path.suffix.lower() == ".csv" and path.name[0] != ".")
    if lists and not folder.by_rudiment(recordings):
        raise UserError(
            f"{root} has no recordings in folders named after rudiments, but contains {lists[0].name}; if it lists "
            f"the clips, give the file itself: {lists[0]}"
        )
    if recordings.audio_paths:
        return folder.read_folder(root, recordings)
    raise UserError(
        f"{root} is not a SOUSA data set: no {LABELS}; expected {LABELS}, splits.json and audio/, or metadata.csv or "
        "metadata.jsonl, or audio/train-*.parquet, or recordings as RUDIMENT/*.wav (or flac, mp3, ogg); "
        "or give a CSV file with the columns path and label"
    )
