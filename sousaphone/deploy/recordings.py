"""Recordings of any length in bounded memory: decoded once into a temporary file, from which windows are read."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from threading import Lock
from typing import IO

import numpy as np
import numpy.typing as npt

from sousaphone.data.cache.decode import in_threads, resampler, to_int16, to_mono
from sousaphone.data.readers.samples import read_blocks
from sousaphone.deploy.segments import FRAME_SECONDS
from sousaphone.errors import UserError

_IN_MEMORY = 2**21  # bytes; the samples of longer recordings are on disk
_MEASURED = 2_000  # frames at once
_NO_POWER = 1e-12


@dataclass(frozen=True)
class Recording:
    """Levels and envelope of a recording."""

    name: str  # for messages
    seconds: float
    levels: npt.NDArray[np.float32]  # of frames of FRAME_SECONDS, dB re full scale [F]
    envelope: npt.NDArray[np.float32]  # lowest and highest sample of each frame, in [-1, 1) [F, 2]


class Samples:
    """The samples of a recording: mono, at the rate of a model, rounded to int16 like those for training."""

    def __init__(self, file: IO[bytes], length: int) -> None:
        self._file, self._length, self._lock = file, length, Lock()

    def __len__(self) -> int:
        return self._length

    def read(self, start: int, length: int, width: int) -> npt.NDArray[np.int16]:
        """Read `length` samples from `start`, padded with zeros to `width`; any thread may do so."""
        with self._lock:
            self._file.seek(2 * start)
            found = np.frombuffer(self._file.read(2 * length), np.int16)
        return np.pad(found, (0, width - len(found)))


@contextmanager
def decoded(
    name: str, source: Path | BytesIO, rate: int, advance: Callable[[float], None] = lambda seconds: None
) -> Iterator[tuple[Recording, Samples]]:
    """Decode a whole file once; raises a UserError if it is damaged, or if its samples do not fit on the disk.

    Args:
        name: for messages.
        rate: of the samples, Hz.
        advance: called with the additional seconds that have been decoded.
    """
    blocks, own_rate = read_blocks(name, source)

    def mono() -> Iterator[npt.NDArray[np.float32]]:
        for block in blocks:
            yield to_mono(block)
            advance(len(block) / own_rate)

    with tempfile.SpooledTemporaryFile(_IN_MEMORY, prefix="sousaphone-") as file:
        try:
            # With operators in several threads, the short products of a resampler take many times the processor time.
            for rounded in in_threads(lambda part: to_int16(part()), resampler(own_rate, rate).parts(mono())):
                file.write(rounded.tobytes())
            file.flush()
        except OSError as error:  # of the temporary file; those of the source are UserErrors
            raise no_space(name, error) from None
        samples = Samples(file, file.tell() // 2)
        yield _measured(name, samples, rate), samples


def no_space(name: str, error: OSError) -> UserError:
    """The error of a recording that does not fit into the directory of temporary files."""
    where = f"{tempfile.gettempdir()} ({error.strerror})"
    return UserError(f"{name} cannot be copied to {where}; set TMPDIR to a directory with more space")


def _measured(name: str, samples: Samples, rate: int) -> Recording:
    frame = round(FRAME_SECONDS * rate)
    levels, envelope = [], []
    for first in range(0, len(samples), _MEASURED * frame):
        length = min(_MEASURED * frame, len(samples) - first)
        frames = samples.read(first, length, -(-length // frame) * frame).reshape(-1, frame) * np.float32(1 / 32_768)
        levels.append(10 * np.log10(np.square(frames).mean(1) + _NO_POWER))
        envelope.append(np.stack([frames.min(1), frames.max(1)], 1))
    return Recording(name, len(samples) / rate, np.concatenate(levels), np.concatenate(envelope))
