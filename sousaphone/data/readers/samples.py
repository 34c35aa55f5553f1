"""Decoding of audio files, which does not trust their headers."""

from __future__ import annotations

import os
import re
from io import BytesIO
from pathlib import Path

import numpy as np
import soundfile

from sousaphone.errors import UserError

LOWEST_RATE, HIGHEST_RATE = 4_000, 384_000  # Hz
_SIZED = ("WAV", "WAVEX", "RF64", "W64", "AIFF", "CAF")  # the header states the size of the data
_MAX_SAMPLES = 2**28  # of all channels, 1 GiB
_TOO_LONG = f"is too long for a clip (more than {_MAX_SAMPLES:,} samples); cut it into clips"
_BLOCK = 2**22  # samples of all channels that are decoded at once
_UNKNOWN = 2**52  # more samples than a header states
_PLACEHOLDER = 0x7FFFF000  # least size in the RIFF header of a program that writes to a pipe
_MAX_FLOAT = 16.0  # +24 dB re full scale; greater samples are on the scale of integers
# First frame of an MP3 file that states the number of frames.
_MP3_INFO = re.compile(rb"(?:Xing|Info)\0\0\0[\x01\x03\x05\x07\x09\x0b\x0d\x0f]")
_MP3_FRAME = 1152  # samples
_W64_DATA = b"data\xf3\xac\xd3\x11"


class _Blocks(soundfile.SoundFile):
    """A file that is read in blocks. soundfile would seek after each one."""

    def seekable(self) -> bool:
        return False


class _Endless(BytesIO):
    """A file of apparently unlimited size, of which libsndfile reports the length in the header."""

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return super().seek(2**60) if (offset, whence) == (0, os.SEEK_END) else super().seek(offset, whence)


def read_samples(name: str, source: Path | BytesIO) -> tuple[np.ndarray, int]:
    """Decode a file: all samples, float32 [T, channels] in [-1, 1), and the rate in Hz.

    Memory depends on the decoded samples, not on the length in the header. A file that is shorter than its header
    states is rejected. A file without a stated length is decoded to its end. `name` is for messages.
    """
    try:
        if isinstance(source, Path) and source.stat().st_size > 8 * _MAX_SAMPLES:
            raise UserError(f"{name} {_TOO_LONG}")
        content = source.read_bytes() if isinstance(source, Path) else source.getvalue()
        with _open(content) as file:
            samples = _read(name, file, content)
            rate, kind = file.samplerate, file.subtype
    except OSError as error:
        raise _refusal(name, f"cannot be read ({error.strerror})") from None
    except soundfile.LibsndfileError as error:
        raise _undecodable(name, error, len(content)) from None
    if kind in ("FLOAT", "DOUBLE"):
        peak = float(max(samples.max(), -samples.min()))
        if not np.isfinite(peak):
            raise _refusal(name, "contains NaN or infinity")
        if peak > _MAX_FLOAT:
            scale = 2 ** next((bits for bits in (15, 23) if peak <= 2**bits), 31)
            raise UserError(
                f"{name} contains float samples on the scale of integers (up to {peak:,.0f}) instead of [-1, 1]; "
                f"divide them by {scale:,}, or export integer samples"
            )
    return samples, rate


def header_seconds(path: Path) -> float:
    """Return the duration in a file's header (s), NaN if it is not plausible; it may be an estimate."""
    try:
        header = soundfile.info(path)
    except soundfile.LibsndfileError as error:
        raise _undecodable(str(path), error, path.stat().st_size) from None
    return float(header.duration) if header.frames * header.channels <= _MAX_SAMPLES else float("nan")


def _open(content: bytes) -> _Blocks:
    """Open a file. libsndfile would read an MP3 file without an info frame only up to an estimated length."""
    file = _Blocks(BytesIO(content))
    if file.format != "MP3" or _MP3_INFO.search(content):
        return file
    file.close()
    return _Blocks(_Endless(content))


def _stated_length(file: _Blocks, content: bytes) -> int:
    """Return the number of samples that a header states, 0 if it states none."""
    size = int.from_bytes(content[4:8], "little")
    if file.frames > _UNKNOWN or (content[:4] == b"RIFF" and size >= max(_PLACEHOLDER, len(content))):
        return 0
    if file.format not in _SIZED:
        return file.frames
    if file.format == "W64":  # libsndfile ignores the size of its data
        data = content.find(_W64_DATA)
        end = data + int.from_bytes(content[data + 16 : data + 24], "little")
        return max(file.frames, file.frames * end // len(content))
    with _Blocks(_Endless(content)) as endless:
        # A program that was killed leaves zeros in a RIFF header.
        return endless.frames if endless.frames <= _UNKNOWN or content[:4] != b"RIFF" else 0


def _has_last_page(content: bytes) -> bool:
    """Return whether the last page of an Ogg file, which states no length, is complete and marked as the last."""
    page = content.rfind(b"OggS")
    if len(content) < page + 27:  # its header is truncated
        return False
    segments = content[page + 27 : page + 27 + content[page + 26]]
    return bool(content[page + 5] & 4) and page + 27 + len(segments) + sum(segments) <= len(content)


def _read(name: str, file: _Blocks, content: bytes) -> np.ndarray:
    if file.format not in (*_SIZED, "FLAC", "MP3", "OGG"):
        raise UserError(f"{name} is a file of type {file.format}; convert it to WAV or FLAC")
    if not LOWEST_RATE <= file.samplerate <= HIGHEST_RATE:
        raise UserError(
            f"{name} has a sample rate of {file.samplerate} Hz; resample it to one from {LOWEST_RATE} to {HIGHEST_RATE}"
        )
    stated = _stated_length(file, content)
    if file.frames < stated:
        raise _refusal(name, f"is truncated ({file.frames} of {stated} samples)")
    length, blocks = 0, []
    frames = _MP3_FRAME if file.format == "MP3" and not stated else max(1, _BLOCK // file.channels)
    while length < file.frames:
        try:
            block = file.read(min(frames, file.frames - length), dtype="float32", always_2d=True)
        except soundfile.LibsndfileError:
            if frames == _MP3_FRAME and file.name.tell() > 0.9 * len(content):  # an incomplete last frame, or tags
                break
            raise
        if not len(block):
            break
        blocks.append(block)
        length += len(block)
        if length * file.channels > _MAX_SAMPLES:
            raise UserError(f"{name} {_TOO_LONG}")
    if length < stated:
        raise _refusal(name, f"is truncated ({length} of {stated} samples)")
    if file.format == "OGG" and not _has_last_page(content):
        raise _refusal(name, "is truncated (its last page is missing)")
    if not blocks:
        raise _refusal(name, "is empty (0 samples)")
    return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)


def _undecodable(name: str, error: soundfile.LibsndfileError, size: int) -> UserError:
    return _refusal(name, f"cannot be decoded ({error.error_string})" if size else "is empty (0 bytes)")


def _refusal(name: str, problem: str) -> UserError:
    return UserError(f"{name} {problem}; copy it again from its source, or remove it from the data set and its labels")
