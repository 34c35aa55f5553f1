"""CLAP's front end equals transformers' extractor for every clip length."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import ClapFeatureExtractor

from sousaphone.backbones.frontends import ClapFrontend
from sousaphone.backbones.registry import REGISTRY

RATE = 48_000
# A few hops, just above and below integer fractions of 10 s, odd numbers, and the full window.
LENGTHS = (700, 4_801, 47_999, 48_000, 122_400, 239_999, 240_000, 240_001, 333_333, 479_999, 480_000)
CONTRACT = REGISTRY["htsat"].frontend


def clips(lengths: Sequence[int]) -> list[Tensor]:
    """One clip of noise per length, from nearly silent to loud."""
    rng = np.random.default_rng(0)
    return [torch.from_numpy((rng.uniform(-1, 1, n) * 10 ** rng.uniform(-4, 0)).astype(np.float32)) for n in lengths]


def official(clip: Tensor, samples: int = 10 * RATE) -> Tensor:
    """[1, F, 64] by the extractor, with the preprocessor settings of laion/clap-htsat-unfused."""
    extractor = ClapFeatureExtractor(
        frequency_min=50, frequency_max=14_000, truncation="rand_trunc", padding="repeatpad"
    )
    features = extractor(clip.numpy(), sampling_rate=RATE, max_length=samples)["input_features"][0]
    return torch.as_tensor(features, dtype=torch.float32)


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    return float(torch.linalg.norm(ours - theirs) / torch.linalg.norm(theirs))


@pytest.mark.parametrize("length", LENGTHS)
def test_features_equal_official_features(length: int) -> None:
    (clip,) = clips([length])
    ours = ClapFrontend(CONTRACT)(clip[None])
    assert ours.shape == (1, 1, 1001, 64)
    assert relative_error(ours[0], official(clip)) <= 1e-4


def test_padded_batch_equals_official_features_of_each_clip() -> None:
    sounds = clips(LENGTHS)
    # The values beyond a clip's length must not affect its features.
    batch = torch.full((len(sounds), max(LENGTHS)), 0.7)
    for row, sound in zip(batch, sounds, strict=True):
        row[: len(sound)] = sound
    ours = ClapFrontend(CONTRACT)(batch, torch.tensor(LENGTHS))
    for features, sound in zip(ours, sounds, strict=True):
        assert relative_error(features, official(sound)) <= 1e-4


def test_shorter_window_equals_official_features() -> None:
    frontend = ClapFrontend(CONTRACT, 2.55)
    for sound in clips([30_000, 61_200, 61_201, 122_400]):
        assert relative_error(frontend(sound[None])[0], official(sound, 122_400)) <= 1e-4
    assert frontend(sound[None]).shape == (1, 1, 256, 64)


def test_longer_clip_is_cut_to_its_centre() -> None:
    # The official extractor cuts a random part, so it gets the centre here.
    (clip,) = clips([200_001])
    start = (200_001 - 122_400) // 2
    frontend = ClapFrontend(CONTRACT, 2.55)
    expected = official(clip[start : start + 122_400], 122_400)
    assert relative_error(frontend(clip[None])[0], expected) <= 1e-4
    batch = torch.zeros(2, 300_000)
    batch[0, :200_001] = clip
    mixed = frontend(batch, torch.tensor([200_001, 300_000]))
    assert relative_error(mixed[0], expected) <= 1e-4


def test_silence_is_minus_100_db() -> None:
    assert torch.equal(ClapFrontend(CONTRACT, 2.55)(torch.zeros(1, 1000)), torch.full((1, 1, 256, 64), -100.0))


def test_clip_of_length_zero_is_silence() -> None:
    features = ClapFrontend(CONTRACT, 2.55)(torch.ones(1, 1000), torch.tensor([0]))
    assert torch.equal(features, torch.full((1, 1, 256, 64), -100.0))
