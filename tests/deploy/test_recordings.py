"""Recordings are read block by block: the same samples as those of a clip that is read at once, in bounded memory."""

from __future__ import annotations

import tracemalloc
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from sousaphone.data.cache.decode import Resampler, resampler, to_int16, to_mono
from sousaphone.data.readers.samples import read_samples
from sousaphone.deploy.recordings import cut, scan
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
@pytest.mark.parametrize("kept", [0.0, 100.0])
def test_long_recording_has_the_samples_of_a_clip(
    tmp_path: Path, format: str, subtype: str | None, kept: float
) -> None:
    path = tmp_path / f"take.{format.lower()}"
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, (400_000, 2)), 44_100, subtype=subtype, format=format)
    samples, rate = read_samples("take", path)
    clip = to_int16(resampler(rate, 32_000)(torch.from_numpy(np.ascontiguousarray(to_mono(samples)))))
    recording = scan("take", path, kept)
    found = np.concatenate(list(recording.resampled(32_000)))
    assert np.abs(found.astype(int) - clip).max() <= 1  # rounding
    assert recording.samples == len(samples)
    assert (recording.wave is None) == (kept == 0.0)


def test_levels_are_those_of_the_sound(tmp_path: Path) -> None:
    rate = 8_000
    sine = np.sin(2 * np.pi * 1_000 * np.arange(rate) / rate)
    soundfile.write(tmp_path / "take.wav", np.concatenate([sine * 0.5, sine * 0.0]), rate, subtype="FLOAT")
    recording = scan("take", tmp_path / "take.wav", 100.0)
    assert np.allclose(recording.levels[:50], 20 * np.log10(0.5) - 10 * np.log10(2), atol=0.1)
    assert (recording.levels[50:] < -100).all()
    assert np.allclose(recording.envelope[:50], [-0.5, 0.5], atol=0.01)


def test_memory_does_not_depend_on_the_length(tmp_path: Path) -> None:
    peaks = []
    for minutes in (2, 12):
        path = tmp_path / f"{minutes}.wav"
        with soundfile.SoundFile(path, "w", 16_000, 1) as file:
            for second in range(60 * minutes):
                file.write(np.random.default_rng(second).normal(0, 0.1, 16_000))
        tracemalloc.start()
        recording = scan("take", path, 1.0)
        starts = list(range(0, recording.samples - 16_000, 8_000))
        for _ in cut(recording.resampled(16_000), starts, [16_000] * len(starts), 16_000):
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


def test_windows_are_cut_out_of_blocks() -> None:
    wave = np.arange(1, 1_001, dtype=np.int16)
    starts, lengths = [0, 30, 250, 900, 980], [100, 100, 20, 100, 40]
    found = list(cut(np.split(wave, [3, 120, 121, 700]), starts, lengths, 100))
    for window, start, length in zip(found, starts, lengths, strict=True):
        own = wave[start : start + length]
        assert np.array_equal(window[: len(own)], own)
        assert not window[len(own) :].any()


def test_truncated_recording_is_refused_after_one_pass(tmp_path: Path) -> None:
    buffer = BytesIO()
    soundfile.write(buffer, np.random.default_rng(0).normal(0, 0.1, 3_000_000), 44_100, format="FLAC")
    (tmp_path / "take.flac").write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
    with pytest.raises(UserError, match=r"take"):
        scan("take", tmp_path / "take.flac", 1.0)
