"""Micro-batches add up to the gradients of a step, and the loss follows the configuration."""

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
    """A model, and the features and targets [8, C] of a step."""
    model = build_model(CONFIG, len(SLUGS)).train()
    wave = torch.rand(8, model.backbone.spec.sample_rate, generator=torch.Generator().manual_seed(0)) - 0.5
    return model, model.features(wave), F.one_hot(torch.arange(8), len(SLUGS)).float()


@pytest.mark.parametrize("size", [1, 3, 4])
def test_gradients_do_not_depend_on_the_micro_batch(size: int, step: tuple[RudimentClassifier, Tensor, Tensor]) -> None:
    model, features, targets = step

    def gradients(size: int) -> list[Tensor]:
        passes = MicroBatch(CONFIG, model)
        passes.begin()
        for part, target in zip(features.split(size), targets.split(size), strict=True):
            passes.train(part, target, len(features))
        return [p.grad for p in passes.trainable if p.grad is not None]

    torch.testing.assert_close(gradients(size), gradients(8), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_loss_is_the_sum_of_cross_entropies_with_smoothed_targets(
    smoothing: float, step: tuple[RudimentClassifier, Tensor, Tensor]
) -> None:
    model, features, targets = step
    passes = MicroBatch(dataclasses.replace(CONFIG, label_smoothing=smoothing), model)
    smooth = (1 - smoothing) * targets + smoothing / len(SLUGS)
    expected = -(smooth * model.classify(features).log_softmax(1)).sum()
    torch.testing.assert_close(passes.train(features, targets, 8), expected.detach())
