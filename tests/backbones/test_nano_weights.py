"""Nano weights: the file format, and the files shipped with the package."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sousaphone.backbones import nano
from sousaphone.backbones.nano import files
from sousaphone.backbones.registry import DEFAULT_SWEEP, REGISTRY
from sousaphone.errors import UserError
from sousaphone.model import load_backbone
from sousaphone.weights import record_of, resolve_all

SHIPPED = [name for name in DEFAULT_SWEEP if nano.shipped(name)]


@pytest.mark.parametrize("name", DEFAULT_SWEEP)
def test_saved_weights_load_in_half_precision(name: str, tmp_path: Path) -> None:
    drawn = load_backbone(name, "nano", seed=5, clip_seconds=2.5)
    path = tmp_path / "any.safetensors"
    files.save(drawn, path, {"steps": 1})
    loaded = load_backbone(name, "nano", str(path), seed=6, clip_seconds=2.5)
    fresh = tuple(f"{module}." for module in drawn.spec.fresh)
    for key, value in drawn.state_dict().items():
        if not (fresh and key.startswith(fresh)):
            assert torch.equal(value.half().float(), loaded.state_dict()[key].float()), key


def test_error_names_missing_unknown_and_misshapen_tensors(tmp_path: Path) -> None:
    path, damaged = tmp_path / "whole.safetensors", tmp_path / "damaged.safetensors"
    files.save(load_backbone("ast", "nano"), path, {})
    state = load_file(path)
    missing, misshapen, *_ = state
    state["extra"] = state.pop(missing)
    state[misshapen] = torch.zeros(1, dtype=torch.float16)
    save_file(state, damaged, {"format": "sousaphone-nano", "model": "ast"})
    with pytest.raises(UserError) as caught:
        load_backbone("ast", "nano", str(damaged))
    for word in (f"missing: {missing}", "unknown: extra", f"of another shape: {misshapen}"):
        assert word in str(caught.value)


def test_weights_of_another_backbone_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "any.safetensors"
    files.save(load_backbone("ast", "nano"), path, {})
    with pytest.raises(UserError, match=r"ast.*htsat"):
        load_backbone("htsat", "nano", str(path))


@pytest.mark.parametrize("name", DEFAULT_SWEEP)
def test_auto_resolves_to_shipped_weights_or_random(name: str) -> None:
    path = nano.shipped(name)
    assert resolve_all({name: "auto"}, "nano") == {name: "random" if path is None else str(path)}
    assert resolve_all({name: "random"}, "nano") == {name: "random"}


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_weights_are_finite_half_precision_and_not_random(name: str) -> None:
    path = nano.shipped(name)
    assert path is not None
    state = load_file(path)
    assert {value.dtype for value in state.values() if value.is_floating_point()} == {torch.float16}
    loaded, drawn = (
        load_backbone(name, "nano", str(source), clip_seconds=2.5).state_dict() for source in (str(path), "random")
    )
    assert all(value.isfinite().all() for value in loaded.values())
    assert any(not torch.allclose(loaded[key].float(), drawn[key].float(), atol=1e-2) for key in state)


def test_shipped_weights_are_small_and_documented() -> None:
    directory = nano.DIRECTORY
    assert sum(path.stat().st_size for path in directory.glob("*.safetensors")) < 12_000_000
    assert {path.stem for path in directory.glob("*.safetensors")} <= REGISTRY.keys()
    card = (directory / "CARD.md").read_text()
    for word in ("Objective", "Data", "steps", "seed", "Licence"):
        assert word in card


@pytest.mark.parametrize("name", SHIPPED)
def test_record_of_shipped_weights(name: str) -> None:
    path = nano.shipped(name)
    assert path is not None
    record = record_of(load_backbone(name, "nano", str(path)), str(path))
    assert record["origin"] == "shipped nano weights"
    assert record["licence"] == "MIT"
    assert not record["published"]
