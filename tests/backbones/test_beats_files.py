"""Official BEATs files load, and others are refused in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from sousaphone.backbones.beats_encoder import BeatsConfig
from sousaphone.errors import UserError
from sousaphone.model import load_backbone
from tests.backbones.beats_nets import GATED, load, official, perturbed, written


def test_nano_backbone_round_trips_through_the_official_format(tmp_path: Path) -> None:
    nano = load_backbone("beats", "nano", seed=3)
    path = written(tmp_path / "nano.pt", official(nano.net))
    loaded = load_backbone("beats", "base", str(path))
    wave = torch.rand(2, 20_000) - 0.5
    assert torch.equal(loaded(wave), nano(wave))
    assert {k: p.requires_grad for k, p in loaded.named_parameters()} == dict.fromkeys(
        dict(nano.named_parameters()), True
    )


def test_predictor_is_dropped_and_half_precision_is_converted(tmp_path: Path) -> None:
    net = perturbed(**GATED)
    plain = load(written(tmp_path / "plain.pt", official(net)))
    tuned = official(net, **{"predictor.weight": torch.rand(5, 32), "predictor.bias": torch.rand(5)})
    tuned["cfg"] |= {"finetuned_model": True, "predictor_class": 5}
    wave = torch.rand(1, 8_000)
    assert torch.equal(load(written(tmp_path / "tuned.pt", tuned), "beats-ft")(wave), plain(wave))
    half = {"cfg": official(net)["cfg"], "model": {k: v.half() for k, v in net.state_dict().items()}}
    assert all(p.dtype == torch.float32 for p in load(written(tmp_path / "half.pt", half)).parameters())


def test_position_table_may_be_stored_once(tmp_path: Path) -> None:
    net = perturbed(**GATED)
    content = official(net)
    for i in (1, 2):
        del content["model"][f"encoder.layers.{i}.self_attn.relative_attention_bias.weight"]
    wave = torch.rand(1, 8_000)
    assert torch.equal(
        load(written(tmp_path / "one.pt", content))(wave), load(written(tmp_path / "all.pt", official(net)))(wave)
    )


def edited(change: str) -> Any:
    """An official file with one thing wrong."""
    content = official(perturbed(**GATED))
    model, cfg = content["model"], content["cfg"]
    match change:
        case "bare state dict":
            return model
        case "missing":
            del model["encoder.layers.1.fc1.bias"]
        case "unknown":
            model["quantize.embedding"] = torch.zeros(2)
        case "another shape":
            model["layer_norm.weight"] = torch.zeros(3)
        case "tables":
            name = "encoder.layers.2.self_attn.relative_attention_bias.weight"
            model[name] = model[name] + 1
        case "no tensors":
            content["model"] = {"a": 1}
        case _:
            key, _, value = change.partition("=")
            cfg[key] = {"True": True, "None": None}.get(value, int(value) if value.lstrip("-").isdigit() else value)
    return content


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("bare state dict", "'cfg' and 'model'"),
        ("no tensors", "not a dict of tensors"),
        ("missing", r"missing: encoder\.layers\.1\.fc1\.bias"),
        ("unknown", r"unknown: quantize\.embedding"),
        ("another shape", r"of another shape: layer_norm\.weight"),
        ("tables", "BEATs shares one"),
        ("layer_norm_first=True", None),
        ("activation_fn=mish", "'mish'.* gelu"),
        ("encoder_attention_heads=5", "not a multiple of encoder_attention_heads=5"),
        ("encoder_layers=None", "encoder_layers=None is not of type int"),
        ("encoder_layers=True", "encoder_layers=True is not of type int"),
        ("input_patch_size=-1", "input_patch_size=-1 is not from 1"),
        ("input_patch_size=256", "above the 128 mel bands"),
        ("dropout=2", "dropout=2 is not from 0.0 to"),
        ("max_distance=4", "max_distance=4"),
    ],
)
def test_mismatched_file_is_refused_in_one_line(change: str, message: str | None, tmp_path: Path) -> None:
    path = written(tmp_path / "beats.pt", edited(change))
    if message is None:
        load(path)  # the same tensors in pre-norm order are valid
        return
    with pytest.raises(UserError, match=message) as caught:
        load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_pre_norm_with_deep_norm_is_refused() -> None:
    with pytest.raises(UserError, match="layer_norm_first and deep_norm"):
        BeatsConfig(input_patch_size=16, deep_norm=True, layer_norm_first=True)


@pytest.mark.parametrize("content", [b"", b"RIFF....WAVE", b"PK\x03\x04 broken", b"\x80\x02}q\x00.", b"{}\n"])
def test_file_not_written_by_torch_is_refused_in_one_line(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "beats.pt"
    path.write_bytes(content)
    with pytest.raises(UserError, match="'cfg' and 'model'") as caught:
        load(path)
    assert "\n" not in str(caught.value)


def test_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a file"):
        load(tmp_path)


def test_fine_tuned_and_pretrained_files_are_not_interchangeable(tmp_path: Path) -> None:
    net = perturbed(**GATED)
    pretrained = written(tmp_path / "pretrained.pt", official(net))
    marked = official(net)
    marked["cfg"]["finetuned_model"] = True
    tuned = [
        written(tmp_path / "marked.pt", marked),
        written(tmp_path / "predictor.pt", official(net, **{"predictor.weight": torch.rand(5, 32)})),
    ]
    with pytest.raises(UserError, match=r"not fine-tuned .*--models beats "):
        load(pretrained, "beats-ft")
    for path in tuned:
        with pytest.raises(UserError, match=f"fine-tuned .*--models beats-ft --weights beats-ft={path}"):
            load(path)
        wave = torch.rand(1, 8_000)
        assert torch.equal(load(path, "beats-ft")(wave), load(pretrained)(wave))
