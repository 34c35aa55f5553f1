"""Read a plain folder of recordings: RUDIMENT/FILE, or PLAYER/RUDIMENT/FILE where the players are known.

The folder that holds a recording names its rudiment; the one directly under the root, where that is another, names the
player. Where all folders under the root are called after splits (train, val, test), they are the splits, and what is in
them is read in the same way.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pandas as pd

from sousaphone.data.dataset import Dataset
from sousaphone.data.readers.audio_files import SUFFIXES, durations
from sousaphone.data.readers.labels import check_labels, in_order, split_players, splits_of_players, stand_ins
from sousaphone.data.readers.player_groups import NAME_PLAYERS
from sousaphone.data.splits import SPLIT_NAMES, read_splits
from sousaphone.errors import UserError
from sousaphone.rudiments import is_rudiment
from sousaphone.text import counted

_COLUMNS = ("sample_id", "player", "rudiment", "audio_path", "duration_sec")


@dataclass(frozen=True)
class Recordings:
    """What a walk through a folder found.

    Attributes:
        audio_paths: below the folder, in order, each in a folder of its rudiment.
        loose: audio files that are in no folder, or hidden.
        others: how many files there are of each other type ('' for none).
    """

    audio_paths: tuple[str, ...]
    loose: int
    others: dict[str, int]


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


def read_folder(root: Path, recordings: Recordings, only_test: bool = False) -> Dataset:
    """Label the recordings by their folders, and split the players, or what stands for them: as the folders or a
    splits.json with players say, else 80/10/10.

    Args:
        only_test: every clip is a test clip, and any number of players will do.

    Raises:
        UserError: folders that are no rudiments', recordings with and without a player's folder, too few players, one
            in two splits, a file that is no audio.
    """
    paths = [PurePosixPath(path) for path in recordings.audio_paths]
    raw = pd.DataFrame({"audio_path": recordings.audio_paths})
    raw["sample_id"] = raw.audio_path
    raw["rudiment"] = [path.parent.name for path in paths]
    above = [path.parts[:-2] for path in paths]  # the rudiment's folder
    splits = [SPLIT_NAMES.get(folders[0].lower()) if folders else None for folders in above]
    by_folder = all(splits) and not only_test
    if all(splits):
        above = [folders[1:] for folders in above]
    raw["player"] = [folders[0] if folders else "" for folders in above]
    known = raw.player != ""
    if known.any() and not known.all():
        raise UserError(
            f"{root} has recordings with a player's folder ({raw.audio_path[known].iloc[0]}) and without one "
            f"({raw.audio_path[~known].iloc[0]}); sort all of them into PLAYER/RUDIMENT/, or all into RUDIMENT/"
        )
    raw["duration_sec"] = float("nan")
    clips, _ = check_labels(raw, {name: name for name in _COLUMNS}, ("rudiment",), root)
    notes: tuple[str, ...] = ()
    if not known.all():
        labels = raw.rudiment.tolist()
        clips["player"], notes = stand_ins(root, clips.audio_path.tolist(), labels, only_test or by_folder)
    if by_folder:
        clips["split"] = splits
        if not known.all():
            clips["player"] = clips.split + "/" + clips.player
            notes = (f"players unknown: the folders give the splits, so a player may be in two; {NAME_PLAYERS}",)
        by_player = splits_of_players(clips, f"move their recordings into one of the folders in {root}")
        clips, said = split_players(clips.drop(columns="split"), by_player, str(root))
        notes += said
    elif known.all():
        listed = None if only_test else read_splits(root / "splits.json")
        clips, notes = split_players(clips, listed, only_test=only_test)
    else:
        clips, _ = split_players(clips, None, only_test=only_test)
    audio_paths = clips.audio_path.tolist()
    clips["duration_sec"] = durations(root, audio_paths)
    statuses = [(root / path).stat() for path in audio_paths]
    clips["size_bytes"] = [status.st_size for status in statuses]
    clips["modified_ns"] = [status.st_mtime_ns for status in statuses]
    return Dataset(root, in_order(clips), (*notes, *_ignored(recordings)), players_known=bool(known.all()))


def _ignored(recordings: Recordings) -> list[str]:
    notes = []
    if recordings.others:
        kinds = ", ".join(f"{count} {suffix or 'without'}" for suffix, count in sorted(recordings.others.items()))
        notes.append(f"ignored {counted(sum(recordings.others.values()), 'file')} of other types ({kinds})")
    if recordings.loose:
        notes.append(f"ignored {counted(recordings.loose, 'recording')}, hidden or in no rudiment's folder")
    return notes


def _unreadable(error: OSError) -> None:
    raise UserError(f"the folder {error.filename} cannot be listed ({error.strerror}); make it readable")
