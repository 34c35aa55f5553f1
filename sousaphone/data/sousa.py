"""Read a SOUSA data set in its local layout: labels/samples.parquet, splits.json and the audio files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd
import pyarrow
import pyarrow.parquet

from sousaphone.data.splits import assign_splits, read_splits
from sousaphone.errors import UserError
from sousaphone.rudiments import SLUGS, canonical_slug

LABELS = "labels/samples.parquet"

# Our column: theirs. The first four must be there.
_TEXT = {
    "sample_id": "sample_id",
    "player": "profile_id",
    "rudiment": "rudiment_slug",
    "audio_path": "audio_path",
    "skill_tier": "skill_tier",
    "soundfont": "soundfont",
    "preset": "augmentation_preset",
    "group_id": "augmentation_group_id",
}
_NUMBERS = {"duration_sec": "duration_sec", "tempo_bpm": "tempo_bpm"}
_REQUIRED = ("sample_id", "profile_id", "rudiment_slug", "audio_path")


@dataclass(frozen=True, eq=False)
class Dataset:
    """Clips on disk.

    Attributes:
        root: the data directory.
        clips: one row a clip: sample_id, player, rudiment, label (index into SLUGS), split (train, validation,
            test), audio_path (below root, with '/'), size_bytes, modified_ns, duration_sec (s), tempo_bpm,
            skill_tier, soundfont, preset, group_id. What the data set does not say is NaN or ''.
        notes: what to say aloud about it.
    """

    root: Path
    clips: pd.DataFrame
    notes: tuple[str, ...] = ()

    @cached_property
    def fingerprint(self) -> str:
        """Short hash of labels, players, splits, relative paths and file sizes; a copied data set keeps it."""
        columns = ["audio_path", "rudiment", "player", "split", "size_bytes"]
        rows = zip(*(self.clips[column].tolist() for column in columns), strict=True)
        return hashlib.sha256("\n".join(repr(row) for row in rows).encode()).hexdigest()[:12]


def read_dataset(root: Path | str) -> Dataset:
    """Read labels and splits and find every audio file (none is opened).

    Raises:
        UserError: anything about the directory that would fail later, as one line with the remedy.
    """
    root = Path(root).expanduser().absolute()
    clips = _read_labels(root)
    tiers = clips.drop_duplicates("player").set_index("player")["skill_tier"].to_dict()
    split_of, notes = assign_splits(tiers, read_splits(root / "splits.json"))
    clips = clips[clips.player.isin(split_of.keys())].reset_index(drop=True)
    clips["split"] = clips.player.map(split_of)
    clips["size_bytes"], clips["modified_ns"] = _find_files(root, clips.audio_path.tolist())
    order = ["sample_id", "player", "rudiment", "label", "split", "audio_path", "size_bytes", "modified_ns"]
    return Dataset(root, clips[[*order, *(c for c in clips.columns if c not in order)]], notes)


def _read_labels(root: Path) -> pd.DataFrame:
    if not root.is_dir():
        raise UserError(f"data directory {root} is not a directory; give the directory that holds {LABELS}")
    path = root / LABELS
    if not path.is_file():
        raise UserError(
            f"{root} is not a SOUSA data set: it has no {LABELS}; expected are {LABELS}, splits.json and audio/"
        )
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            present = set(file.schema_arrow.names)
            missing = [name for name in _REQUIRED if name not in present]
            if missing:
                raise UserError(
                    f"{path} lacks the column{'s' if len(missing) > 1 else ''} {', '.join(missing)}; "
                    f"it has: {', '.join(sorted(present))}"
                )
            wanted = [name for name in (*_TEXT.values(), *_NUMBERS.values()) if name in present]
            raw = file.read(columns=wanted).to_pandas()
    except (OSError, pyarrow.ArrowException) as error:
        raise UserError(
            f"{path} cannot be read as Parquet ({_one_line(error)}); copy it again from its source"
        ) from None
    if raw.empty:
        raise UserError(f"{path} has no clips (0 rows); generate or copy the data set again")

    for name in _REQUIRED:
        empty = raw[name].isna()
        if empty.any():
            raise UserError(f"{path}: {empty.sum()} of {len(raw)} rows have no {name}; fill it in or remove the rows")
    clips = pd.DataFrame(index=raw.index)
    for ours, theirs in _TEXT.items():
        clips[ours] = raw[theirs].fillna("").astype(str) if theirs in raw else ""
    for ours, theirs in _NUMBERS.items():
        clips[ours] = pd.to_numeric(raw[theirs], errors="coerce").astype(float) if theirs in raw else float("nan")
    for name in ("sample_id", "audio_path"):
        repeated = clips[name].duplicated()
        if repeated.any():
            raise UserError(
                f"{path}: {name} {clips[name][repeated].iloc[0]!r} occurs more than once "
                f"({repeated.sum()} repeated rows); each clip is one row: remove the others"
            )
    slugs = {text: canonical_slug(text) for text in clips.rudiment.unique()}
    clips["rudiment"] = clips.rudiment.map(slugs)
    clips["label"] = clips.rudiment.map({slug: label for label, slug in enumerate(SLUGS)}).astype("int64")
    return clips


def _find_files(root: Path, audio_paths: Sequence[str]) -> tuple[list[int], list[int]]:
    """Size (bytes) and modification time (ns) of each file; folders are listed once, 100,000 clips take a second.

    Raises:
        UserError: a path that leaves `root` (absolute, '..', a link), or a file that is not there.
    """
    inside = root.resolve()
    folders: dict[str, dict[str, os.DirEntry[str]]] = {}
    sizes, times, missing = [], [], []
    for audio_path in audio_paths:
        folder, _, name = audio_path.rpartition("/")
        if audio_path.startswith("/") or ".." in audio_path.split("/"):
            raise _leaves(audio_path, root)
        if folder not in folders:
            if not (root / folder).resolve().is_relative_to(inside):
                raise _leaves(audio_path, root)
            folders[folder] = _list_folder(root / folder)
        entry = folders[folder].get(name)
        if entry is not None and entry.is_symlink() and not Path(entry.path).resolve().is_relative_to(inside):
            raise _leaves(audio_path, root)
        if entry is None or not entry.is_file():
            missing.append(audio_path)
            continue
        status = entry.stat()
        sizes.append(status.st_size)
        times.append(status.st_mtime_ns)
    if missing:
        raise UserError(
            f"{len(missing)} of {len(audio_paths)} audio files are missing below {root} (the first: {missing[0]}); "
            f"copy them there or remove their rows from {LABELS}"
        )
    return sizes, times


def _list_folder(folder: Path) -> dict[str, os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return {entry.name: entry for entry in entries}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise UserError(f"the folder {folder} cannot be listed ({_one_line(error)}); make it readable") from None


def _leaves(audio_path: str, root: Path) -> UserError:
    return UserError(
        f"audio_path {audio_path!r} leaves the data directory {root}; "
        "paths must be relative, without '..', and links must stay inside: copy the audio there"
    )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
