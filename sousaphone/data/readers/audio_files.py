"""Audio files below a data directory: where they are, how long they last, and their bytes, also out of shards."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from itertools import groupby
from pathlib import Path

import soundfile

from sousaphone.data.readers.parquet import clips_of_shard, place_in_shard
from sousaphone.data.readers.paths import looked_at
from sousaphone.errors import UserError
from sousaphone.hardware import count_cpus
from sousaphone.text import one_line

SUFFIXES = (".wav", ".flac", ".mp3", ".ogg")


class UnreadableAudioError(UserError):
    """A file, at `path`, that is no audio."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{path} cannot be read as audio ({why}); copy it again or remove it")
        self.path = path


def find_files(root: Path, audio_paths: Sequence[str], labels: str) -> tuple[list[int], list[int]]:
    """Size (bytes) and modification time (ns) of each file; folders are listed once, 100,000 clips take a second.

    Args:
        labels: the file that lists the paths, for messages.

    Raises:
        UserError: a path that leaves `root` (absolute, '..', a link), a file that is not there or cannot be looked at.
    """
    with looked_at(root):
        return _find_files(root, audio_paths, labels)


def _find_files(root: Path, audio_paths: Sequence[str], labels: str) -> tuple[list[int], list[int]]:
    inside = _inside(root)
    folders: dict[str, dict[str, os.DirEntry[str]]] = {}
    sizes, times, missing = [], [], []
    for audio_path in audio_paths:
        folder, _, name = audio_path.rpartition("/")
        if audio_path.startswith("/") or ".." in audio_path.split("/"):
            raise _leaves(audio_path, root)
        if folder not in folders:
            if not _is_below((root / folder).resolve(), inside):
                raise _leaves(audio_path, root)
            folders[folder] = _list_folder(root / folder)
        entry = folders[folder].get(name)
        if entry is not None and entry.is_symlink() and not _is_below(Path(entry.path).resolve(), inside):
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
            f"copy them there or remove their rows from {labels}"
        )
    return sizes, times


def _inside(root: Path) -> list[Path]:
    """Where a file of the data set may really lie: below `root`, or where the hub's cache keeps what it links to."""
    blobs = root.parent.parent / "blobs"
    return [root.resolve(), *([blobs.resolve()] if root.parent.name == "snapshots" and blobs.is_dir() else [])]


def _is_below(path: Path, places: Iterable[Path]) -> bool:
    return any(path.is_relative_to(place) for place in places)


def _list_folder(folder: Path) -> dict[str, os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return {entry.name: entry for entry in entries}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise UserError(f"the folder {folder} cannot be listed ({one_line(error)}); make it readable") from None


def _leaves(audio_path: str, root: Path) -> UserError:
    return UserError(
        f"audio_path {audio_path!r} leaves the data directory {root}; "
        "paths must be relative, without '..', and links must stay inside: copy the audio there"
    )


def durations(root: Path, audio_paths: Sequence[str]) -> list[float]:
    """How long each file lasts (s), from its header, read in threads.

    Raises:
        UnreadableAudioError: a file that is no audio.
    """

    def seconds(audio_path: str) -> float:
        try:
            return float(soundfile.info(str(root / audio_path)).duration)
        except soundfile.SoundFileError as error:
            raise UnreadableAudioError(root / audio_path, one_line(error)) from None

    with ThreadPoolExecutor(min(8, count_cpus())) as pool:
        return list(pool.map(seconds, audio_paths))


def open_clips(root: Path, audio_paths: Sequence[str]) -> Iterator[tuple[str, Path | BytesIO]]:
    """Each clip's name for messages and what soundfile can open, in the order asked for.

    Clips inside shards are read as they are asked for; a few rows are in memory at a time.
    """
    for shard, group in groupby(map(place_in_shard, audio_paths), key=lambda place: place[0]):
        path = root / shard
        rows = [row for _, row in group]
        numbers = [row for row in rows if row is not None]
        if not numbers:
            yield from [(str(path), path)] * len(rows)
        else:
            for row, content in zip(numbers, clips_of_shard(path, numbers), strict=True):
                yield f"{path}#{row}", BytesIO(content)
