"""Every backbone has the common interface at every scale, and LoRA trains only what it should."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from sousaphone import lora
from sousaphone.backbones.registry import REGISTRY
from sousaphone.config import TrainConfig
from sousaphone.errors import UserError
from sousaphone.model import build_model, load_backbone
from sousaphone.rudiments import SLUGS

NAMES = list(REGISTRY)
ADAPTED = [name for name, spec in REGISTRY.items() if spec.strategy is None]
SCALES = ["nano", pytest.param("base", marks=pytest.mark.slow)]
# Adapter parameters at the published size for r = 8: on every pretrained linear layer, and on the lists of the sweep.
ADAPTERS = {"ast": 1_327_104, "beats": 1_327_104, "beats-ft": 1_327_104, "htsat": 635_904}
SWEEP_ADAPTERS = {**ADAPTERS, "ast": 958_464, "efficientat": 0}
# EfficientAT: the 4.88 M of mn10 without its classifier, 960 * 1280 + 1280 + 1280 * 527 + 527, which is not used.
PUBLISHED = {"ast": 86.2e6, "htsat": 27.5e6, "beats": 90.3e6, "beats-ft": 90.3e6, "efficientat": 4.88e6 - 1_905_167}


def noise(name: str, seconds: float = 2.5, clips: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(clips, int(seconds * REGISTRY[name].sample_rate), generator=generator) - 0.5


def test_construction_leaves_the_random_numbers_of_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    seeded: list[int] = []
    for backend in (torch.cuda, torch.mps, torch.xpu):
        for name in {"manual_seed", "manual_seed_all"} & set(dir(backend)):
            monkeypatch.setattr(backend, name, seeded.append)
    before = torch.get_rng_state()
    build_model(TrainConfig(model="efficientat", seed=7), len(SLUGS))
    assert torch.equal(torch.get_rng_state(), before)
    assert seeded == []


def test_float32_convolutions_on_cuda_are_not_rounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    model = build_model(TrainConfig(model="efficientat"), len(SLUGS))
    monkeypatch.setattr(model, "to", lambda device: model)
    model.place(TrainConfig(model="efficientat", device="cpu"))
    assert torch.backends.cudnn.allow_tf32
    model.place(TrainConfig(model="efficientat", device="cuda", precision="float32"))
    assert not torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", NAMES)
def test_backbone_has_the_common_interface(name: str, scale: str) -> None:
    backbone = load_backbone(name, scale, clip_seconds=2.5)
    wave = noise(name)
    features = backbone.frontend(wave)
    tokens = backbone.encode(features)
    embedding = backbone(wave)
    assert backbone.spec is REGISTRY[name]
    assert not backbone.training
    assert tokens.shape[0] == 2
    assert tokens.shape[2] == backbone.width
    assert embedding.shape == (2, backbone.width)
    assert torch.isfinite(embedding).all()
    assert not torch.allclose(embedding[0], embedding[1])
    assert not any(p.numel() for p in backbone.frontend.parameters())
    assert features.shape[backbone.frontend.mel_dim] == backbone.frontend.contract.mels
    assert features.shape[backbone.frontend.time_dim] >= 2.4 / backbone.frontend.hop_seconds


@pytest.mark.parametrize("strategy", ["lora", "dora", "ia3"])
@pytest.mark.parametrize("name", ADAPTED)
def test_inference_gives_the_logits_of_training(name: str, strategy: str) -> None:
    model = build_model(TrainConfig(model=name, strategy=strategy), len(SLUGS)).eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.requires_grad:  # a trained adapter
            parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    features = model.features(noise(name))
    with torch.no_grad():
        expected = model.classify(features)
        assert torch.allclose(model.infer(features), expected, atol=1e-4)
        lora.merge(model)
        assert torch.allclose(model.infer(features), expected, atol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_padding_does_not_change_the_embedding(name: str) -> None:
    backbone = load_backbone(name, "nano", clip_seconds=2.5)
    wave = noise(name)
    length = wave.shape[1] // 2
    garbage, silence = wave.clone(), wave.clone()
    silence[:, length:] = 0
    lengths = torch.tensor([length, length])
    assert torch.allclose(backbone(garbage, lengths), backbone(silence, lengths), atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_weights_are_reproducible_and_the_callers_rng_does_not_change(name: str) -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    one, other = load_backbone(name, "nano", seed=1), load_backbone(name, "nano", seed=1)
    assert torch.equal(torch.rand(1), expected)
    third = load_backbone(name, "nano", seed=2)
    pairs = list(zip(one.parameters(), other.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in pairs)
    assert any(not torch.equal(a, b) for a, b in zip(one.parameters(), third.parameters(), strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_untrained_lora_does_not_change_the_output(name: str) -> None:
    config = TrainConfig(model=name)
    wave = noise(name)
    plain = load_backbone(name, "nano", seed=config.seed, clip_seconds=config.clip_seconds)
    model = build_model(config, len(SLUGS)).eval()
    assert torch.equal(model.backbone(wave), plain(wave))


@pytest.mark.parametrize("targets", ["all-linear", "sweep"])
@pytest.mark.parametrize("name", ADAPTED)
def test_each_target_matches_and_only_adapters_and_fresh_layers_train(name: str, targets: str) -> None:
    model = build_model(TrainConfig(model=name, lora_targets=targets), len(SLUGS))
    patterns = REGISTRY[name].lora_targets[targets]
    assert set(model.targets.matches) | set(model.targets.trained_in_full) == set(patterns)
    assert all(count > 0 for count in model.targets.matches.values())
    for key, parameter in model.named_parameters():
        expected = lora.is_adapter(key) or key.startswith(tuple(f"{fresh}." for fresh in model.fresh))
        assert parameter.requires_grad == expected, key


@pytest.mark.slow
@pytest.mark.parametrize("name", ADAPTED)
def test_parameter_counts_at_the_published_size(name: str) -> None:
    config = TrainConfig(model=name, scale="base", clip_seconds=5.0)
    if name in ADAPTERS:
        assert build_model(config, len(SLUGS)).counts().adapter == ADAPTERS[name]
    sweep = build_model(dataclasses.replace(config, lora_targets="sweep"), len(SLUGS))
    assert sweep.counts().adapter == SWEEP_ADAPTERS[name]
    fresh = tuple(f"{module}." for module in REGISTRY[name].fresh)
    named = load_backbone(name, "base").named_parameters()
    backbone = sum(p.numel() for key, p in named if not key.startswith(fresh))
    assert backbone == pytest.approx(PUBLISHED[name], rel=0.02)


def test_unmatched_pattern_is_an_error_with_similar_names() -> None:
    backbone = load_backbone("ast", "nano")
    with pytest.raises(UserError, match=r"attention\.q_prj.*attention\.q_proj"):
        lora.resolve_targets(backbone, ["attention.q_prj"], {}, [])


def test_pattern_of_a_fresh_layer_gets_no_adapter() -> None:
    model = torch.nn.ModuleDict({"body": torch.nn.Linear(2, 2), "head": torch.nn.Linear(2, 2)})
    targets = lora.resolve_targets(model, ["body", "head"], {}, ["head"])
    assert targets.modules == ("body",)
    assert targets.trained_in_full == ("head",)


def test_pattern_matches_complete_names_only() -> None:
    model = torch.nn.ModuleDict({name: torch.nn.Linear(2, 2) for name in ("proj", "in_proj")})
    assert lora.resolve_targets(model, ["proj"], {}, []).modules == ("proj",)


def test_adapters_are_scaled_by_alpha_over_r() -> None:
    model = build_model(TrainConfig(lora_r=4, lora_alpha=12.0), len(SLUGS))
    assert {tuple(layer.scaling.values()) for layer in lora.adapter_layers(model)} == {(3.0,)}
    assert {layer.lora_A["default"].weight.shape[0] for layer in lora.adapter_layers(model)} == {4}


def test_aliases_are_resolved() -> None:
    backbone = load_backbone("ast", "nano")
    targets = lora.resolve_targets(backbone, ["query", "output.dense"], REGISTRY["ast"].aliases, [])
    assert targets.matches == {"query": 2, "output.dense": 4}


def test_pretrained_layers_stay_in_evaluation_mode_under_lora() -> None:
    model = build_model(TrainConfig(), len(SLUGS)).train()
    assert model.classifier.training
    assert all(layer.lora_dropout.training for layer in lora.adapter_layers(model))
    training = {type(m).__name__ for m in model.backbone.modules() if m.training}
    assert training <= {"ModuleDict", "Dropout"}


def test_unknown_names_are_errors_with_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"wavlm.*ast"):
        load_backbone("wavlm")
    with pytest.raises(UserError, match=r"huge.*base, nano"):
        load_backbone("ast", "huge")
