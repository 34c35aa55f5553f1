"""HTS-AT (Chen et al., arXiv 2202.00874), the audio encoder of CLAP (Wu et al., arXiv 2211.06687), from transformers.

Ours is the window: the encoder folds a spectrogram of fixed length into a square, and none of its parameters
depends on how large that square is. A clip longer than the configured window gets the next larger square.
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

# CLAP never hears more; a shorter clip is repeated up to this, however little of it is asked for.
_PRETRAINED_SECONDS = 10.0
# Mean and deviation of the features of recorded drums.
_LEVEL_DB, _SPREAD_DB = -40.0, 20.0
# The rest of a CLAP checkpoint: its text tower, the projections into the space both share, their temperatures.
_DROPPED = ("text_model.", "text_projection.", "audio_projection.", "logit_scale")


class HtsatBackbone(Backbone):
    """CLAP's audio encoder up to its last norm; the mean of its tokens is the embedding that CLAP then projects."""

    def __init__(self, spec: BackboneSpec, model: ClapAudioModel) -> None:
        super().__init__()
        self.spec = spec
        self.net = model.audio_encoder
        self.width = self.net.num_features
        self.frontend = ClapFrontend(spec.frontend, _seconds(model.config, spec.frontend))
        # Decibels are normalised in the type that they come in.
        self.net.patch_embed.proj.register_forward_pre_hook(lambda conv, inputs: (inputs[0].to(conv.weight.dtype),))

    @classmethod
    def create(cls, spec: BackboneSpec, scale: str, clip_seconds: float | None, overrides: FrontendOverrides) -> Self:
        config = ClapAudioConfig(**spec.scales[scale])
        _widen(config, clip_seconds, spec.frontend)
        model = ClapAudioModel(config)
        # transformers starts the input norm at mean 0 and variance 1, which frozen would leave decibels unscaled.
        model.audio_encoder.batch_norm.running_mean.fill_(_LEVEL_DB)
        model.audio_encoder.batch_norm.running_var.fill_(_SPREAD_DB**2)
        return cls(spec, model)

    @classmethod
    def load(cls, spec: BackboneSpec, path: Path, clip_seconds: float | None, overrides: FrontendOverrides) -> Self:
        config = load_config(ClapAudioConfig, path)
        if config.enable_fusion:
            raise UserError(f"{path} is a fused CLAP (enable_fusion); give an unfused one: {spec.weights[0].hub}")
        if config.num_mel_bins != spec.frontend.mels:
            raise UserError(f"{path} wants {config.num_mel_bins} mel bands; the front end has {spec.frontend.mels}")
        mismatches = refuse_other_features(spec, path, _features(load_extractor(path)), overrides)
        _widen(config, clip_seconds, spec.frontend)
        # A whole CLAP names its audio tower, a bare audio model does not.
        model = load_pretrained(ClapAudioModel, path, config, dropped=_DROPPED, renamed={r"^audio_model\.": ""})
        backbone = cls(spec, model)
        backbone.mismatches = mismatches
        return backbone

    def encode(self, features: Tensor) -> Tensor:
        """[B, 1, F, 64] to tokens [B, L, D], normalised; L is frequency times time, time running fastest."""
        grid: Tensor = self.net(features).last_hidden_state  # [B, D, frequency, time]
        return grid.flatten(2).transpose(1, 2)


def _features(extractor: Mapping[str, Any]) -> dict[str, Any]:
    """What the settings of a ClapFeatureExtractor say of its features, as fields of FrontendContract."""
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
    # The extractor takes its mel bank from how it cuts: HTK's for the fused model, Slaney's for ours.
    if extractor.get("truncation", "rand_trunc") != "rand_trunc":
        found["log"] = f"dB of HTK mels (truncation {extractor['truncation']!r})"
    return found


def _seconds(config: Any, contract: FrontendContract) -> float:
    """The longest clip whose frames fit the square, at most what CLAP was trained with."""
    frames = config.spec_size * (config.spec_size // config.num_mel_bins)
    return min(_PRETRAINED_SECONDS, (frames - 1) * contract.hop / contract.sample_rate)


def _widen(config: Any, clip_seconds: float | None, contract: FrontendContract) -> None:
    """Enlarge the square by whole mel spectrograms until it holds the clip: sides of 128, 192 and 256 hold 2.55,
    5.75 and 10 s."""
    wanted = min(clip_seconds or 0.0, _PRETRAINED_SECONDS)
    while _seconds(config, contract) < wanted:
        config.spec_size += config.num_mel_bins
