"""BEATs' features equal those of the authors' code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torchaudio.compliance.kaldi import fbank

from sousaphone.backbones.frontends import BeatsFrontend
from sousaphone.backbones.registry import REGISTRY

# Output of the authors' `preprocess` for two clips of 3 s: every eighth frame, every fourth band, and the norms.
REFERENCE = np.load(Path(__file__).parents[1] / "reference" / "beats.npz")


def official(clip: Tensor) -> Tensor:
    """[T] to [F, 128] by Kaldi's filter bank with the authors' settings."""
    features = fbank(clip[None] * 2**15, num_mel_bins=128, sample_frequency=16_000, frame_length=25, frame_shift=10)
    return (features - 15.41663) / (2 * 6.55582)


def relative_error(found: Tensor, expected: Tensor) -> float:
    return ((found - expected).norm() / expected.norm()).item()


def test_features_equal_official_features() -> None:
    features = BeatsFrontend(REGISTRY["beats"].frontend)(torch.from_numpy(REFERENCE["wav16k"]) / 32768)
    assert features.shape == (2, 298, 128)
    assert relative_error(features[:, ::8, ::4], torch.from_numpy(REFERENCE["fbank"])) < 1e-5
    assert torch.allclose(features.norm(dim=(1, 2)), torch.from_numpy(REFERENCE["fbank_norm"]), rtol=1e-5)


@pytest.mark.parametrize("samples", [400, 559, 560, 4_000, 16_001, 40_000, 163_840])
def test_features_of_any_length_equal_kaldi(samples: int) -> None:
    clip = torch.rand(samples, generator=torch.Generator().manual_seed(samples)) - 0.5
    expected = official(clip)
    found = BeatsFrontend(REGISTRY["beats"].frontend)(clip[None])[0]
    assert found.shape == expected.shape
    assert relative_error(found, expected) < 1e-4


def test_clip_shorter_than_a_frame_has_no_features() -> None:
    assert BeatsFrontend(REGISTRY["beats"].frontend)(torch.rand(2, 399)).shape == (2, 0, 128)


def test_padded_clips_have_their_own_frames_then_silence() -> None:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.tensor([399, 400, 9_999, 24_000, 30_000])
    wave = torch.rand(len(lengths), 30_000, generator=generator) - 0.5
    features = BeatsFrontend(REGISTRY["beats"].frontend)(wave, lengths)
    for clip, length, row in zip(wave, lengths.tolist(), features, strict=True):
        frames = max(0, (length - 400) // 160 + 1)
        if frames:
            assert relative_error(row[:frames], official(clip[:length])) < 1e-4
        after = row[-(-length // 160) :]
        assert torch.allclose(after, torch.full_like(after, BeatsFrontend(REGISTRY["beats"].frontend).silence))
