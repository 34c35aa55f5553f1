"""BEATs (Chen et al., arXiv 2212.09058): a Transformer over patches of a spectrogram, and its official file format."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
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

# What a file may hold beside the encoder: the classifier of fine-tuned files, the mask of pretraining.
DROPPED = ("predictor.", "mask_emb")
TABLE = "self_attn.relative_attention_bias.weight"


class Beats(nn.Module):
    """Patches, their projection to the encoder's width, and the encoder; its state dict is the official one."""

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
        """[B, F, M] to [B, L, D]: for each stretch of time its patches from low to high; a last, incomplete patch
        of frames is left out."""
        patches = self.patch_embedding(features.to(self.patch_embedding.weight.dtype).unsqueeze(1))  # [B, E, F', M']
        x = self.layer_norm(patches.flatten(2).transpose(1, 2))  # [B, L, E]
        if self.post_extract_proj is not None:
            x = self.post_extract_proj(x)
        return self.encoder(self.dropout_input(x))


class BeatsBackbone(Backbone):
    """BEATs from self-supervised pretraining alone; the embedding is the mean over its tokens."""

    frontend: BeatsFrontend
    fine_tuned = False

    def __init__(self, spec: BackboneSpec, net: Beats) -> None:
        super().__init__()
        self.spec = spec
        self.net = net
        self.width = net.config.encoder_embed_dim
        self.frontend = BeatsFrontend(spec.frontend)

    @classmethod
    def create(cls, spec: BackboneSpec, scale: str, clip_seconds: float | None, overrides: FrontendOverrides) -> Self:
        return cls(spec, Beats(BeatsConfig(**spec.scales[scale])))

    @classmethod
    def load(cls, spec: BackboneSpec, path: Path, clip_seconds: float | None, overrides: FrontendOverrides) -> Self:
        cfg, state = read_official(path)
        found = is_fine_tuned(cfg, state)
        if found != cls.fine_tuned:
            name, other = ("beats-ft", "a fine-tuned") if found else ("beats", "a pretrained, not fine-tuned")
            raise UserError(
                f"{path} holds {other} BEATs, which is another arm than {spec.name}: give it as {name}, with "
                f"--models {name} --weights {name}={path}"
            )
        try:
            config = BeatsConfig.from_official(cfg)
        except UserError as error:
            raise UserError(f"{path} cannot be loaded: {error}") from error
        # Without memory or random numbers of its own: every tensor comes from the file.
        with torch.device("meta"):
            net = Beats(config)
        net.load_state_dict(_fitting(state, net, path), assign=True)
        return cls(spec, net)

    def encode(self, features: Tensor) -> Tensor:
        """[B, F, 128] to tokens [B, L, D]; less than one patch of frames is filled up with silence."""
        missing = self.net.config.input_patch_size - features.shape[1]
        if missing > 0:
            features = F.pad(features, (0, 0, 0, missing), value=self.frontend.silence)
        return self.net(features)


class FineTunedBeatsBackbone(BeatsBackbone):
    """BEATs that went on to learn AudioSet's labels; its predictor is dropped, and a fresh head takes its place. The
    embedding is what that predictor took the mean of."""

    fine_tuned = True


def is_fine_tuned(cfg: Mapping[str, Any], state: Mapping[str, Tensor]) -> bool:
    """Whether an official file says that it is, or holds a predictor."""
    return bool(cfg.get("finetuned_model")) or any(key.startswith("predictor.") for key in state)


def read_official(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The `cfg` and the `model` (in float32) of an official file.

    Raises:
        UserError: no such file, or one of another format.
    """
    wanted = "give an official BEATs file, a dict of 'cfg' and 'model'"
    content = read_torch_file(path, wanted)
    if not isinstance(content, dict) or not all(isinstance(content.get(key), dict) for key in ("cfg", "model")):
        keys = f" of {', '.join(map(repr, list(content)[:3]))}, ..." if isinstance(content, dict) else ""
        raise UserError(f"{path} holds a {type(content).__name__}{keys}; {wanted}")
    model = content["model"]
    if not all(isinstance(key, str) and isinstance(value, Tensor) for key, value in model.items()):
        raise UserError(f"{path} holds a 'model' that is no dict of tensors; {wanted}")
    return content["cfg"], {key: value.float() for key, value in model.items()}


def _fitting(state: dict[str, Tensor], net: Beats, path: Path) -> dict[str, Tensor]:
    """The tensors of `state` that `net` takes; a UserError where one is missing, unknown or of another shape."""
    wanted = net.state_dict()
    state = {key: value for key, value in state.items() if not key.startswith(DROPPED)}
    # One table serves all layers: a file may hold it once or in each.
    tables = {key: state[key] for key in wanted if key.endswith(TABLE) and key in state}
    for key in wanted:
        if key.endswith(TABLE) and tables:
            state.setdefault(key, next(iter(tables.values())))
    refuse_misfits(f"{path} does not fit its own cfg", misfits(wanted, state))
    if any(not torch.equal(a, b) for a, b in itertools.pairwise(tables.values())):
        raise UserError(f"{path} holds different tables of relative positions in its layers; BEATs shares one")
    return state
