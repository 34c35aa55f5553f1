"""Recordings are read block by block: the same samples as those of a clip that is read at once, in bounded memory."""

from __future__ import annotations

import struct
import tracemalloc
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from sousaphone.data.cache.decode import Resampler, resampler, to_int16, to_mono
from sousaphone.data.readers.samples import read_samples
from sousaphone.deploy.recordings import decoded
from sousaphone.deploy.segments import FRAME_SECONDS
from sousaphone.errors import UserError


@pytest.mark.parametrize(
    "rates", [(44_100, 16_000), (48_000, 48_000), (8_000, 48_000), (44_101, 16_000), (192_000, 32_000)]
)
def test_resampling_in_blocks_equals_resampling_at_once(rates: tuple[int, int]) -> None:
    wave = np.random.default_rng(0).normal(0, 0.1, 700_001).astype(np.float32)
    blocks = np.split(wave, [1, 5, 300_000, 300_001, 690_000])
    whole = Resampler(*rates)(torch.from_numpy(wave)).numpy()
    assert np.allclose(np.concatenate(list(Resampler(*rates).blocks(blocks))), whole, atol=1e-6)


@pytest.mark.parametrize("length", [1, 50, 1_000])
def test_short_wave_is_resampled_in_one_block(length: int) -> None:
    wave = np.random.default_rng(0).normal(0, 0.1, length).astype(np.float32)
    whole = Resampler(44_100, 16_000)(torch.from_numpy(wave)).numpy()
    assert np.array_equal(np.concatenate(list(Resampler(44_100, 16_000).blocks([wave]))), whole)


@pytest.mark.parametrize(
    ("format", "subtype"), [("WAV", "PCM_16"), ("FLAC", "PCM_24"), ("OGG", "VORBIS"), ("MP3", None)]
)
@pytest.mark.parametrize("seconds", [0.5, 40.0])  # in memory and on disk
def test_recording_has_the_samples_of_a_clip(tmp_path: Path, format: str, subtype: str | None, seconds: float) -> None:
    path = tmp_path / f"take.{format.lower()}"
    noise = np.random.default_rng(0).normal(0, 0.1, (round(seconds * 44_100), 2))
    with soundfile.SoundFile(path, "w", 44_100, 2, subtype, format=format) as file:
        for block in np.array_split(noise, 100):  # libsndfile crashes if much Vorbis is written at once
            file.write(block)
    samples, rate = read_samples("take", path)
    clip = to_int16(resampler(rate, 32_000)(torch.from_numpy(np.ascontiguousarray(to_mono(samples)))))
    with decoded("take", path, 32_000) as (recording, found):
        assert len(found) == len(clip)
        assert np.abs(found.read(0, len(clip), len(clip)).astype(int) - clip).max() <= 1  # rounding
        assert np.array_equal(found.read(1_000, 50, 70), np.append(found.read(1_000, 50, 50), np.zeros(20, np.int16)))
        assert recording.seconds == len(clip) / 32_000


@pytest.mark.parametrize("rate", [8_000, 11_025])
def test_levels_are_those_of_the_sound(tmp_path: Path, rate: int) -> None:
    seconds = 300
    sine = np.sin(2 * np.pi * 1_000 * np.arange(seconds * rate) / rate)
    soundfile.write(tmp_path / "take.wav", np.concatenate([sine * 0.5, sine * 0.0]), rate, subtype="FLOAT")
    with decoded("take", tmp_path / "take.wav", 16_000) as (recording, _):
        pass
    last = round(seconds / FRAME_SECONDS)
    assert len(recording.levels) == len(recording.envelope) == 2 * last
    assert np.allclose(recording.levels[:last], 20 * np.log10(0.5) - 10 * np.log10(2), atol=0.1)
    assert (recording.levels[last + 1 :] < -100).all()
    assert np.allclose(recording.envelope[1 : last - 1], [-0.5, 0.5], atol=0.01)


def test_memory_is_a_fraction_of_a_long_recording(tmp_path: Path) -> None:
    minutes, rate = 18, 16_000
    path = tmp_path / "long.wav"
    with soundfile.SoundFile(path, "w", rate, 1) as file:
        for second in range(60 * minutes):
            file.write(np.random.default_rng(second).normal(0, 0.1, rate))
    tracemalloc.start()
    with decoded("take", path, rate) as (_, samples):
        for start in range(0, len(samples) - rate, rate // 2):
            samples.read(start, rate, rate)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.5 * 60 * minutes * rate * 4  # as float32


@pytest.mark.parametrize("rate", [2**31 - 1, 20_000_003])
def test_rate_out_of_range_is_refused_before_a_filter_is_made(tmp_path: Path, rate: int) -> None:
    path, data = tmp_path / "x.wav", bytes(32_000)
    form = struct.pack("<IHHIIHH", 16, 1, 1, rate, 2 * rate % 2**32, 2, 16)
    sizes = struct.pack("<I", len(data) + 36), struct.pack("<I", len(data))
    path.write_bytes(b"RIFF" + sizes[0] + b"WAVEfmt " + form + b"data" + sizes[1] + data)
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match=f"{rate} Hz"), decoded("x", path, 16_000):
            pass
        assert tracemalloc.get_traced_memory()[1] < 10e6
    finally:
        tracemalloc.stop()


def test_truncated_recording_is_refused_after_one_pass(tmp_path: Path) -> None:
    buffer = BytesIO()
    soundfile.write(buffer, np.random.default_rng(0).normal(0, 0.1, 3_000_000), 44_100, format="FLAC")
    (tmp_path / "take.flac").write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
    with pytest.raises(UserError, match=r"take"), decoded("take", tmp_path / "take.flac", 16_000):
        pass


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux")
def test_full_disk_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    soundfile.write(tmp_path / "take.wav", np.zeros(300 * 16_000), 16_000)
    with Path("/dev/full").open("r+b", 0) as full:
        monkeypatch.setattr("tempfile.TemporaryFile", lambda *_, **__: full)
        with pytest.raises(UserError, match="TMPDIR"), decoded("take", tmp_path / "take.wav", 16_000):
            pass
