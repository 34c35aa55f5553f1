"""Packed layers compute the results of the layers that they replace."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from sousaphone import lora
from sousaphone.backbones.registry import DEFAULT_SWEEP
from sousaphone.config import TrainConfig
from sousaphone.kernels.packed_linear import PackedLinear, can_pack, pack_layers
from sousaphone.model import build_model
from sousaphone.rudiments import SLUGS


@pytest.mark.parametrize("name", DEFAULT_SWEEP)
def test_packed_networks_compute_the_same_logits(name: str) -> None:
    model = build_model(TrainConfig(model=name, clip_seconds=1.0), len(SLUGS)).eval()
    lora.merge(model)
    packed = copy.deepcopy(model)
    pack_layers(packed)
    assert any(isinstance(module, PackedLinear) for module in packed.modules()) == can_pack(torch.float32)
    with torch.inference_mode():
        features = model.features(torch.rand(3, model.backbone.spec.sample_rate) - 0.5)
        torch.testing.assert_close(packed.infer(features), model.infer(features), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("kind", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
@pytest.mark.parametrize("bias", [True, False])
def test_inputs_of_any_shape_and_layout(kind: torch.dtype, tolerance: float, bias: bool) -> None:
    if not can_pack(kind):
        pytest.skip(f"oneDNN does not multiply {kind} here")
    layer = nn.Linear(20, 30, bias=bias, dtype=kind)
    x = torch.rand(2, 20, 7, dtype=kind).transpose(1, 2)
    with torch.inference_mode():
        for part in (x, x[:0], x[0]):
            torch.testing.assert_close(PackedLinear(layer)(part), layer(part), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_layers_are_not_packed_where_it_is_impossible(monkeypatch: pytest.MonkeyPatch, kind: torch.dtype) -> None:
    monkeypatch.setattr("torch.backends.mkldnn.is_available", lambda: False)
    model = nn.Sequential(nn.Linear(20, 30, dtype=kind))
    pack_layers(model)
    assert type(model[0]) is nn.Linear


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_packed_layer_can_be_copied_and_pickled(kind: torch.dtype) -> None:
    layer, x = PackedLinear(nn.Linear(20, 30, dtype=kind)), torch.rand(5, 20, dtype=kind)
    with torch.inference_mode():
        expected = layer(x)
        for same in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
            assert torch.equal(same(x), expected)


def test_model_placed_in_bfloat16_can_be_copied() -> None:
    config = TrainConfig(model="beats", precision="bfloat16", clip_seconds=1.0)
    model = build_model(config, len(SLUGS)).place(config).eval()
    wave = torch.rand(1, model.backbone.spec.sample_rate) - 0.5
    with torch.inference_mode():
        assert torch.equal(copy.deepcopy(model)(wave), model(wave))
