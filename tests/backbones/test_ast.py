"""AST equals transformers at its pretrained length and the authors' rule at others, and loads strictly."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from transformers import ASTConfig, ASTForAudioClassification, ASTModel

from sousaphone.backbones.ast import fit_positions
from sousaphone.errors import UserError
from sousaphone.model import load_backbone

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "max_length": 128,
}
# transformers' names of the modules of a layer before version 5, and since.
OLDER = {
    "attention.attention.query": "attention.q_proj",
    "attention.attention.key": "attention.k_proj",
    "attention.attention.value": "attention.v_proj",
    "attention.output.dense": "attention.o_proj",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
}


def small_ast() -> ASTForAudioClassification:
    torch.manual_seed(3)
    model = ASTForAudioClassification(ASTConfig(**SMALL, num_labels=7)).eval()
    embeddings = model.audio_spectrogram_transformer.embeddings
    for tokens in (embeddings.cls_token, embeddings.distillation_token, embeddings.position_embeddings):
        torch.nn.init.normal_(tokens)
    return model


def features(frames: int) -> torch.Tensor:
    return torch.randn(2, frames, 128, generator=torch.Generator().manual_seed(1)) * 0.5


def older_names(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    renamed = {}
    for name, tensor in tensors.items():
        for old, new in OLDER.items():
            name = name.replace(new, old)
        renamed[name.replace("transformer.layers.", "transformer.encoder.layer.")] = tensor
    return renamed


def current_names(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    renamed = {}
    for name, tensor in tensors.items():
        for old, new in OLDER.items():
            name = name.replace(old, new)
        renamed[name.replace("transformer.encoder.layer.", "transformer.layers.")] = tensor
    return renamed


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ast")
    small_ast().save_pretrained(path)
    return path


@pytest.fixture
def checkpoint(saved: Path, tmp_path: Path) -> Path:
    return shutil.copytree(saved, tmp_path / "ast")


def change_tensors(path: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    tensors = load_file(path / "model.safetensors")
    tensors = change(tensors) or tensors
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})


def test_tokens_equal_transformers_at_pretrained_length() -> None:
    backbone = load_backbone("ast", "nano")
    model = ASTModel(backbone.net.config).eval()
    model.load_state_dict(backbone.net.state_dict())
    official = model(features(256))
    tokens = backbone.encode(features(256))
    assert torch.allclose(tokens, official.last_hidden_state, atol=1e-5)
    assert torch.allclose(backbone.pool(tokens), official.pooler_output, atol=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {"frequency_stride": 16, "time_stride": 16, "qkv_bias": False},
        {"patch_size": 8, "frequency_stride": 6, "time_stride": 8, "hidden_act": "relu", "num_attention_heads": 4},
    ],
)
def test_other_configurations_equal_transformers(changes: dict[str, Any], tmp_path: Path) -> None:
    torch.manual_seed(3)
    model = ASTModel(ASTConfig(**{**SMALL, **changes})).eval()
    torch.nn.init.normal_(model.embeddings.position_embeddings)
    model.save_pretrained(tmp_path)
    backbone = load_backbone("ast", "base", str(tmp_path))
    official = model(features(128))
    assert torch.allclose(backbone.encode(features(128)), official.last_hidden_state, atol=1e-5)
    assert torch.allclose(backbone.pool(backbone.encode(features(128))), official.pooler_output, atol=1e-5)


@pytest.mark.parametrize("naming", [current_names, older_names])
def test_fine_tuned_checkpoint_loads_under_current_and_older_names(
    checkpoint: Path, naming: Callable[..., Any]
) -> None:
    change_tensors(checkpoint, naming)
    names = load_file(checkpoint / "model.safetensors")
    marker = "layers.0.attention.q_proj" if naming is current_names else "encoder.layer.0.attention.attention.query"
    assert f"audio_spectrogram_transformer.{marker}.weight" in names
    backbone = load_backbone("ast", "base", str(checkpoint))
    expected = small_ast().audio_spectrogram_transformer(features(128))
    assert torch.equal(backbone.encode(features(128)), expected.last_hidden_state)
    assert backbone.frontend.length == 128
    assert not any("classifier" in name for name, _ in backbone.named_parameters())


def test_shorter_input_uses_central_positions() -> None:
    positions = torch.arange(2 + 2 * 6.0)[None, :, None]  # two special tokens, then 2 mel rows of 6 times
    fitted = fit_positions(positions, (2, 6), (2, 3))
    assert fitted.flatten().tolist() == [0, 1, 4, 5, 6, 10, 11, 12]


def test_longer_input_interpolates_positions_along_time() -> None:
    positions = torch.randn(1, 2 + 2 * 4, 3)
    fitted = fit_positions(positions, (2, 4), (2, 7))
    assert torch.equal(fitted[:, :2], positions[:, :2])
    for row in range(2):
        have = positions[:, 2 + 4 * row : 6 + 4 * row].transpose(1, 2)  # [1, D, 4]
        expected = F.interpolate(have, size=7, mode="linear", align_corners=False).transpose(1, 2)
        assert torch.allclose(fitted[:, 2 + 7 * row : 9 + 7 * row], expected, atol=1e-6)


@pytest.mark.parametrize("clip_seconds", [0.5, 2.5])
def test_other_lengths_equal_a_model_with_fitted_positions(checkpoint: Path, clip_seconds: float) -> None:
    backbone = load_backbone("ast", weights=str(checkpoint), clip_seconds=clip_seconds)
    frames = backbone.frontend.length
    config = ASTConfig(**{**SMALL, "max_length": frames})
    model = ASTModel(config).eval()
    state = backbone.net.state_dict()
    wanted = ((128 - 16) // 10 + 1, (frames - 16) // 10 + 1)
    key = "embeddings.position_embeddings"
    state[key] = fit_positions(state[key], backbone.position_grid, wanted)
    model.load_state_dict(state)
    assert torch.allclose(backbone.encode(features(frames)), model(features(frames)).last_hidden_state, atol=1e-5)


QUERY = "audio_spectrogram_transformer.encoder.layer.0.attention.attention.query.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: {name: t[name] for name in t if name != QUERY}, "missing: layers.0.attention.q_proj.weight"),
        (
            lambda t: t.update({QUERY: torch.zeros(3, 3)}),
            r"of another shape: layers.0.attention.q_proj.weight \[3, 3\] for \[32, 32\]",
        ),
        (lambda t: t.update(extra=torch.zeros(1)), "unknown: extra"),
    ],
)
def test_error_names_tensors_that_do_not_fit(checkpoint: Path, change: Any, message: str) -> None:
    change_tensors(checkpoint, older_names)
    change_tensors(checkpoint, change)
    with pytest.raises(UserError, match=message) as caught:
        load_backbone("ast", weights=str(checkpoint))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kept", [0, 10, 0.5, 0.99])
def test_truncated_file_is_refused(checkpoint: Path, kept: float) -> None:
    file = checkpoint / "model.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[: kept if isinstance(kept, int) else int(len(content) * kept)])
    with pytest.raises(UserError, match="cannot be loaded"):
        load_backbone("ast", weights=str(checkpoint))


def test_pickled_checkpoint_loads_unless_truncated(checkpoint: Path) -> None:
    torch.save(load_file(checkpoint / "model.safetensors"), checkpoint / "pytorch_model.bin")
    (checkpoint / "model.safetensors").unlink()
    load_backbone("ast", weights=str(checkpoint))
    content = (checkpoint / "pytorch_model.bin").read_bytes()
    (checkpoint / "pytorch_model.bin").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="cannot be loaded"):
        load_backbone("ast", weights=str(checkpoint))


def test_directory_without_an_ast_checkpoint_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    config = checkpoint / "config.json"
    content = json.loads(config.read_text())
    config.write_text(json.dumps({**content, "hidden_size": "wide"}))
    with pytest.raises(UserError, match=r"config.json .*hidden_size"):
        load_backbone("ast", weights=str(checkpoint))
    config.write_text(json.dumps({**content, "model_type": "wav2vec2"}))
    with pytest.raises(UserError, match=r"'wav2vec2' .*'audio-spectrogram-transformer'"):
        load_backbone("ast", weights=str(checkpoint))
    config.write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        load_backbone("ast", weights=str(checkpoint))
    config.unlink()
    with pytest.raises(UserError, match=r"has no config\.json"):
        load_backbone("ast", weights=str(checkpoint))
    with pytest.raises(UserError, match="no such file or directory"):
        load_backbone("ast", weights=str(tmp_path / "nowhere"))


def test_loading_prints_nothing(checkpoint: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load_backbone("ast", weights=str(checkpoint))
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""
