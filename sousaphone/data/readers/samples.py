"""Decoding of audio files, which does not trust their headers."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile

from sousaphone.errors import UserError

LOWEST_RATE, HIGHEST_RATE = 4_000, 384_000  # Hz
_SIZED = ("WAV", "WAVEX", "RF64", "W64", "AIFF", "CAF")  # the header states the size of the data
_MAX_SAMPLES = 2**28  # of all channels, 1 GiB
_BLOCK = 2**18  # samples of all channels that are decoded at once; from about 2**19 on BLAS uses threads to mix them
_UNKNOWN = 2**52  # more samples than a header states
_PLACEHOLDER = 0x7FFFF000  # least size in the RIFF header of a program that writes to a pipe
MOST_FLOAT = 16.0  # +24 dB re full scale; greater samples are on the scale of integers
# First frame of an MP3 file that states the number of frames.
_MP3_INFO = re.compile(rb"(?:Xing|Info)\0\0\0[\x01\x03\x05\x07\x09\x0b\x0d\x0f]")
_MP3_FRAME = 1152  # samples
_W64_DATA = b"data\xf3\xac\xd3\x11"
_REGION = 2**17  # bytes at the start or the end of a file that are searched; an Ogg page has at most 65,307
_END = 2**60


class _Blocks(soundfile.SoundFile):
    """A file that is read in blocks. soundfile would seek after each one."""

    def seekable(self) -> bool:
        return False


class _Endless:
    """A file of apparently unlimited size, of which libsndfile reports the length in the header."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._at_end = file, False

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at_end = (offset, whence) == (0, os.SEEK_END)
        return _END if self._at_end else self._file.seek(offset, whence)

    def tell(self) -> int:
        return _END if self._at_end else self._file.tell()

    def read(self, size: int = -1) -> bytes:
        return b"" if self._at_end else self._file.read(size)


def read_samples(name: str, source: Path | BytesIO) -> tuple[np.ndarray, int]:
    """Decode a file: all samples, float32 [T, channels] in [-1, 1), and the rate in Hz; see `read_blocks`.

    Raises a UserError, too, if the file is longer than a clip may be.
    """
    too_long = UserError(f"{name} is too long for a clip (more than {_MAX_SAMPLES:,} samples); cut it into clips")
    with _named_errors(name, source):
        if isinstance(source, Path) and source.stat().st_size > 8 * _MAX_SAMPLES:
            raise too_long
    decoded, rate = read_blocks(name, source)
    blocks, size = [], 0
    for block in decoded:
        blocks.append(block)
        size += block.size
        if size > _MAX_SAMPLES:
            raise too_long
    return blocks[0] if len(blocks) == 1 else np.concatenate(blocks), rate


def read_blocks(name: str, source: Path | BytesIO) -> tuple[Iterator[np.ndarray], int]:
    """Decode a file of any length block by block: an iterator of float32 [t, channels] in [-1, 1), and the rate in Hz.

    Memory depends neither on the length of the file nor on that in its header. A file that is shorter than its header
    states is rejected with a UserError, at the latest after its last block. A file without a stated length is decoded
    to its end. `name` is for messages.
    """
    with _named_errors(name, source):
        raw = _opened(source)
        file = _Blocks(raw)
        if file.format == "MP3" and not _MP3_INFO.search(_after_tag(source)):
            # libsndfile would read an MP3 file without an info frame only up to an estimated length.
            file.close()
            raw.seek(0)
            file = _Blocks(_Endless(raw))
        if (reason := _unsupported(file)) is not None:
            file.close()
            raw.close()
            raise UserError(f"{name} {reason}")
        return _decoded(name, file, source, raw), file.samplerate


def header_seconds(path: Path) -> float:
    """Return the duration in a file's header (s), NaN if it is not plausible; it may be an estimate."""
    try:
        header = soundfile.info(os.fsencode(path))  # soundfile rejects a str that is not UTF-8
    except soundfile.LibsndfileError as error:
        raise _undecodable(str(path), error, path.stat().st_size) from None
    return float(header.duration) if header.frames * header.channels <= _MAX_SAMPLES else float("nan")


@contextmanager
def _named_errors(name: str, source: Path | BytesIO) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _refusal(name, f"cannot be read ({error.strerror})") from None
    except soundfile.LibsndfileError as error:
        raise _undecodable(name, error, _size(source)) from None


def _opened(source: Path | BytesIO) -> BinaryIO:
    return source.open("rb", 2**17) if isinstance(source, Path) else BytesIO(source.getvalue())


def _size(source: Path | BytesIO) -> int:
    return source.stat().st_size if isinstance(source, Path) else source.getbuffer().nbytes


