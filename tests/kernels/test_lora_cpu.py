"""Fused LoRA layers compute the results of PEFT."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sousaphone import lora
from sousaphone.backbones.registry import DEFAULT_SWEEP
from sousaphone.config import TrainConfig
from sousaphone.data.prepare import open_trial_data
from sousaphone.kernels.dispatch import use_fused
from sousaphone.kernels.lora_cpu import ConvFunction, FusedConv2d, FusedLinear, LinearFunction, drop
from sousaphone.model import RudimentClassifier, build_model
from sousaphone.rudiments import SLUGS
from sousaphone.training.loop import fit


def trained(name: str, **changes: Any) -> RudimentClassifier:
    """A nano backbone whose adapters are not zero."""
    model = build_model(TrainConfig(model=name, clip_seconds=1.0, weights="random", **changes), len(SLUGS))
    torch.manual_seed(1)
    for key, parameter in model.named_parameters():
        if ".lora_B." in key:
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def features_of(model: RudimentClassifier, clips: int = 3) -> Tensor:
    return model.features(torch.rand(clips, model.backbone.spec.sample_rate) - 0.5)


@pytest.mark.parametrize("strategy", ["lora", "rslora"])
@pytest.mark.parametrize("name", DEFAULT_SWEEP)
def test_every_adapter_has_a_fused_path(name: str, strategy: str) -> None:
    layers = lora.adapter_layers(trained(name, strategy=strategy))
    assert layers
    assert all(isinstance(layer, FusedLinear | FusedConv2d) for layer in layers)
    assert all(layer.parts(torch.rand(1, layer.in_features)) is not None for layer in layers)


@pytest.mark.parametrize("name", DEFAULT_SWEEP)
def test_dora_has_no_fused_path(name: str) -> None:
    layers = lora.adapter_layers(trained(name, strategy="dora"))
    assert all(layer.parts(torch.rand(1, layer.in_features)) is None for layer in layers)


@pytest.mark.parametrize("strategy", ["lora", "rslora", "dora"])
@pytest.mark.parametrize("name", DEFAULT_SWEEP)
def test_logits_and_gradients_equal_those_of_peft(name: str, strategy: str) -> None:
    # rsLoRA would scale adapters so large by 5.7, and the logits of EfficientAT to thousands.
    fused = trained(name, strategy=strategy, lora_alpha=4.0, lora_dropout=0.0, head_dropout=0.0).train()
    plain = copy.deepcopy(fused)
    use_fused(plain, False)
    features, labels = features_of(fused), torch.tensor([1, 2, 3])
    losses = [F.cross_entropy(model.classify(features), labels) for model in (fused, plain)]
    assert losses[0].grad_fn is not None
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-5, atol=1e-6)
    for loss in losses:
        loss.backward()
    for (key, own), theirs in zip(fused.named_parameters(), plain.parameters(), strict=True):
        if own.requires_grad:
            assert own.grad is not None, key
            torch.testing.assert_close(own.grad, theirs.grad, rtol=1e-3, atol=1e-6, msg=key)


@pytest.mark.parametrize("name", DEFAULT_SWEEP)
def test_logits_in_inference_equal_those_of_peft(name: str) -> None:
    model = trained(name).eval()
    features = features_of(model)
    with torch.inference_mode():
        fused = model.classify(features)
        use_fused(model, False)
        plain = model.classify(features)
    assert not torch.equal(fused, plain)  # rounding shows that the fused path was used
    torch.testing.assert_close(fused, plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("p", [0.0, 0.3])
def test_gradients_equal_finite_differences(p: float) -> None:
    def numbers(*shape: int, grad: bool = True) -> Tensor:
        return torch.randn(shape, dtype=torch.float64).requires_grad_(grad)

    def rows(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        torch.manual_seed(3)  # the same dropout mask in every call
        out: Tensor = LinearFunction.apply(x, weight, bias, a, b, 0.7, p)
        return out

    def maps(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        torch.manual_seed(3)
        out: Tensor = ConvFunction.apply(x, weight, a, b, 0.7, p)
        return out

    weight, bias = numbers(4, 5, grad=False), numbers(4, grad=False)
    a, b = numbers(2, 5), numbers(4, 2)
    assert torch.autograd.gradcheck(rows, (numbers(2, 3, 5), a, b))
    assert torch.autograd.gradcheck(maps, (numbers(2, 5, 3), a, b))


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout_has_its_probability_and_keeps_the_mean(p: float) -> None:
    torch.manual_seed(0)
    x = torch.ones(200, 501)
    dropped, kept, rescale = drop(x, p)
    assert kept is not None
    assert torch.equal(dropped, kept.float())
    deviation = (p * (1 - p) / x.numel()) ** 0.5
    assert float(dropped.mean()) == pytest.approx(1 - p, abs=4 * deviation)
    assert float(dropped.mean()) * rescale == pytest.approx(1.0, abs=4 * deviation * rescale)
    # Neighbours share a random word but are dropped independently.
    pairs = (dropped[:, :-1] * dropped[:, 1:]).mean()
    assert float(pairs) == pytest.approx((1 - p) ** 2, abs=8 * deviation)
    torch.manual_seed(0)
    assert torch.equal(drop(x, p)[0], dropped)
    assert not torch.equal(drop(x, p)[0], dropped)


def test_fused_path_on_a_cpu_is_for_float32_only() -> None:
    model = trained("ast").eval()
    layer = next(layer for layer in lora.adapter_layers(model) if isinstance(layer, FusedLinear))
    x = torch.rand(2, layer.in_features)
    assert layer.parts(x) is not None
    assert layer.parts(x.double()) is None
    assert layer.parts(x.to("meta")) is None
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer.parts(x) is None


@pytest.mark.parametrize("name", ["efficientat", "beats"])
def test_merged_adapters_are_not_added_again(name: str) -> None:
    model = trained(name).eval()
    features = features_of(model)
    with torch.inference_mode():
        apart = model.classify(features)
        for layer in lora.adapter_layers(model):
            layer.merge()
        torch.testing.assert_close(model.classify(features), apart, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["efficientat", "beats"])
def test_training_curve_equals_that_with_peft(name: str, trial_config: Callable[..., TrainConfig]) -> None:
    config = trial_config(model=name, lora_dropout=0.0, augment=True)
    curves = []
    for fused in (True, False):
        model = build_model(config, len(SLUGS))
        use_fused(model, fused)
        data = open_trial_data(config, model.backbone.spec.sample_rate)
        curves.append([epoch.metrics["train_loss"] for epoch in fit(config, model, data)])
    assert curves[0] == pytest.approx(curves[1], rel=1e-3)
