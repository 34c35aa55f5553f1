"""The parts of a step add up to its gradients, under the loss that the settings ask for."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sousaphone.config import TrainConfig
from sousaphone.model import RudimentClassifier, build_model
from sousaphone.rudiments import SLUGS
from sousaphone.training.step import MicroBatch

CONFIG = TrainConfig(weights="random", clip_seconds=1.0, lora_dropout=0.0, head_dropout=0.0)


@pytest.fixture(scope="module")
def step() -> tuple[RudimentClassifier, Tensor, Tensor]:
    """A model, and features and targets [8, C] of a step."""
    model = build_model(CONFIG, len(SLUGS)).train()
    wave = torch.rand(8, model.backbone.spec.sample_rate, generator=torch.Generator().manual_seed(0)) - 0.5
    return model, model.features(wave), F.one_hot(torch.arange(8), len(SLUGS)).float()


@pytest.mark.parametrize("size", [1, 3, 4])
def test_the_gradients_of_a_step_in_parts_are_those_of_the_whole(
    size: int, step: tuple[RudimentClassifier, Tensor, Tensor]
) -> None:
    model, features, targets = step

    def gathered(size: int) -> list[Tensor]:
        passes = MicroBatch(CONFIG, model)
        passes.begin()
        for part, wanted in zip(features.split(size), targets.split(size), strict=True):
            passes.train(part, wanted, len(features))
        return [p.grad for p in passes.trainable if p.grad is not None]

    torch.testing.assert_close(gathered(size), gathered(8), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_is_the_sum_over_clips_of_cross_entropy_with_smoothed_targets(
    smoothing: float, step: tuple[RudimentClassifier, Tensor, Tensor]
) -> None:
    model, features, targets = step
    passes = MicroBatch(dataclasses.replace(CONFIG, label_smoothing=smoothing), model)
    smooth = (1 - smoothing) * targets + smoothing / len(SLUGS)
    expected = -(smooth * model.classify(features).log_softmax(1)).sum()
    torch.testing.assert_close(passes.train(features, targets, 8), expected.detach())
