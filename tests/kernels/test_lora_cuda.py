"""LoRA layers on CUDA; without a GPU in Triton's interpreter, in float32."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("triton", reason="Triton is part of torch for CUDA only")

from sousaphone.backbones.registry import DEFAULT_SWEEP
from sousaphone.config import TrainConfig
from sousaphone.kernels.dispatch import use_fused
from sousaphone.kernels.lora_cuda import Layer, fan
from sousaphone.model import RudimentClassifier, build_model
from sousaphone.rudiments import SLUGS
from sousaphone.training.step import CapturedMicroBatch, GraphCapture, MicroBatch

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
interpreted = pytest.mark.skipif(torch.cuda.is_available(), reason="bfloat16 is too coarse for this on a GPU")


def numbers(*shape: int, grad: bool = False) -> Tensor:
    return torch.randn(shape).requires_grad_(grad)


def layers(count: int) -> list[Layer]:
    """Layers with 24 inputs, 40 outputs and rank 8; the second has no bias."""
    return [
        (numbers(40, 24), None if number == 1 else numbers(40), numbers(8, 24, grad=True), numbers(40, 8, grad=True))
        for number in range(count)
    ]


@interpreted
@pytest.mark.parametrize("count", [1, 3])
def test_outputs_and_gradients_follow_the_formula(count: int) -> None:
    torch.manual_seed(0)
    x, those = numbers(3, 50, 24, grad=True), layers(count)
    found = fan(x, those, 0.7, 0.0)
    wanted = tuple(x @ w.T + (0.0 if bias is None else bias) + 0.7 * (x @ a.T @ b.T) for w, bias, a, b in those)
    passed = [torch.randn_like(y) for y in found]
    inputs = (x, *(tensor for *_, a, b in those for tensor in (a, b)))
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-4)
    ours, theirs = torch.autograd.grad(found, inputs, passed), torch.autograd.grad(wanted, inputs, passed)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-3)


@interpreted
@pytest.mark.parametrize("count", [1, 3])
def test_gradients_with_dropout_equal_finite_differences(count: int) -> None:
    torch.manual_seed(0)
    x, those = numbers(2, 40, 24, grad=True), layers(count)
    passed = [numbers(2, 40, 40) for _ in range(count)]
    inputs = [x, *(tensor for *_, a, b in those for tensor in (a, b))]

    def total(x: Tensor, *adapters: Tensor) -> Tensor:
        torch.manual_seed(3)  # the same dropout mask in every call
        own = [(w, bias, *adapters[2 * i : 2 * i + 2]) for i, (w, bias, *_) in enumerate(those)]
        parts = [(y.double() * p).sum() for y, p in zip(fan(x, own, 0.1, 0.3), passed, strict=True)]
        return torch.stack(parts).sum()

    gradients = torch.autograd.grad(total(*inputs), inputs)
    for place, gradient in enumerate(gradients):
        step = torch.randn_like(gradient)
        there, back = ([*inputs[:place], inputs[place] + e * step, *inputs[place + 1 :]] for e in (3e-3, -3e-3))
        slope = float((total(*there) - total(*back)).detach()) / 6e-3
        assert slope == pytest.approx(float((gradient * step).sum()), rel=2e-3, abs=2e-2)


def trained(name: str, **changes: Any) -> RudimentClassifier:
    """A nano backbone whose adapters are not zero."""
    model = build_model(TrainConfig(model=name, clip_seconds=1.0, head_dropout=0.0, **changes), len(SLUGS))
    torch.manual_seed(1)
    for key, parameter in model.named_parameters():
        if ".lora_B." in key:
            nn.init.normal_(parameter, std=0.1)
    return model.train()


@pytest.mark.parametrize("name", DEFAULT_SWEEP)
def test_only_frozen_parameters_are_rounded(name: str) -> None:
    model = trained(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.round_frozen()
    norms = {key for key, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)}
    frozen = 0
    for key, parameter in model.named_parameters():
        if parameter.requires_grad or key.rpartition(".")[0] in norms:
            assert parameter.dtype == torch.float32
            assert torch.equal(parameter, before[key])
        else:
            frozen += parameter.numel()
            assert torch.equal(parameter, before[key].bfloat16()), key
    assert frozen > model.counts().total / 2


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("name", DEFAULT_SWEEP)
def test_rounding_error_is_like_that_of_autocast(name: str, fused: bool) -> None:
    model = trained(name, lora_dropout=0.0)
    features = model.features(torch.rand(3, model.backbone.spec.sample_rate) - 0.5)
    use_fused(model, False)
    with torch.no_grad():
        exact = model.classify(features)
        with torch.autocast("cpu", torch.bfloat16):
            cast = model.classify(features)
    use_fused(model, fused)
    rounded = model.round_frozen().classify(features)
    assert rounded.dtype == torch.float32
    assert 0 < float((rounded.detach() - exact).norm()) < 2 * float((cast - exact).norm())
    rounded.square().sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in model.parameters() if p.requires_grad)


@on_gpu
@pytest.mark.parametrize("name", DEFAULT_SWEEP)
def test_fused_path_on_a_gpu_equals_peft(name: str) -> None:
    model = trained(name, lora_dropout=0.0)
    device = torch.device("cuda")
    model.place(TrainConfig(model=name, clip_seconds=1.0, device="cuda"))
    features = model.features((torch.rand(3, model.backbone.spec.sample_rate) - 0.5).to(device))
    fused = model.classify(features)
    use_fused(model, False)
    plain = model.classify(features)
    assert not torch.equal(fused, plain)
    assert float((fused - plain).norm() / plain.norm()) < 0.05


def gradients_of(micro_batch: MicroBatch) -> Tensor:
    return torch.cat([p.grad.flatten() for p in micro_batch.trainable if p.grad is not None])


def rerun(capture: GraphCapture, function: Callable[..., Tensor]) -> tuple[Callable[[], object], Tensor]:
    """A substitute for a CUDA graph: runs the function on the same input and output tensors."""
    output = function(*capture.inputs)
    return lambda: output.copy_(function(*capture.inputs)), output


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=on_gpu)])
@pytest.mark.parametrize("strategy", ["lora", "head"])
@pytest.mark.parametrize("name", DEFAULT_SWEEP)
def test_captured_micro_batch_trains_and_scores_like_an_eager_one(
    name: str, strategy: str, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if device == "cpu":
        monkeypatch.setattr(GraphCapture, "capture", rerun)
    config = TrainConfig(
        model=name, strategy=strategy, clip_seconds=1.0, device=device, micro_batch=4, eval_batch=4, lora_dropout=0.0
    )
    model = trained(name, lora_dropout=0.0, strategy=strategy).place(config)
    features = model.features((torch.rand(7, model.backbone.spec.sample_rate) - 0.5).to(device))
    targets = torch.eye(len(SLUGS), device=device)[:7]

    def run(micro_batch: MicroBatch) -> tuple[list[float], Tensor, Tensor]:
        model.train()
        losses = []
        for _ in range(2):  # capture, then replay; a step of a whole micro-batch and a smaller one
            micro_batch.begin()
            losses += [float(micro_batch.train(features[part], targets[part], 7)) for part in (slice(4), slice(4, 7))]
        model.eval()
        with torch.inference_mode():
            scores = torch.cat([micro_batch.score(features[part]) for part in (slice(4), slice(4, 7))])
        return losses, gradients_of(micro_batch), scores

    plain = run(MicroBatch(config, model))
    captured = run(CapturedMicroBatch(config, model))
    rounding = 1e-5 if device == "cpu" else 0.02
    assert captured[0] == pytest.approx(plain[0], rel=rounding)
    assert float((captured[1] - plain[1]).norm() / plain[1].norm()) < rounding
    torch.testing.assert_close(captured[2], plain[2], rtol=rounding, atol=rounding)


@on_gpu
def test_replays_draw_new_dropout_masks_from_the_seed() -> None:
    config = TrainConfig(model="beats", clip_seconds=1.0, device="cuda", micro_batch=4)
    model = trained("beats").train().place(config)
    features = model.features((torch.rand(4, model.backbone.spec.sample_rate) - 0.5).cuda())
    targets = torch.eye(len(SLUGS), device="cuda")[:4]
    micro_batch = CapturedMicroBatch(config, model)
    losses = []
    for seed in (1, 2, 1):  # the first one captures
        torch.manual_seed(seed)
        micro_batch.begin()
        losses.append(float(micro_batch.train(features, targets, 4)))
    assert losses[0] == losses[2] != losses[1]


def test_copied_model_computes_the_same() -> None:
    model = trained("htsat")
    twin = copy.deepcopy(model)
    features = model.features(torch.rand(2, model.backbone.spec.sample_rate) - 0.5)
    with torch.no_grad():
        model.eval(), twin.eval()
        assert torch.equal(model.classify(features), twin.classify(features))
