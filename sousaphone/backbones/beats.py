"""BEATs (Chen et al., arXiv 2212.09058), a Transformer over spectrogram patches, and its official file format."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sousaphone.backbones.backbone import Backbone
from sousaphone.backbones.backbone_spec import BackboneSpec
from sousaphone.backbones.beats_encoder import BeatsConfig, Encoder
from sousaphone.backbones.frontend_spec import FrontendOverrides
from sousaphone.backbones.frontends import BeatsFrontend
from sousaphone.backbones.state_dicts import misfits, read_torch_file, refuse_misfits
from sousaphone.errors import UserError

_DROPPED = ("predictor.", "mask_emb")  # classifier of fine-tuned files, mask of pretraining
_TABLE = "self_attn.relative_attention_bias.weight"


class Beats(nn.Module):
    """Patch embedding, projection to the encoder's width, and encoder, with the official state dict."""

    def __init__(self, config: BeatsConfig) -> None:
        super().__init__()
        patch, width = config.input_patch_size, config.encoder_embed_dim
        self.config = config
        self.patch_embedding = nn.Conv2d(1, config.embed_dim, patch, stride=patch, bias=config.conv_bias)
        self.layer_norm = nn.LayerNorm(config.embed_dim)
        self.post_extract_proj = nn.Linear(config.embed_dim, width) if config.embed_dim != width else None
        self.dropout_input = nn.Dropout(config.dropout_input)
        self.encoder = Encoder(config)

    def forward(self, features: Tensor) -> Tensor:
        """[B, F, M] to [B, L, D]; patches in order of time, then from low to high; incomplete ones are dropped."""
        patches = self.patch_embedding(features.to(self.patch_embedding.weight.dtype).unsqueeze(1))  # [B, E, F', M']
        x = self.layer_norm(patches.flatten(2).transpose(1, 2))  # [B, L, E]
        if self.post_extract_proj is not None:
            x = self.post_extract_proj(x)
        return self.encoder(self.dropout_input(x))


class BeatsBackbone(Backbone):
    """BEATs after self-supervised pretraining, or also fine-tuned on AudioSet's labels (`beats-ft`).

    The embedding is the mean of its tokens, which is also the input of the predictor of fine-tuned files.
    """

    frontend: BeatsFrontend

    def __init__(self, spec: BackboneSpec, net: Beats) -> None:
        super().__init__()
        self.spec, self.net, self.width = spec, net, net.config.encoder_embed_dim
        self.frontend = BeatsFrontend(spec.frontend)

    @classmethod
    def create(cls, spec: BackboneSpec, scale: str, clip_seconds: float | None, overrides: FrontendOverrides) -> Self:
        return cls(spec, Beats(BeatsConfig(**spec.scales[scale])))

    @classmethod
    def load(cls, spec: BackboneSpec, path: Path, clip_seconds: float | None, overrides: FrontendOverrides) -> Self:
        cfg, state = _read_official(path)
        fine_tuned = cfg.get("finetuned_model") or any(key.startswith("predictor.") for key in state)
        name, other = ("beats-ft", "a fine-tuned") if fine_tuned else ("beats", "a pretrained, not fine-tuned")
        if spec.name != name:
            raise UserError(
                f"{path} holds {other} BEATs, which is another arm than {spec.name}; give it as {name}, with "
                f"--models {name} --weights {name}={path}"
            )
        try:
            config = BeatsConfig.from_official(cfg)
        except UserError as error:
            raise UserError(f"{path} cannot be loaded: {error}") from error
        with torch.device("meta"):  # every tensor comes from the file
            net = Beats(config)
        net.load_state_dict(_fitting(state, net, path), assign=True)
        return cls(spec, net)

    def encode(self, features: Tensor) -> Tensor:
        """[B, F, 128] to tokens [B, L, D]; input shorter than one patch is padded with silence."""
        missing = self.net.config.input_patch_size - features.shape[1]
        if missing > 0:
            features = F.pad(features, (0, 0, 0, missing), value=self.frontend.silence)
        return self.net(features)


def _read_official(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read `cfg` and `model` (as float32) from an official file; raises UserError for other files."""
    wanted = "give an official BEATs file, a dict of 'cfg' and 'model'"
    content = read_torch_file(path, wanted)
    if not isinstance(content, dict) or not all(isinstance(content.get(key), dict) for key in ("cfg", "model")):
        keys = f" of {', '.join(map(repr, list(content)[:3]))}, ..." if isinstance(content, dict) else ""
        raise UserError(f"{path} holds a {type(content).__name__}{keys}; {wanted}")
    model = content["model"]
    if not all(isinstance(key, str) and isinstance(value, Tensor) for key, value in model.items()):
        raise UserError(f"{path} holds a 'model' that is not a dict of tensors; {wanted}")
    return content["cfg"], {key: value.float() for key, value in model.items()}


def _fitting(state: dict[str, Tensor], net: Beats, path: Path) -> dict[str, Tensor]:
    """Select the tensors of `net` from `state`; raises UserError for missing, unknown or misshapen ones."""
    wanted = net.state_dict()
    state = {key: value for key, value in state.items() if not key.startswith(_DROPPED)}
    # All layers share one table, which a file may contain once or for each layer.
    places = [key for key in wanted if key.endswith(_TABLE)]
    tables = [state[key] for key in places if key in state]
    if tables:
        state = {**dict.fromkeys(places, tables[0]), **state}
    refuse_misfits(f"{path} does not fit its own cfg", misfits(wanted, state))
    if any(not torch.equal(table, tables[0]) for table in tables[1:]):
        raise UserError(f"{path} holds different tables of relative positions in its layers; BEATs shares one")
    return state
