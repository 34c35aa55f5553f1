"""The nano weights in the package are whole, small, and taken by nobody but their backbone."""

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
from sousaphone.weights import record_of, resolve

SHIPPED = [name for name in DEFAULT_SWEEP if nano.shipped(name)]


@pytest.mark.parametrize("name", DEFAULT_SWEEP)
def test_what_is_saved_loads_again_to_half_precision(name: str, tmp_path: Path) -> None:
    drawn = load_backbone(name, "nano", seed=5, clip_seconds=2.5)
    path = tmp_path / "any.safetensors"
    files.save(drawn, path, {"steps": 1})
    loaded = load_backbone(name, "nano", str(path), seed=6, clip_seconds=2.5)
    fresh = tuple(f"{module}." for module in drawn.spec.fresh)
    for key, value in drawn.state_dict().items():
        if not (fresh and key.startswith(fresh)):
            assert torch.equal(value.half().float(), loaded.state_dict()[key].float()), key


def test_a_missing_an_unknown_and_a_misshapen_tensor_are_named(tmp_path: Path) -> None:
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
    with pytest.raises(UserError, match="nano weights of ast, not of htsat"):
        load_backbone("htsat", "nano", str(path))


@pytest.mark.parametrize("name", DEFAULT_SWEEP)
def test_auto_takes_what_is_shipped_at_nano_and_random_elsewhere(name: str) -> None:
    path = nano.shipped(name)
    assert resolve(name, "nano", "auto") == ("random" if path is None else str(path))
    assert resolve(name, "nano", "random") == "random"


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_file_is_in_half_precision_and_is_not_random(name: str) -> None:
    path = nano.shipped(name)
    assert path is not None
    state = load_file(path)
    assert {value.dtype for value in state.values() if value.is_floating_point()} == {torch.float16}
    loaded, drawn = (load_backbone(name, "nano", word, clip_seconds=2.5).state_dict() for word in (str(path), "random"))
    assert all(value.isfinite().all() for value in loaded.values())
    assert any(not torch.allclose(loaded[key].float(), drawn[key].float(), atol=1e-2) for key in state)


def test_all_shipped_files_together_are_under_twelve_megabytes_and_have_a_card() -> None:
    directory = nano.DIRECTORY
    assert sum(path.stat().st_size for path in directory.glob("*.safetensors")) < 12_000_000
    assert {path.stem for path in directory.glob("*.safetensors")} <= REGISTRY.keys()
    card = (directory / "CARD.md").read_text()
    for word in ("Objective", "Data", "steps", "seed", "Licence"):
        assert word in card


@pytest.mark.parametrize("name", SHIPPED)
def test_a_record_says_that_the_weights_came_with_the_package(name: str) -> None:
    path = nano.shipped(name)
    assert path is not None
    told = record_of(load_backbone(name, "nano", str(path)), str(path))
    assert told["origin"] == "shipped nano weights"
    assert told["licence"] == "MIT"
    assert not told["published"]
