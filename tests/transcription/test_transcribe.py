"""The strokes of rendered clips are found, whatever the rate, the length and the level of the sound."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors import safe_open
from scipy.signal import resample_poly

from scripts.train_transcriber.clips import MERGED_SECONDS
from scripts.train_transcriber.sequences import Sequence, draw_sequence
from scripts.train_transcriber.sounds import RATE, Room, dry, impulse_response, kit_drums, record
from sousaphone.transcription.network import StrokeNetwork
from sousaphone.transcription.transcribe import WEIGHTS, frames, peaks, transcribe
from tests.benchmarks.transcription import match, score

ROOM = Room(wet=0.05, pre_ms=2, early_ms=30, decay=0.2)


def clip(seed: int) -> tuple[np.ndarray, Sequence]:
    rng = np.random.default_rng(seed)
    sequence = draw_sequence(rng, 4.0)
    drums = kit_drums(held_out=True)
    wave = record(dry(sequence, drums[seed % len(drums)], rng, 4.0), impulse_response(ROOM, rng), rng)
    return wave, sequence.merged(MERGED_SECONDS)


def test_strokes_on_kits_that_are_not_in_training_are_found() -> None:
    found = []
    for seed in range(8):
        wave, true = clip(seed)
        found.append({"room": "one", "true": true, "found": {"transcribe": transcribe(wave, RATE)}})
    (row,) = [row for row in score(found) if row["room"] == "one"]
    assert row["f1"] > 0.8
    assert row["velocity_error"] < 20
    assert row["grace_recall"] > 0.5


def test_the_rate_of_the_sound_does_not_matter() -> None:
    wave, _ = clip(1)
    own = transcribe(wave, RATE)
    other = transcribe(resample_poly(wave, 441, 160).astype(np.float32), 44_100)
    assert len(match(own.times, other.times)) > 0.9 * max(len(own.times), len(other.times))


def test_strokes_are_valid_and_by_time() -> None:
    found = transcribe(clip(2)[0], RATE)
    assert (np.diff(found.times) > 0).all()
    assert ((found.velocities >= 1) & (found.velocities <= 127)).all()
    for each in (found.onset, found.grace, found.buzz):
        assert each.shape == found.times.shape
        assert ((each >= 0) & (each <= 1)).all()


@pytest.mark.parametrize("samples", [0, 1, 100, 5_000, 44_100])
def test_silence_of_any_length_has_no_strokes(samples: int) -> None:
    assert len(transcribe(np.zeros(samples, np.float32), 44_100).times) == 0


def test_long_sound_is_read_in_parts_without_seams() -> None:
    wave = np.concatenate([clip(seed)[0] for seed in range(9)])  # 36 s; a part has 30
    assert frames(wave, RATE).shape[1] == len(wave) // 80 + 1
    times = transcribe(wave, RATE).times
    own = transcribe(wave[28 * RATE : 32 * RATE], RATE).times + 28
    assert len(match(times[(times > 28.5) & (times < 31.5)], own)) > 0.8 * ((own > 28.5) & (own < 31.5)).sum()


def test_peaks_lie_between_frames_where_the_neighbours_differ() -> None:
    onset = torch.tensor([[0.0, 0.2, 0.9, 0.6, 0.0, 0.1, 0.0]])
    at, shift = peaks(onset, 0.15)
    assert at[0].nonzero()[:, 0].tolist() == [2]
    assert 0 < float(shift[0, 2]) <= 0.5


def test_weights_are_small_and_fit_the_network() -> None:
    assert WEIGHTS.stat().st_size <= 4_000_000
    with safe_open(WEIGHTS, "pt") as file:
        assert set(file.keys()) == set(StrokeNetwork().state_dict())
