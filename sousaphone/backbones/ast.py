"""AST, the Audio Spectrogram Transformer (Gong et al., arXiv 2104.01778), built by transformers.

In addition to transformers it supports other clip lengths, by the authors' rule for the position embeddings.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import ASTConfig, ASTModel

from sousaphone.backbones.backbone import Backbone
from sousaphone.backbones.backbone_spec import BackboneSpec
from sousaphone.backbones.frontend_spec import FrontendOverrides
from sousaphone.backbones.frontends import AstFrontend
from sousaphone.backbones.state_dicts import refuse_other_features
from sousaphone.backbones.transformer import add_norm, attend, to_heads
from sousaphone.backbones.transformers_files import load_config, load_extractor, load_pretrained


class AstBackbone(Backbone):
    """AST. The embedding is the mean of the class and distillation tokens, as in pretraining."""

    def __init__(self, spec: BackboneSpec, net: ASTModel, clip_seconds: float | None) -> None:
        super().__init__()
        config: Any = net.config
        self.spec, self.net, self.width = spec, net, config.hidden_size
        frames = config.max_length if clip_seconds is None else _frames(clip_seconds, spec, config)
        self.frontend = AstFrontend(spec.frontend, frames)
        # Patches along mel and time in the checkpoint's position embeddings.
        self.position_grid = (
            (config.num_mel_bins - config.patch_size) // config.frequency_stride + 1,
            (config.max_length - config.patch_size) // config.time_stride + 1,
        )

    @classmethod
    def create(cls, spec: BackboneSpec, scale: str, clip_seconds: float | None, overrides: FrontendOverrides) -> Self:
        net = ASTModel(ASTConfig(**spec.scales[scale]))
        # transformers initialises these with zeros; frozen, the model would ignore the order of patches. The standard
        # deviation is the authors'.
        for tokens in (net.embeddings.cls_token, net.embeddings.distillation_token, net.embeddings.position_embeddings):
            nn.init.trunc_normal_(tokens, std=0.02)
        return cls(spec, net, clip_seconds)

    @classmethod
    def load(cls, spec: BackboneSpec, path: Path, clip_seconds: float | None, overrides: FrontendOverrides) -> Self:
        config = load_config(ASTConfig, path)
        stated = {"mels": config.num_mel_bins, **_features(load_extractor(path))}
        mismatches = refuse_other_features(spec, path, stated, overrides)
        net = load_pretrained(ASTModel, path, config, dropped=("classifier.",))
        backbone = cls(spec, net, clip_seconds)
        backbone.mismatches = mismatches
        return backbone

    def encode(self, features: Tensor) -> Tensor:
        """[B, F, 128] to tokens [B, 2 + mel patches * time patches, D], normalised. The first two are the class and
        distillation tokens."""
        return self._encode(features, pooled_only=False)

    def embed(self, features: Tensor) -> Tensor:
        return self.pool(self._encode(features, pooled_only=True).float())

    def _encode(self, features: Tensor, pooled_only: bool) -> Tensor:
        """Compute all tokens, or only the two that `pool` averages: in the last layer the others are needed as keys and
        values alone, which saves 40 % of the operations at nano."""
        embeddings = self.net.embeddings
        project = embeddings.patch_embeddings.projection
        patches = project(features.to(project.weight.dtype).transpose(1, 2).unsqueeze(1))  # [B, D, M', F']
        x = patches.flatten(2).transpose(1, 2)  # [B, L, D]
        first = torch.cat((embeddings.cls_token, embeddings.distillation_token), 1).expand(x.shape[0], -1, -1)
        x = torch.cat((first, x), 1) + fit_positions(
            embeddings.position_embeddings, self.position_grid, (patches.shape[2], patches.shape[3])
        )
        x = embeddings.dropout(x)
        layers: list[Any] = list(self.net.layers)
        # Each residual sum is followed by a norm; add_norm fuses the two.
        following = [layer.layernorm_before for layer in layers[1:]] + [self.net.layernorm]
        normed = layers[0].layernorm_before(x)
        for layer, norm in zip(layers, following, strict=True):
            queries = normed
            if pooled_only and layer is layers[-1]:
                x, queries = x[:, :2].contiguous(), normed[:, :2].contiguous()
            x, normed = add_norm(x, layer.dropout(_attend(layer.attention, queries, normed)), layer.layernorm_after)
            x, normed = add_norm(x, layer.dropout(layer.mlp(normed)), norm)
        return normed

    def pool(self, tokens: Tensor) -> Tensor:
        return (tokens[:, 0] + tokens[:, 1]) / 2


def _attend(attention: Any, queries: Tensor, x: Tensor) -> Tensor:
    """Attention of queries [B, Q, D] to x [B, L, D] as transformers' ASTAttention computes it: [B, Q, D]."""
    heads, others = attention.num_attention_heads, (attention.k_proj, attention.v_proj)
    if queries is x:
        q, k, v = to_heads(x, heads, attention.q_proj, *others)
    else:
        (q,), (k, v) = to_heads(queries, heads, attention.q_proj), to_heads(x, heads, *others)
    dropout = attention.attention_dropout if attention.training else 0.0
    x = attend(q, k, v, dropout, attention.scaling)
    y: Tensor = attention.o_proj(x.transpose(1, 2).flatten(2))
    return y


def _features(extractor: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of an ASTFeatureExtractor as fields of FrontendContract."""
    stated = {"sample_rate": "sampling_rate", "mels": "num_mel_bins", "mean": "mean", "scale": "std"}
    found = {field: extractor[key] for field, key in stated.items() if key in extractor}
    if not extractor.get("do_normalize", True):
        found |= {"mean": 0.0, "scale": 1.0}
    elif isinstance(found.get("scale"), int | float):
        found["scale"] *= 2
    return found


def fit_positions(positions: Tensor, grid: tuple[int, int], wanted: tuple[int, int]) -> Tensor:
    """Fit position embeddings [1, 2 + M' * F', D] to another grid of patches.

    Like the authors' ASTModel, it cuts positions from the centre along an axis with enough of them and interpolates
    (bilinear) along others. The first two belong to the class and distillation tokens.
    """
    if grid == wanted:
        return positions
    first, rest = positions[:, :2], positions[:, 2:]
    x = rest.transpose(1, 2).unflatten(2, grid)  # [1, D, M', F']
    for axis, (have, want) in enumerate(zip(grid, wanted, strict=True), start=2):
        if want <= have:
            x = x.narrow(axis, have // 2 - want // 2 if want < have else 0, want)
        else:
            size = (want, x.shape[3]) if axis == 2 else (x.shape[2], want)
            x = F.interpolate(x, size=size, mode="bilinear", align_corners=False)
    return torch.cat((first, x.flatten(2).transpose(1, 2)), 1)


def _frames(clip_seconds: float, spec: BackboneSpec, config: Any) -> int:
    """Number of frames of a clip, rounded up to whole patches (5 s: 498, so 512)."""
    window, hop = (samples / spec.sample_rate for samples in (spec.frontend.window, spec.frontend.hop))
    frames = math.floor((clip_seconds - window) / hop + 1e-6) + 1
    return config.patch_size * math.ceil(frames / config.patch_size)
