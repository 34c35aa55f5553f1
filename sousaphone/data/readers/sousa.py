"""Read a data set, whatever its form: the one door, and SOUSA's local layout (labels/samples.parquet, splits.json and
the audio files). The other forms have a file each."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow
import pyarrow.parquet

from sousaphone.data.dataset import Dataset
from sousaphone.data.readers import csv, folder, hub, parquet
from sousaphone.data.readers.labels import finish
from sousaphone.data.readers.paths import local_path, looked_at
from sousaphone.data.readers.raw_labels import NUMBERS, TEXT, RawLabels, refuse_missing
from sousaphone.errors import UserError
from sousaphone.text import one_line

LABELS = "labels/samples.parquet"
METADATA = "metadata.csv"

_NEEDED = ("sample_id", "player", "rudiment", "audio_path")


def read_dataset(source: Path | str, only_test: bool = False) -> Dataset:
    """Read labels and splits and find every audio file; one table comes out, whichever form the data set has.

    Args:
        source: a directory (labels/samples.parquet; metadata.csv; Parquet shards of the hub; a folder of recordings
            for each rudiment, tried in this order), a CSV file, or hub:OWNER/NAME.
        only_test: every clip is a test clip and no split is looked for; a single player will do.

    Raises:
        UserError: anything about it that would fail later, as one line with the remedy.
    """
    return finish(_read(located(source)), only_test)


def located(source: Path | str) -> Path:
    """The absolute path of a data set; one of the hub is downloaded if need be.

    Raises:
        UserError: it cannot be fetched, or whether it exists cannot be told.
    """
    word = Path(source).as_posix()
    return local_path(hub.snapshot(word) if hub.is_word(word) else source)


def _read(root: Path) -> RawLabels:
    """The labels by the reader of their form."""
    if root.is_file() and root.suffix.lower() == ".csv":
        return csv.read_csv(root)
    if not root.is_dir():
        raise UserError(
            f"data directory {root} is not a directory; give the directory that holds {LABELS} or a folder for each "
            "rudiment, or a CSV file"
        )
    with looked_at(root):
        is_local, is_older = (root / LABELS).is_file(), (root / METADATA).is_file()
    if is_local:
        raw = _read_labels(root / LABELS)
        columns = {ours: theirs for ours, theirs in {**TEXT, **NUMBERS}.items() if theirs in raw}
        return RawLabels(root, root / LABELS, raw, columns, _NEEDED, file_list=LABELS)
    if is_older:
        return csv.read_csv(root / METADATA)
    shards = parquet.find_shards(root)
    if shards:
        return parquet.read_shards(root, shards)
    recordings = folder.find_recordings(root)
    lists = sorted(path for path in root.iterdir() if path.suffix.lower() == ".csv" and path.name[0] != ".")
    if lists and not folder.by_rudiment(recordings):
        raise UserError(
            f"{root} has no recordings in folders called after rudiments, but it holds {lists[0].name}; if that lists "
            f"the clips, give the file itself: {lists[0]}"
        )
    if recordings.audio_paths:
        return folder.read_folder(root, recordings)
    raise UserError(
        f"{root} is not a SOUSA data set: it has no {LABELS}; expected are {LABELS}, splits.json and audio/, or "
        f"{METADATA}, or audio/train-*.parquet, or recordings as RUDIMENT/*.wav (or flac, mp3, ogg); or give a "
        "CSV file with the columns path and label"
    )


def _read_labels(path: Path) -> pd.DataFrame:
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            present = set(file.schema_arrow.names)
            missing = [TEXT[name] for name in _NEEDED if TEXT[name] not in present]
            refuse_missing(path, missing, present)
            return file.read(
                columns=[name for name in (*TEXT.values(), *NUMBERS.values()) if name in present]
            ).to_pandas()
    except (OSError, pyarrow.ArrowException) as error:
        raise UserError(
            f"{path} cannot be read as Parquet ({one_line(error)}); copy it again from its source"
        ) from None
