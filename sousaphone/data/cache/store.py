"""The files of one waveform cache: written so that a kill costs little, sealed with checksums, checked before use."""

from __future__ import annotations

import json
import os
import zlib
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import IO

import numpy as np

PART = ".part"
WAVE, OFFSETS, LENGTHS = "wave.int16", "offsets.npy", "lengths.int64"
_SEAL = "seal.json"
_BLOCK = 2**22  # bytes under one checksum
_FLUSH = 2**26  # bytes after which a build makes sure that what it has is on disk


def check_cache(path: Path, whole: bool = False) -> None:
    """Compare a cache with its checksums, at a cost that does not depend on its size.

    Sizes, offsets, the first and the last block are looked at. Every block is where the file has been written to
    since it was sealed, or copied: a check that is passed then is remembered.

    Args:
        whole: look at every block in any case (about a second a gigabyte).

    Raises:
        OSError: a file is missing.
        ValueError: what is damaged.
    """
    try:
        seal = json.loads((path / _SEAL).read_bytes())
        size, modified_ns, offsets, blocks = (seal[key] for key in ("size", "modified_ns", "offsets", "blocks"))
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"{_SEAL} cannot be read") from None
    status = (path / WAVE).stat()
    if status.st_size != size:
        raise ValueError(f"{WAVE} has {status.st_size} bytes instead of {size}")
    if zlib.crc32((path / OFFSETS).read_bytes()) != offsets:
        raise ValueError(f"{OFFSETS} has changed")
    touched = status.st_mtime_ns != modified_ns
    numbers = range(len(blocks)) if whole or touched else {0, len(blocks) - 1}
    with (path / WAVE).open("rb") as file:
        for number in numbers:
            file.seek(number * _BLOCK)
            if zlib.crc32(file.read(_BLOCK)) != blocks[number]:
                raise ValueError(f"{WAVE} has changed {number * _BLOCK / 1e6:.0f} MB from its start")
    if touched:
        with suppress(OSError):  # a cache that may only be read is checked again next time
            _seal(path, {**seal, "modified_ns": status.st_mtime_ns})


def _seal(path: Path, content: dict) -> None:
    part = path / f"{_SEAL}.{os.getpid()}{PART}"
    with part.open("wb") as file:
        file.write(json.dumps(content).encode())
        _to_disk(file)
    part.replace(path / _SEAL)


class CachePart:
    """A cache in the making, begun or gone on with; `finish` makes it one.

    The file of lengths says how many clips are whole. On disk it may be behind the waveform, never ahead of it. The
    disk is waited for in a thread of its own, so that decoding goes on meanwhile.

    Attributes:
        lengths: of the clips that it has, in samples.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(exist_ok=True)
        self._wave = (path / WAVE).open("ab")
        self._counts = (path / LENGTHS).open("ab")
        lengths = np.fromfile(path / LENGTHS, dtype=np.int64)
        ends = lengths.cumsum()
        whole = int(np.searchsorted(ends, self._wave.tell() // 2, side="right"))
        self.lengths: list[int] = lengths[:whole].tolist()
        self._wave.truncate(2 * sum(self.lengths))
        self._counts.truncate(8 * whole)
        self._flushed, self._waiting = whole, 0
        self._disk = ThreadPoolExecutor(1)
        self._under_way: Future[None] | None = None

    def append(self, wave: np.ndarray) -> None:
        self._wave.write(wave.data)
        self.lengths.append(len(wave))
        self._waiting += wave.nbytes
        if self._waiting > _FLUSH:
            self._settle()
            self._wave.flush()
            lengths = np.array(self.lengths[self._flushed :], dtype=np.int64)
            self._under_way = self._disk.submit(self._flush, lengths)
            self._flushed, self._waiting = len(self.lengths), 0

    def _flush(self, lengths: np.ndarray) -> None:
        """Waveform first, then the lengths that are covered by it."""
        os.fsync(self._wave.fileno())
        self._counts.write(lengths.tobytes())
        _to_disk(self._counts)

    def _settle(self) -> None:
        """Wait for the flush that is under way; what went wrong in it is raised here."""
        under_way, self._under_way = self._under_way, None
        if under_way is not None:
            under_way.result()

    def close(self) -> None:
        """Keep what is there: only a kill or the power can lose what came since the last flush."""
        if self._wave.closed:
            return
        try:
            self._settle()
            self._wave.flush()
            self._flush(np.array(self.lengths[self._flushed :], dtype=np.int64))
        finally:
            self._disk.shutdown()
            self._wave.close()
            self._counts.close()

    def finish(self) -> None:
        """Offsets and checksums; after this it may have its name."""
        self.close()
        with (self.path / OFFSETS).open("wb") as file:
            np.save(file, np.cumsum([0, *self.lengths], dtype=np.int64))
            _to_disk(file)
        with (self.path / WAVE).open("rb") as file:
            blocks = [zlib.crc32(block) for block in iter(lambda: file.read(_BLOCK), b"")]
            status = os.fstat(file.fileno())
        offsets = zlib.crc32((self.path / OFFSETS).read_bytes())
        content = {"size": status.st_size, "modified_ns": status.st_mtime_ns, "offsets": offsets, "blocks": blocks}
        _seal(self.path, content)
        sync_directory(self.path)


def _to_disk(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


def sync_directory(path: Path) -> None:
    # On POSIX a rename is on disk only when its directory is.
    if os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
