"""HTS-AT equals CLAP's audio encoder, loads CLAP checkpoints, and enlarges its window for longer clips."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import ClapAudioConfig, ClapAudioModel, ClapAudioModelWithProjection, ClapConfig, ClapModel

from sousaphone.backbones.registry import REGISTRY
from sousaphone.errors import UserError
from sousaphone.model import load_backbone

AUDIO = {
    "spec_size": 128,
    "window_size": 4,
    "patch_embeds_hidden_size": 8,
    "hidden_size": 64,
    "depths": [2, 1, 2, 1],
    "num_attention_heads": [1, 2, 4, 8],
}
TEXT = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "vocab_size": 50,
    "max_position_embeddings": 20,
}


def small_clap() -> ClapModel:
    torch.manual_seed(3)
    model = ClapModel(ClapConfig(text_config=TEXT, audio_config=AUDIO, projection_dim=8)).eval()
    norm = model.audio_model.audio_encoder.batch_norm
    norm.running_mean.uniform_(-60.0, -20.0)
    norm.running_var.uniform_(100.0, 400.0)
    return model


def features(frames: int = 256) -> torch.Tensor:
    return torch.rand(2, 1, frames, 64, generator=torch.Generator().manual_seed(1)) * 80 - 90  # dB


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    small_clap().save_pretrained(tmp_path / "clap")
    return tmp_path / "clap"


def change_config(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    config = json.loads((path / "config.json").read_text())
    change(config)
    (path / "config.json").write_text(json.dumps(config))


def test_mean_of_tokens_equals_pooled_output() -> None:
    backbone = load_backbone("htsat", "nano")
    model = ClapAudioModel(backbone.net.config).eval()
    model.audio_encoder.load_state_dict(backbone.net.state_dict())
    expected = model(input_features=features()).pooler_output
    assert torch.allclose(backbone.pool(backbone.encode(features())), expected, atol=1e-5)


@pytest.mark.slow
def test_base_equals_the_published_encoder_with_ten_second_input() -> None:
    backbone = load_backbone("htsat", "base", clip_seconds=5.0)
    assert sum(p.numel() for p in backbone.parameters()) == pytest.approx(27.5e6, rel=0.01)
    model = ClapAudioModel(ClapAudioConfig()).eval()
    model.audio_encoder.load_state_dict(backbone.net.state_dict())
    assert backbone.frontend(torch.zeros(1, 48_000)).shape == (1, 1, 1001, 64)
    tokens = backbone.encode(features(1001))
    assert tokens.shape == (2, 64, 768)
    assert torch.allclose(tokens.mean(1), model(input_features=features(1001)).pooler_output, atol=1e-5)


def test_nano_and_base_have_the_same_module_types() -> None:
    def kinds(scale: str) -> set[str]:
        backbone = load_backbone("htsat", scale)
        return {type(module).__name__ for module in backbone.modules()}

    assert kinds("nano") == kinds("base")
    shifts = [layer.shift_size for stage in load_backbone("htsat", "nano").net.layers for layer in stage.blocks]
    assert {shift > 0 for shift in shifts} == {True, False}


def test_random_input_norm_is_scaled_to_decibels() -> None:
    norm = load_backbone("htsat", "nano").net.batch_norm
    assert norm(torch.full((1, 64, 256, 1), -40.0)).abs().max() < 1e-4


def test_full_clap_audio_model_and_projection_model_load_alike(tmp_path: Path) -> None:
    clap = small_clap()
    clap.save_pretrained(tmp_path / "clap")
    clap.audio_model.save_pretrained(tmp_path / "audio")
    projecting = ClapAudioModelWithProjection(clap.config.audio_config)
    projecting.audio_model.load_state_dict(clap.audio_model.state_dict())
    projecting.save_pretrained(tmp_path / "projection")
    expected = clap.audio_model(input_features=features()).pooler_output
    for kind in ("clap", "audio", "projection"):
        backbone = load_backbone("htsat", "base", str(tmp_path / kind))
        assert torch.equal(backbone.pool(backbone.encode(features())), expected), kind
        assert not any("text" in name or "projection" in name for name, _ in backbone.named_parameters())
        assert backbone.width == 64


@pytest.mark.parametrize(
    ("clip_seconds", "side", "frames"), [(None, 128, 256), (2.5, 128, 256), (2.6, 192, 576), (9.0, 256, 1001)]
)
def test_longer_clip_enlarges_the_window(checkpoint: Path, clip_seconds: float | None, side: int, frames: int) -> None:
    backbone = load_backbone("htsat", weights=str(checkpoint), clip_seconds=clip_seconds)
    assert backbone.net.spec_size == side
    wave = torch.rand(1, round(48_000 * (clip_seconds or 2.5))) - 0.5
    inputs = backbone.frontend(wave)
    assert inputs.shape == (1, 1, frames, 64)
    model = ClapAudioModel(ClapAudioConfig(**{**AUDIO, "spec_size": side})).eval()
    model.audio_encoder.load_state_dict(backbone.net.state_dict())
    assert torch.allclose(backbone(wave), model(input_features=inputs).pooler_output, atol=1e-5)


def test_fused_checkpoint_is_refused(checkpoint: Path) -> None:
    change_config(checkpoint, lambda config: config["audio_config"].update(enable_fusion=True))
    with pytest.raises(UserError, match=r"enable_fusion.*laion/clap-htsat-unfused"):
        load_backbone("htsat", weights=str(checkpoint))


def test_other_mel_bands_are_refused(checkpoint: Path) -> None:
    change_config(checkpoint, lambda config: config["audio_config"].update(num_mel_bins=32))
    with pytest.raises(UserError, match=r"32 mel bands.* 64"):
        load_backbone("htsat", weights=str(checkpoint))


@pytest.mark.parametrize("kind", ["clap_text_model", "audio-spectrogram-transformer"])
def test_another_architecture_is_refused(checkpoint: Path, kind: str) -> None:
    change_config(checkpoint, lambda config: config.update(model_type=kind))
    with pytest.raises(UserError, match=f"'{kind}' .*'clap_audio_model'"):
        load_backbone("htsat", weights=str(checkpoint))


def test_all_linear_excludes_patch_merging() -> None:
    from sousaphone import lora

    backbone = load_backbone("htsat", "nano")
    targets = lora.resolve_targets(backbone, REGISTRY["htsat"].lora_targets["all-linear"], {}, [])
    blocks = sum(len(stage.blocks) for stage in backbone.net.layers)
    assert len(targets.modules) == 6 * blocks
    assert not any("reduction" in module for module in targets.modules)
