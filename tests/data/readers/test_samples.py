"""Decoding: files whose header states no length, an estimate, or more than there is."""

from __future__ import annotations

import tracemalloc
from io import BytesIO

import numpy as np
import pytest
import soundfile

from sousaphone.data.readers.samples import HIGHEST_RATE, LOWEST_RATE, header_seconds, read_samples
from sousaphone.errors import UserError

LENGTH = 50_000
WAVE = np.random.default_rng(0).normal(0, 0.1, LENGTH)


def encoded(format: str, wave=WAVE, rate: int = 44_100, **options) -> bytes:
    buffer = BytesIO()
    soundfile.write(buffer, wave, rate, format=format, **options)
    return buffer.getvalue()


def replaced(content: bytes, start: int, other: bytes) -> bytes:
    return content[:start] + other + content[start + len(other) :]


def decoded(content: bytes) -> np.ndarray:
    return read_samples("take", BytesIO(content))[0]


def refusal(content: bytes) -> str:
    with pytest.raises(UserError) as error:
        decoded(content)
    assert str(error.value).startswith("take ")
    assert "\n" not in str(error.value)
    return str(error.value)


CONTAINERS = [
    *(("WAV", subtype) for subtype in ("PCM_16", "PCM_24", "FLOAT", "IMA_ADPCM", "MS_ADPCM", "ULAW")),
    *((name, "PCM_16") for name in ("WAVEX", "RF64", "W64", "AIFF", "CAF", "FLAC")),
    ("MP3", "MPEG_LAYER_III"),
    ("OGG", "VORBIS"),
]


@pytest.mark.parametrize(("format", "subtype"), CONTAINERS)
def test_samples_equal_those_of_soundfile(format, subtype):
    content = encoded(format, subtype=subtype)
    assert np.array_equal(decoded(content), soundfile.read(BytesIO(content), dtype="float32", always_2d=True)[0])


@pytest.mark.parametrize(("format", "subtype"), CONTAINERS)
def test_partially_copied_file_is_refused(format, subtype):
    content = encoded(format, subtype=subtype)
    last_page = content.rfind(b"OggS")
    for length in (len(content) // 2, int(0.9 * len(content)), *([last_page + 10] if last_page > 0 else [])):
        message = refusal(content[:length])
        assert "is truncated" in message or "cannot be decoded" in message


FLAC, WAV = encoded("FLAC"), encoded("WAV")
NO_LENGTH = replaced(FLAC, 21, bytes([FLAC[21] & 0xF0, 0, 0, 0, 0]))
MAX_LENGTH = replaced(FLAC, 21, bytes([FLAC[21] | 0x0F, *b"\xff\xff\xff\xff"]))
STREAMED = replaced(replaced(WAV, 4, b"\xff" * 4), 40, b"\xff" * 4)


@pytest.mark.parametrize("content", [NO_LENGTH, STREAMED], ids=["flac", "wav"])
def test_file_without_a_length_is_decoded_to_its_end(content):
    assert len(decoded(content)) == LENGTH


@pytest.mark.parametrize(
    "content",
    [MAX_LENGTH, replaced(WAV, 40, b"\xff" * 4), replaced(encoded("RF64"), 28, (2**60).to_bytes(8, "little"))],
    ids=["flac", "wav", "rf64"],
)
def test_absurd_length_is_refused_without_a_large_allocation(content):
    tracemalloc.start()
    message = refusal(content)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "truncated" in message
    assert peak < 100e6


def test_absurd_length_is_not_a_duration(tmp_path):
    for content, known in ((FLAC, True), (NO_LENGTH, False), (MAX_LENGTH, False)):
        (tmp_path / "take.flac").write_bytes(content)
        assert np.isfinite(header_seconds(tmp_path / "take.flac")) == known


@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE"])
def test_mp3_without_an_info_frame_is_decoded_to_its_end(mode):
    quiet = np.concatenate([WAVE, WAVE * 0.001, WAVE * 0.001])  # so the first frames are longer than the average
    whole = encoded("MP3", quiet, subtype="MPEG_LAYER_III", bitrate_mode=mode, compression_level=0.5)
    content = whole[whole.find(whole[:2], 4) :]
    assert len(quiet) <= len(decoded(content)) < len(quiet) + 3 * 1152
    tag = b"TAG" + bytes(125)
    assert len(decoded(content + tag)) == len(decoded(content))
    assert len(quiet) - 2 * 1152 < len(decoded(content[:-1]))  # an incomplete last frame
    damaged = replaced(content, len(content) // 3, bytes(4_000))
    assert "cannot be decoded" in refusal(damaged)


def test_mp3_with_an_info_frame_after_a_tag_has_the_stated_length():
    tag = b"ID3\x04\0\0\0\0\x02\0" + bytes(256)
    assert len(decoded(tag + encoded("MP3", subtype="MPEG_LAYER_III"))) == LENGTH


@pytest.mark.parametrize("bits", [15, 23])
def test_floats_on_the_scale_of_integers_are_refused_with_the_factor(bits):
    message = refusal(encoded("WAV", WAVE * 2**bits, subtype="FLOAT"))
    assert "float" in message
    assert f"{2**bits:,}" in message


def test_floats_slightly_above_full_scale_are_kept():
    assert decoded(encoded("WAV", WAVE * 10, subtype="FLOAT")).max() > 1


@pytest.mark.parametrize("rate", [1, LOWEST_RATE - 1, HIGHEST_RATE + 1])
def test_rate_out_of_range_is_refused(rate):
    message = refusal(encoded("WAV", rate=rate))
    assert f"{rate} Hz" in message
    assert f"{LOWEST_RATE} to {HIGHEST_RATE}" in message


def test_clip_longer_than_the_limit_is_refused(tmp_path):
    path = tmp_path / "take.wav"
    with path.open("wb") as file:
        file.truncate(2**32)  # sparse
    with pytest.raises(UserError, match="too long"):
        read_samples("take", path)


def test_other_formats_are_refused_by_name():
    assert "VOC" in refusal(encoded("VOC"))


def test_unreadable_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"take\.wav cannot be read"):
        read_samples("take.wav", tmp_path / "take.wav")
