"""Small BEATs networks and files."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch

from sousaphone.backbones.beats import Beats, BeatsBackbone
from sousaphone.backbones.beats_encoder import BeatsConfig
from sousaphone.backbones.frontend_spec import FrontendOverrides
from sousaphone.backbones.registry import REGISTRY

SMALL: dict[str, Any] = {
    "input_patch_size": 16,
    "embed_dim": 24,
    "encoder_layers": 3,
    "encoder_embed_dim": 32,
    "encoder_ffn_embed_dim": 48,
    "encoder_attention_heads": 4,
    "conv_pos": 8,
    "conv_pos_groups": 4,
    "num_buckets": 16,
    "max_distance": 20,
}
RELATIVE = {"relative_position_embedding": True}
GATED = {**RELATIVE, "gru_rel_pos": True}


def perturbed(**cfg: Any) -> Beats:
    """A small network whose tensors have no special values, such as zeros or ones, which could hide an error."""
    torch.manual_seed(0)
    net = Beats(BeatsConfig(**{**SMALL, **cfg}))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return net.eval()


def official(net: Beats, **extra: Any) -> dict[str, Any]:
    return {"cfg": dataclasses.asdict(net.config), "model": {**net.state_dict(), **extra}}


def written(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def load(path: Path, name: str = "beats") -> BeatsBackbone:
    return BeatsBackbone.load(REGISTRY[name], path, None, FrontendOverrides()).eval()
