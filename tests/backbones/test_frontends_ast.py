"""AST's front end equals transformers' extractor for every clip length."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import ASTFeatureExtractor

from sousaphone.backbones.frontends import AstFrontend
from sousaphone.backbones.registry import REGISTRY

# Exactly one frame, just below and above whole hops, odd numbers, 10.24 s, and longer than any window.
LENGTHS = (400, 559, 560, 561, 8_000, 39_999, 40_000, 80_123, 160_000, 163_840, 164_095, 200_000)


def clips(lengths: Sequence[int]) -> list[Tensor]:
    """One clip of noise per length, from nearly silent to loud."""
    rng = np.random.default_rng(0)
    return [torch.from_numpy((rng.uniform(-1, 1, n) * 10 ** rng.uniform(-3, 0)).astype(np.float32)) for n in lengths]


def official(clip: Tensor, frames: int = 1024) -> Tensor:
    """[F, 128] by the extractor with its default settings, which are the published ones."""
    extractor = ASTFeatureExtractor(max_length=frames)
    return extractor(clip.numpy(), sampling_rate=16_000, return_tensors="pt")["input_values"][0]


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    return float(torch.linalg.norm(ours - theirs) / torch.linalg.norm(theirs))


@pytest.mark.parametrize("frames", [256, 512, 1024])
def test_features_equal_official_features(frames: int) -> None:
    frontend = AstFrontend(REGISTRY["ast"].frontend, frames)
    for clip in clips(LENGTHS):
        ours = frontend(clip[None])
        assert ours.shape == (1, frames, 128)
        assert relative_error(ours[0], official(clip, frames)) <= 1e-4, len(clip)


def test_padded_batch_equals_official_features_of_each_clip() -> None:
    sounds = clips(LENGTHS)
    # The values beyond a clip's length must not affect its features.
    batch = torch.full((len(sounds), max(LENGTHS)), 0.7)
    for row, sound in zip(batch, sounds, strict=True):
        row[: len(sound)] = sound
    ours = AstFrontend(REGISTRY["ast"].frontend)(batch, torch.tensor(LENGTHS))
    for features, sound in zip(ours, sounds, strict=True):
        assert relative_error(features, official(sound)) <= 1e-4, len(sound)


def test_clip_shorter_than_a_frame_is_all_padding() -> None:
    frontend = AstFrontend(REGISTRY["ast"].frontend, 16)
    padding = -frontend.contract.mean / frontend.contract.scale
    assert torch.allclose(frontend(torch.ones(1, 399)), torch.tensor(padding))
    assert torch.allclose(frontend(torch.ones(1, 800), torch.tensor([399])), torch.tensor(padding))
