"""EfficientAT's front end equals the official extractor."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from sousaphone.backbones.frontends import EfficientAtFrontend
from sousaphone.backbones.registry import REGISTRY

# `wave`: the first 24,000 samples of two clips at 32 kHz; `mel`: the official features of the complete clips, for the
# frames within these samples.
REFERENCE = np.load(Path(__file__).parents[1] / "reference" / "efficientat.npz")
CONTRACT = REGISTRY["efficientat"].frontend
FRAMES = REFERENCE["mel"].shape[2]


@pytest.fixture
def wave() -> torch.Tensor:
    return torch.from_numpy(REFERENCE["wave"]).float() / 32768


def relative_error(ours: torch.Tensor, official: torch.Tensor) -> float:
    return float((ours - official).norm() / official.norm())


def test_features_equal_official_features(wave: torch.Tensor) -> None:
    features = EfficientAtFrontend(CONTRACT)(wave)
    assert features.shape == (2, 128, 1 + (wave.shape[1] - 1) // 320)
    assert relative_error(features[:, :, :FRAMES], torch.from_numpy(REFERENCE["mel"])) <= 1e-5


def test_half_the_hop_gives_twice_the_frames(wave: torch.Tensor) -> None:
    features = EfficientAtFrontend(dataclasses.replace(CONTRACT, hop=160))(wave)
    assert relative_error(features[:, :, ::2][:, :, :FRAMES], torch.from_numpy(REFERENCE["mel"])) <= 1e-5
    assert EfficientAtFrontend(dataclasses.replace(CONTRACT, hop=160)).hop_seconds == pytest.approx(0.005)


def test_fewer_bands_span_the_same_range(wave: torch.Tensor) -> None:
    few, many = EfficientAtFrontend(dataclasses.replace(CONTRACT, mels=64))(wave), EfficientAtFrontend(CONTRACT)(wave)
    assert few.shape == (2, 64, many.shape[2])
    # A band twice as wide has the power of the two bands it spans, except for their overlap.
    assert (few.mean() - many.mean()).abs() < 0.5


def test_padding_is_silence(wave: torch.Tensor) -> None:
    frontend = EfficientAtFrontend(CONTRACT)
    lengths = torch.tensor([9_001, 24_000])
    alone = wave[:1].clone()
    alone[:, 9_001:] = 0
    batch = frontend(wave, lengths)
    assert torch.allclose(batch[:1], frontend(alone), atol=1e-6)
    assert torch.allclose(batch[1:], frontend(wave[1:]), atol=1e-6)


def test_silence_is_the_floor_of_the_normalised_logarithm() -> None:
    assert torch.allclose(
        EfficientAtFrontend(CONTRACT)(torch.zeros(1, 3_200)), torch.tensor((np.log(1e-5) + 4.5) / 5).float()
    )
