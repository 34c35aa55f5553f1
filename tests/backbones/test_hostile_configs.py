"""The configuration of a transformers checkpoint that somebody sent: one line, no code, bounded memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import ASTConfig, ASTModel, ClapAudioConfig, ClapAudioModel

from sousaphone.errors import UserError
from sousaphone.model import load_backbone
from tests.backbones.test_ast import SMALL
from tests.backbones.test_htsat import AUDIO

MODELS: dict[str, Any] = {"ast": ASTModel(ASTConfig(**SMALL)), "htsat": ClapAudioModel(ClapAudioConfig(**AUDIO))}


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The name of a backbone whose checkpoint is in `tmp_path`."""
    MODELS[request.param].save_pretrained(tmp_path)
    return str(request.param)


def change(directory: Path, **values: Any) -> None:
    path = directory / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def refusal(model: str, directory: Path) -> str | None:
    """Load the checkpoint; return the error, which is one line with the path, or None."""
    try:
        load_backbone(model, "base", str(directory))
    except UserError as error:
        text = str(error)
    else:
        return None
    assert "\n" not in text
    assert str(directory) in text
    return text


@pytest.mark.parametrize(
    "values",
    [
        {"attn_implementation": "flash_attention_9"},
        {"_attn_implementation": "kernels-community/../../x"},
        {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}},
        {"quantization_config": {"quant_method": "gptq", "bits": "x"}},
        {"auto_map": {"AutoConfig": "code.Config", "AutoModel": "code.Model"}, "trust_remote_code": True},
        {"transformers_weights": "../../elsewhere.safetensors", "_name_or_path": "/dev/zero"},
        {"dtype": "float128", "torch_dtype": [1], "num_labels": 10**12, "id2label": 3, "pruned_heads": "x"},
    ],
    ids=lambda values: next(iter(values)),
)
def test_settings_beyond_the_architecture_have_no_effect(model: str, tmp_path: Path, values: dict[str, Any]) -> None:
    marker = tmp_path / "executed"
    (tmp_path / "code.py").write_text(f"open({str(marker)!r}, 'w')\nclass Config: pass\nclass Model: pass")
    before = load_backbone(model, "base", str(tmp_path)).state_dict()
    change(tmp_path, **values)
    after = load_backbone(model, "base", str(tmp_path)).state_dict()
    assert all(
        torch.equal(after[name], tensor) and after[name].dtype == tensor.dtype for name, tensor in before.items()
    )
    assert not marker.exists()


@pytest.mark.parametrize(
    "value",
    [0, -1, 10**9, 10**30, 1.5, True, None, "x", "", [], [0], [10**9] * 4, {"a": 1}, float("nan"), [[1]]],
    ids=repr,
)
def test_wrong_value_of_any_setting_is_one_line_or_has_no_effect(model: str, tmp_path: Path, value: Any) -> None:
    original = (tmp_path / "config.json").read_text()
    settings = [name for name in json.loads(original) if name in type(MODELS[model].config).__annotations__]
    assert len(settings) > 10
    refused = 0
    for name in settings:
        change(tmp_path, **{name: value})
        refused += refusal(model, tmp_path) is not None
        (tmp_path / "config.json").write_text(original)
    assert refused > 5


@pytest.mark.parametrize("content", ["", "[]", "3", "{", '{"model_type": []}', "[" * 100_000, "\xff", "null"])
@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
def test_file_that_is_no_configuration_is_one_line(model: str, tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content, encoding="latin-1")
    if (name, content) == ("preprocessor_config.json", '{"model_type": []}'):
        assert refusal(model, tmp_path) is None
    else:
        assert refusal(model, tmp_path) is not None


def test_huge_configuration_is_not_read(model: str, tmp_path: Path) -> None:
    with (tmp_path / "config.json").open("r+b") as file:
        file.truncate(2**36)
    assert "larger" in str(refusal(model, tmp_path))


@pytest.mark.parametrize("value", [[], {}, "x", None, 10**400, float("inf"), True], ids=lambda value: f"{value!r:.9}")
def test_wrong_feature_is_one_line(model: str, tmp_path: Path, value: Any) -> None:
    names = {
        "ast": ["sampling_rate", "num_mel_bins", "mean", "std"],
        "htsat": ["sampling_rate", "top_db", "truncation"],
    }
    for name in names[model]:
        (tmp_path / "preprocessor_config.json").write_text(json.dumps({name: value}))
        refusal(model, tmp_path)
