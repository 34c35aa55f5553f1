"""HTS-AT (Chen et al., arXiv 2202.00874), the audio encoder of CLAP (Wu et al., arXiv 2211.06687), from transformers.

The encoder folds a spectrogram of fixed length into a square; no parameter depends on the size of the square. A clip
longer than the configured window gets the next larger square.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from torch import Tensor
from transformers import ClapAudioConfig, ClapAudioModel

from sousaphone.backbones.backbone import Backbone
from sousaphone.backbones.backbone_spec import BackboneSpec
from sousaphone.backbones.frontend_spec import FrontendContract, FrontendOverrides
from sousaphone.backbones.frontends import ClapFrontend
from sousaphone.backbones.state_dicts import refuse_other_features
from sousaphone.backbones.transformers_files import load_config, load_extractor, load_pretrained
from sousaphone.errors import UserError

_PRETRAINED_SECONDS = 10.0  # CLAP's input; shorter clips are repeated up to this length
_LEVEL_DB, _SPREAD_DB = -40.0, 20.0  # mean and standard deviation of features of recorded drums
# Unused parts of a CLAP checkpoint: text tower, projections into the shared space, temperatures.
_DROPPED = ("text_model.", "text_projection.", "audio_projection.", "logit_scale")


class HtsatBackbone(Backbone):
    """CLAP's audio encoder up to its last norm. The embedding is the mean of its tokens, which CLAP then projects."""

    def __init__(self, spec: BackboneSpec, model: ClapAudioModel) -> None:
        super().__init__()
        self.spec, self.net, self.width = spec, model.audio_encoder, model.audio_encoder.num_features
        self.frontend = ClapFrontend(spec.frontend, _seconds(model.config, spec.frontend))
        # The input norm keeps the type of the features; only its output is cast.
        self.net.patch_embed.proj.register_forward_pre_hook(lambda conv, inputs: (inputs[0].to(conv.weight.dtype),))

    @classmethod
    def create(cls, spec: BackboneSpec, scale: str, clip_seconds: float | None, overrides: FrontendOverrides) -> Self:
        config = ClapAudioConfig(**spec.scales[scale])
        _widen(config, clip_seconds, spec.frontend)
        model = ClapAudioModel(config)
        # transformers initialises the input norm with mean 0 and variance 1; frozen, it would not scale decibels.
        model.audio_encoder.batch_norm.running_mean.fill_(_LEVEL_DB)
        model.audio_encoder.batch_norm.running_var.fill_(_SPREAD_DB**2)
        return cls(spec, model)

    @classmethod
    def load(cls, spec: BackboneSpec, path: Path, clip_seconds: float | None, overrides: FrontendOverrides) -> Self:
        config = load_config(ClapAudioConfig, path)
        if config.enable_fusion:
            unfused = spec.weights and spec.weights.hub
            raise UserError(f"{path} is a fused CLAP (enable_fusion); give an unfused one: {unfused}")
        if config.num_mel_bins != spec.frontend.mels:
            raise UserError(f"{path} needs {config.num_mel_bins} mel bands; the front end has {spec.frontend.mels}")
        mismatches = refuse_other_features(spec, path, _features(load_extractor(path)), overrides)
        _widen(config, clip_seconds, spec.frontend)
        # Tensor names have this prefix in a full CLAP, but not in an audio model.
        model = load_pretrained(ClapAudioModel, path, config, dropped=_DROPPED, renamed={r"^audio_model\.": ""})
        backbone = cls(spec, model)
        backbone.mismatches = mismatches
        return backbone

    def encode(self, features: Tensor) -> Tensor:
        """[B, 1, F, 64] to tokens [B, L, D], normalised; L is frequency times time, time fastest."""
        grid: Tensor = self.net(features).last_hidden_state  # [B, D, frequency, time]
        return grid.flatten(2).transpose(1, 2)


def _features(extractor: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a ClapFeatureExtractor as fields of FrontendContract."""
    stated = {
        "sample_rate": "sampling_rate",
        "mels": "feature_size",
        "window": "fft_window_size",
        "hop": "hop_length",
        "low_hz": "frequency_min",
        "high_hz": "frequency_max",
    }
    found = {field: extractor[key] for field, key in stated.items() if key in extractor}
    if extractor.get("top_db") is not None:
        found["log"] = f"dB within {extractor['top_db']} of the loudest"
    # The extractor uses HTK mels for fused models and Slaney mels with rand_trunc.
    if extractor.get("truncation", "rand_trunc") != "rand_trunc":
        found["log"] = f"dB of HTK mels (truncation {extractor['truncation']!r})"
    return found


def _seconds(config: Any, contract: FrontendContract) -> float:
    """Length of the longest clip whose frames fit the square, at most that of pretraining."""
    frames = config.spec_size * (config.spec_size // config.num_mel_bins)
    return min(_PRETRAINED_SECONDS, (frames - 1) * contract.hop / contract.sample_rate)


def _widen(config: Any, clip_seconds: float | None, contract: FrontendContract) -> None:
    """Enlarge the square in steps of one mel spectrogram until it holds the clip.

    Sides of 128, 192 and 256 hold 2.55, 5.75 and 10 s.
    """
    wanted = min(clip_seconds or 0.0, _PRETRAINED_SECONDS)
    while _seconds(config, contract) < wanted:
        config.spec_size += config.num_mel_bins
