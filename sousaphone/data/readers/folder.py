"""Read a plain folder of recordings: RUDIMENT/FILE, or PLAYER/RUDIMENT/FILE where the players are known.

Where all folders under the root are called after splits (train, val, test), they are the splits, and what is in them is
read in the same way.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pandas as pd

from sousaphone.data.readers.audio_files import SUFFIXES
from sousaphone.data.readers.raw_labels import GivenSplits, RawLabels
from sousaphone.data.splits import SPLIT_NAMES
from sousaphone.errors import UserError
from sousaphone.rudiments import is_rudiment
from sousaphone.text import counted


@dataclass(frozen=True)
class Recordings:
    """What a walk through a folder found."""

    audio_paths: tuple[str, ...]  # below the folder, in order, each in a folder of its rudiment
    loose: int  # audio files that are in no folder, or hidden
    others: dict[str, int]  # how many files there are of each other type ('' for none)


def find_recordings(root: Path) -> Recordings:
    """Look for recordings below `root`; none is opened. Links to folders are not followed.

    Raises:
        UserError: a folder that cannot be listed, names that are not UTF-8.
    """
    found, loose, others = [], 0, Counter[str]()
    for folder, folders, names in os.walk(root, onerror=_unreadable):
        folders[:] = [name for name in folders if not name.startswith(".")]
        below = Path(folder).relative_to(root)
        for name in names:
            suffix = PurePosixPath(name).suffix.lower()
            if suffix not in SUFFIXES:
                others[suffix.encode(errors="replace").decode()] += 1
            elif name.startswith(".") or below == Path():
                loose += 1
            else:
                found.append((below / name).as_posix())
    odd = [path for path in sorted(found) if path.encode(errors="replace").decode() != path]
    if odd:
        raise UserError(
            f"{len(odd)} of {len(found)} recordings in {root} have names that are not UTF-8 (the first: "
            f"{odd[0]!a}); rename them"
        )
    return Recordings(tuple(sorted(found)), loose, dict(others))


def by_rudiment(recordings: Recordings) -> bool:
    """Whether any of the folders that hold recordings is called after a rudiment."""
    return any(is_rudiment(name) for name in {PurePosixPath(path).parent.name for path in recordings.audio_paths})


def read_folder(root: Path, recordings: Recordings) -> RawLabels:
    """The recordings, labelled by their folders, which may give the splits as well.

    Raises:
        UserError: recordings with and without a player's folder.
    """
    paths = [PurePosixPath(path) for path in recordings.audio_paths]
    raw = pd.DataFrame({"audio_path": recordings.audio_paths})
    raw["sample_id"] = raw.audio_path
    raw["rudiment"] = [path.parent.name for path in paths]
    above = [path.parts[:-2] for path in paths]  # the rudiment's folder
    splits = None
    if all(folders and folders[0].lower() in SPLIT_NAMES for folders in above):
        cells = pd.Series([folders[0] for folders in above])
        remedy = f"move their recordings into one of the folders in {root}"
        splits = GivenSplits(cells, str(root), remedy, apart=True)
        above = [folders[1:] for folders in above]
    raw["player"] = [folders[0] if folders else "" for folders in above]
    known = raw.player != ""
    if known.any() and not known.all():
        raise UserError(
            f"{root} has recordings with a player's folder ({raw.audio_path[known].iloc[0]}) and without one "
            f"({raw.audio_path[~known].iloc[0]}); sort all of them into PLAYER/RUDIMENT/, or all into RUDIMENT/"
        )
    names = ("sample_id", *(["player"] if known.all() else []), "rudiment", "audio_path")
    return RawLabels(
        root=root,
        origin=root,
        table=raw,
        columns={name: name for name in names},
        needed=("rudiment",),
        splits=splits,
        read_headers=True,
        notes=_ignored(recordings),
    )


def _ignored(recordings: Recordings) -> tuple[str, ...]:
    notes = []
    if recordings.others:
        kinds = ", ".join(f"{count} {suffix or 'without'}" for suffix, count in sorted(recordings.others.items()))
        notes.append(f"ignored {counted(sum(recordings.others.values()), 'file')} of other types ({kinds})")
    if recordings.loose:
        notes.append(f"ignored {counted(recordings.loose, 'recording')}, hidden or in no rudiment's folder")
    return tuple(notes)


def _unreadable(error: OSError) -> None:
    raise UserError(f"the folder {error.filename} cannot be listed ({error.strerror}); make it readable")