def _bytes_at(source: Path | BytesIO, start: int, most: int) -> bytes:
    with _opened(source) as file:
        file.seek(max(0, start))
        return file.read(most)


def _after_tag(source: Path | BytesIO) -> bytes:
    """Return the first bytes of an MP3 file after its ID3 tag, which states its size in four groups of seven bits."""
    head = _bytes_at(source, 0, 10)
    size = sum(byte << 7 * (3 - place) for place, byte in enumerate(head[6:])) + 10 if head[:3] == b"ID3" else 0
    return _bytes_at(source, size, _REGION)


def _stated_length(file: _Blocks, source: Path | BytesIO) -> int:
    """Return the number of samples that a header states, 0 if it states none."""
    head, size = _bytes_at(source, 0, 8), _size(source)
    if file.frames > _UNKNOWN or (
        head[:4] == b"RIFF" and int.from_bytes(head[4:8], "little") >= max(_PLACEHOLDER, size)
    ):
        return 0
    if file.format not in _SIZED:
        return file.frames
    if file.format == "W64":  # libsndfile ignores the size of its data
        start = _bytes_at(source, 0, _REGION)
        data = start.find(_W64_DATA)
        end = data + int.from_bytes(start[data + 16 : data + 24], "little")
        return max(file.frames, file.frames * end // size)
    with _opened(source) as raw, _Blocks(_Endless(raw)) as endless:
        # A program that was killed leaves zeros in a RIFF header.
        return endless.frames if endless.frames <= _UNKNOWN or head[:4] != b"RIFF" else 0


def _has_last_page(source: Path | BytesIO) -> bool:
    """Return whether the last page of an Ogg file, which states no length, is complete and marked as the last."""
    tail = _bytes_at(source, _size(source) - _REGION, _REGION)
    page = tail.rfind(b"OggS")
    if page < 0 or len(tail) < page + 27:  # its header is truncated
        return False
    segments = tail[page + 27 : page + 27 + tail[page + 26]]
    return bool(tail[page + 5] & 4) and page + 27 + len(segments) + sum(segments) <= len(tail)


def _unsupported(file: _Blocks) -> str | None:
    """Why a file is not decoded, if so; known before the caller makes a filter for its rate."""
    if file.format not in (*_SIZED, "FLAC", "MP3", "OGG"):
        return f"is a file of type {file.format}; convert it to WAV or FLAC"
    if not LOWEST_RATE <= file.samplerate <= HIGHEST_RATE:
        return f"has a sample rate of {file.samplerate} Hz; resample it to one from {LOWEST_RATE} to {HIGHEST_RATE}"
    return None


def _decoded(name: str, file: _Blocks, source: Path | BytesIO, raw: BinaryIO) -> Iterator[np.ndarray]:
    with raw, file, _named_errors(name, source):
        stated = _stated_length(file, source)
        if file.frames < stated:
            raise _refusal(name, f"is truncated ({file.frames} of {stated} samples)")
        length, size = 0, _size(source)
        frames = _MP3_FRAME if file.format == "MP3" and not stated else max(1, _BLOCK // file.channels)
        while length < file.frames:
            try:
                block = file.read(min(frames, file.frames - length), dtype="float32", always_2d=True)
            except soundfile.LibsndfileError:
                if frames == _MP3_FRAME and raw.tell() > 0.9 * size:  # an incomplete last frame, or tags
                    break
                raise
            if not len(block):
                break
            if file.subtype in ("FLOAT", "DOUBLE"):
                _refuse_implausible(name, block)
            length += len(block)
            yield block
        if length < stated:
            raise _refusal(name, f"is truncated ({length} of {stated} samples)")
        if file.format == "OGG" and not _has_last_page(source):
            raise _refusal(name, "is truncated (its last page is missing)")
        if not length:
            raise _refusal(name, "is empty (0 samples)")


def _refuse_implausible(name: str, samples: np.ndarray) -> None:
    """Raise a UserError if float samples are not finite, or on the scale of integers."""
    peak = float(max(samples.max(), -samples.min()))
    if not np.isfinite(peak):
        raise _refusal(name, "contains NaN or infinity")
    if peak > MOST_FLOAT:
        scale = 2 ** next((bits for bits in (15, 23) if peak <= 2**bits), 31)
        raise UserError(
            f"{name} contains float samples on the scale of integers (up to {peak:,.0f}) instead of [-1, 1]; "
            f"divide them by {scale:,}, or export integer samples"
        )


def _undecodable(name: str, error: soundfile.LibsndfileError, size: int) -> UserError:
    return _refusal(name, f"cannot be decoded ({error.error_string})" if size else "is empty (0 bytes)")


def _refusal(name: str, problem: str) -> UserError:
    return UserError(f"{name} {problem}; copy it again from its source, or leave it out")
