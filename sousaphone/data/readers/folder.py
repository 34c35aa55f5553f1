"""Read a plain folder of recordings: RUDIMENT/FILE, or PLAYER/RUDIMENT/FILE.

If all folders under the root are named after splits (train, val, test), they give the splits, and their content is read
in the same way.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pandas as pd

from sousaphone.data.readers.audio_files import find_files
from sousaphone.data.readers.paths import SUFFIXES
from sousaphone.data.readers.raw_labels import GivenSplits, RawLabels
from sousaphone.data.splits import SPLIT_NAMES
from sousaphone.errors import UserError
from sousaphone.rudiments import is_rudiment
from sousaphone.text import counted


@dataclass(frozen=True)
class Recordings:
    """Files below a folder."""

    audio_paths: Sequence[str]  # relative, sorted, each in a folder of its rudiment
    sizes: Sequence[int]  # bytes
    times: Sequence[int]  # of modification, ns
    ignored: int  # audio files at the top level, or hidden
    others: dict[str, int]  # number of other files by suffix ('' for none)


def find_recordings(root: Path) -> Recordings:
    """List the recordings below `root`; links to folders are not followed. Raises a UserError for what cannot be read
    as a file below `root`, see `find_files`."""
    found, ignored, others = [], 0, Counter[str]()
    for folder, folders, names in os.walk(root, onerror=_unreadable):
        folders[:] = [name for name in folders if not name.startswith(".")]
        below = Path(folder).relative_to(root)
        for name in names:
            suffix = PurePosixPath(name).suffix.lower()
            if suffix not in SUFFIXES:
                others[suffix.encode(errors="replace").decode()] += 1
            elif name.startswith(".") or below == Path():
                ignored += 1
            else:
                found.append((below / name).as_posix())
    odd = [path for path in sorted(found) if path.encode(errors="replace").decode() != path]
    if odd:
        raise UserError(
            f"{len(odd)} of {len(found)} recordings in {root} have names that are not UTF-8 (the first: "
            f"{odd[0]!a}); rename them"
        )
    files = find_files(root, sorted(found), "remove their entries")
    return Recordings(*files, ignored, dict(others))


def by_rudiment(recordings: Recordings) -> bool:
    """Return whether any folder with recordings is named after a rudiment."""
    return any(is_rudiment(name) for name in {PurePosixPath(path).parent.name for path in recordings.audio_paths})


def read_folder(root: Path, recordings: Recordings) -> RawLabels:
    """Label the recordings by their folders."""
    paths = [PurePosixPath(path) for path in recordings.audio_paths]
    files = {"audio_path": recordings.audio_paths, "size_bytes": recordings.sizes, "modified_ns": recordings.times}
    raw = pd.DataFrame(files)
    raw["sample_id"] = raw.audio_path
    raw["rudiment"] = [path.parent.name for path in paths]
    above = [path.parts[:-2] for path in paths]  # folders above the rudiment's
    splits = None
    if all(folders and folders[0].lower() in SPLIT_NAMES for folders in above):
        cells = pd.Series([folders[0] for folders in above])
        splits = GivenSplits(cells, str(root), f"move its recordings into one of the folders in {root}", separate=True)
        above = [folders[1:] for folders in above]
    raw["player"] = [folders[0] if folders else "" for folders in above]
    known = raw.player != ""
    if known.any() and not known.all():
        raise UserError(
            f"{root} has recordings in a player's folder ({raw.audio_path[known].iloc[0]}) and others that are not "
            f"({raw.audio_path[~known].iloc[0]}); move all into PLAYER/RUDIMENT/, or all into RUDIMENT/"
        )
    notes = []
    if recordings.others:
        kinds = ", ".join(f"{count} {suffix or 'no suffix'}" for suffix, count in sorted(recordings.others.items()))
        notes.append(f"ignored {counted(sum(recordings.others.values()), 'file')} of other types ({kinds})")
    if recordings.ignored:
        notes.append(f"ignored {counted(recordings.ignored, 'recording')}, hidden or not in a rudiment's folder")
    names = ("sample_id", *(["player"] if known.all() else []), "rudiment", "audio_path")
    return RawLabels(
        root=root,
        origin=root,
        table=raw,
        columns={name: name for name in names},
        splits=splits,
        to_split="sort their recordings into the folders train, validation and test",
        read_headers=True,
        notes=tuple(notes),
    )


def _unreadable(error: OSError) -> None:
    raise UserError(f"the folder {error.filename} is not readable ({error.strerror}); change its permissions")
