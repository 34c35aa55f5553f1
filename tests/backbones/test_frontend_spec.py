"""Features equal those that the weights were trained on, or the difference is accepted and recorded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    ASTConfig,
    ASTFeatureExtractor,
    ASTModel,
    ClapAudioConfig,
    ClapAudioModel,
    ClapFeatureExtractor,
)

from sousaphone.backbones.frontend_spec import FrontendOverrides
from sousaphone.backbones.registry import REGISTRY
from sousaphone.config import TrainConfig
from sousaphone.errors import UserError
from sousaphone.model import build_model, load_backbone
from tests.backbones.test_ast import SMALL
from tests.backbones.test_htsat import AUDIO


@pytest.mark.parametrize("name", REGISTRY)
def test_front_end_matches_the_registry(name: str) -> None:
    frontend = load_backbone(name, "base").frontend
    assert frontend.contract == REGISTRY[name].frontend
    assert frontend(torch.rand(1, 2 * frontend.sample_rate)).shape[frontend.mel_dim] == REGISTRY[name].frontend.mels


def test_contract_is_described_in_one_line() -> None:
    words = {name: spec.frontend.in_words() for name, spec in REGISTRY.items()}
    assert words["ast"] == "16 kHz, 128 mels from 20 to 8000 Hz, 25 ms every 10 ms, (ln + 4.2677393) / 9.1379948"
    assert words["beats"].endswith("(ln - 15.41663) / 13.11164")
    assert words["htsat"].endswith("from 50 to 14000 Hz, 21.33 ms every 10 ms, dB")


def checkpoint(name: str, path: Path, **changes: Any) -> Path:
    """A small checkpoint with the settings of its feature extractor, as written by transformers."""
    if name == "ast":
        ASTModel(ASTConfig(**SMALL)).save_pretrained(path)
        ASTFeatureExtractor().save_pretrained(path)
    else:
        ClapAudioModel(ClapAudioConfig(**AUDIO)).save_pretrained(path)
        ClapFeatureExtractor(frequency_min=50, truncation="rand_trunc").save_pretrained(path)
    settings = path / "preprocessor_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), **changes}))
    return path


@pytest.mark.parametrize("name", ["ast", "htsat"])
@pytest.mark.parametrize("place", ["preprocessor_config.json", "processor_config.json", "nowhere"])
def test_official_extractor_settings_are_accepted(name: str, place: str, tmp_path: Path) -> None:
    path = checkpoint(name, tmp_path / name)
    settings = path / "preprocessor_config.json"
    if place == "processor_config.json":
        (path / place).write_text(json.dumps({"feature_extractor": json.loads(settings.read_text())}))
    if place != "preprocessor_config.json":
        settings.unlink()
    assert load_backbone(name, "base", str(path)).mismatches == ()


MISMATCHES = [
    ("ast", {"sampling_rate": 8_000}, "sample_rate 8000 for 16000"),
    ("ast", {"num_mel_bins": 64}, "mels 64 for 128"),
    ("ast", {"mean": -6.845978}, "mean -6.845978 for -4.2677393"),
    ("ast", {"std": 5.5654526}, "scale 11.1309052 for 9.1379948"),
    ("ast", {"do_normalize": False}, "mean 0.0 for -4.2677393, scale 1.0 for 9.1379948"),
    ("ast", {"mean": "loud"}, "mean loud for -4.2677393"),
    ("htsat", {"frequency_min": 0}, "low_hz 0 for 50"),
    ("htsat", {"hop_length": 320}, "hop 320 for 480"),
    ("htsat", {"fft_window_size": 2048}, "window 2048 for 1024"),
    ("htsat", {"truncation": "fusion"}, "log dB of HTK mels (truncation 'fusion') for dB"),
    ("htsat", {"top_db": 80}, "log dB within 80 of the loudest for dB"),
]


@pytest.mark.parametrize(("name", "change", "difference"), MISMATCHES)
def test_other_features_are_refused_unless_accepted(
    name: str, change: dict[str, Any], difference: str, tmp_path: Path
) -> None:
    path = checkpoint(name, tmp_path / name, **change)
    with pytest.raises(UserError, match=f"--set frontend_mismatch={name}") as error:
        load_backbone(name, "base", str(path))
    assert REGISTRY[name].title in str(error.value)
    assert difference in str(error.value)
    assert "\n" not in str(error.value)
    accepted = load_backbone(name, "base", str(path), overrides=FrontendOverrides(mismatch=(name,)))
    assert ", ".join(accepted.mismatches) == difference
    with pytest.raises(UserError):
        load_backbone(name, "base", str(path), overrides=FrontendOverrides(mismatch=("beats",)))


def test_accepted_mismatch_is_in_the_record(tmp_path: Path) -> None:
    path = checkpoint("ast", tmp_path / "ast", mean=-6.0)
    config = TrainConfig(model="ast", weights=str(path), frontend_mismatch="ast, htsat")
    record = build_model(config, 40).weights_record(str(path))
    assert record["frontend_mismatch"] == ["mean -6.0 for -4.2677393"]
    assert record["frontend"]["mean"] == -4.2677393
    with pytest.raises(UserError, match=r"frontend_mismatch=wavlm.* ast, "):
        build_model(TrainConfig(frontend_mismatch="wavlm"), 40)


@pytest.mark.parametrize("content", ["{", "[]"])
def test_damaged_extractor_settings_are_refused(content: str, tmp_path: Path) -> None:
    path = checkpoint("ast", tmp_path / "ast")
    (path / "preprocessor_config.json").write_text(content)
    with pytest.raises(UserError, match=r"preprocessor_config\.json"):
        load_backbone("ast", "base", str(path))
