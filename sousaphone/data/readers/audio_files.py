"""Audio files of a data set, also inside Parquet shards: their location, size and duration."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from io import BytesIO
from itertools import groupby
from pathlib import Path
from unicodedata import normalize

from sousaphone.data.readers.parquet import clips_of_shard, place_in_shard
from sousaphone.data.readers.paths import accessible
from sousaphone.data.readers.samples import header_seconds
from sousaphone.errors import UserError
from sousaphone.hardware import count_cpus


def find_files(root: Path, audio_paths: Sequence[str], remedy: str) -> tuple[list[str], list[int], list[int]]:
    """Return path, size (bytes) and modification time (ns) of each file; 100,000 clips take a second.

    A path is returned as spelled on disk, which may be in another Unicode normal form than in the labels.

    Raises:
        UserError: a path leaves `root` (absolute, '..', a link), or a file is inaccessible or missing, to which
            `remedy` applies, or is a pipe, a socket or a device.
    """
    folders: dict[str, dict[str, os.DirEntry[str]]] = {}
    paths, sizes, times, missing = [], [], [], []
    with accessible(root):
        # Real locations of the files: below `root`, or in the hub's cache, which links to its blobs.
        inside, blobs = [root.resolve()], root.parent.parent / "blobs"
        if root.parent.name == "snapshots" and blobs.is_dir():
            inside.append(blobs.resolve())
        for audio_path in audio_paths:
            folder, _, name = audio_path.rpartition("/")
            outside, entry = audio_path.startswith("/") or ".." in audio_path.split("/"), None
            if not outside and folder not in folders:
                place = _on_disk(root, folder)
                outside = not _is_below(place, inside)
                folders[folder] = {} if outside else _list_folder(place)
            if not outside:
                entry = folders[folder].get(name) or folders[folder].get(normalize("NFC", name))
                outside = entry is not None and entry.is_symlink() and not _is_below(Path(entry.path), inside)
            if outside:
                raise UserError(
                    f"audio_path {audio_path!r} leaves the data directory {root}; give a relative path without '..' or "
                    "links to the outside: copy the audio there"
                )
            if entry is None or not entry.is_file():
                missing.append(audio_path)
                continue
            status = entry.stat()
            paths.append(entry.path.removeprefix(str(root)).lstrip("/"))
            sizes.append(status.st_size)
            times.append(status.st_mtime_ns)
    if missing:
        raise UserError(
            f"{len(missing)} of {len(audio_paths)} audio files are missing in {root}, or are no regular "
            f"files (the first: {missing[0]}); copy them there or {remedy}"
        )
    return paths, sizes, times


def _is_below(path: Path, places: Sequence[Path]) -> bool:
    real = path.resolve()
    return any(real.is_relative_to(place) for place in places)


def _list_folder(folder: Path) -> dict[str, os.DirEntry[str]]:
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        by_name = {entry.name: entry for entry in entries}
        return {normalize("NFC", name): entry for name, entry in by_name.items()} | by_name
    return {}


def _on_disk(root: Path, folder: str) -> Path:
    """Return a folder below `root`, in the Unicode normal form of its name on disk."""
    path = root
    for name in folder.split("/"):
        if not (path / name).exists() and (entry := _list_folder(path).get(normalize("NFC", name))):
            name = entry.name
        path /= name
    return path


def durations(root: Path, audio_paths: Sequence[str]) -> list[float]:
    """Return the duration of each file (s) from its header, NaN if unknown."""
    with ThreadPoolExecutor(min(8, count_cpus())) as pool:
        return list(pool.map(header_seconds, (root / audio_path for audio_path in audio_paths)))


def open_clips(root: Path, audio_paths: Sequence[str]) -> Iterator[tuple[str, Path | BytesIO]]:
    """Yield each clip's name for messages and a source that soundfile can open, in the given order.

    Clips inside shards are read lazily, a few rows at a time.
    """
    for shard, group in groupby(map(place_in_shard, audio_paths), key=lambda place: place[0]):
        path = root / shard
        rows = [row for _, row in group]
        in_shard = [row for row in rows if row is not None]
        if not in_shard:
            yield from [(str(path), path)] * len(rows)
        else:
            for row, content in zip(in_shard, clips_of_shard(path, in_shard), strict=True):
                yield f"{path}#{row}", BytesIO(content)
