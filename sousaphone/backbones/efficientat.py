"""EfficientAT (Schmid et al., arXiv 2211.04772; fschmid56/EfficientAT): its network, and its official file format.

Loads the official `mn` files of any width, from mn01 to mn40. The official classifier is dropped; in its place a fresh
attention pooling starts as the official mean over positions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from sousaphone.backbones.backbone import Backbone
from sousaphone.backbones.backbone_spec import BackboneSpec
from sousaphone.backbones.efficientat_filenames import read_name
from sousaphone.backbones.efficientat_net import Channels, MobileNet
from sousaphone.backbones.frontend_spec import FrontendOverrides
from sousaphone.backbones.frontends import EfficientAtFrontend
from sousaphone.backbones.state_dicts import misfits, read_torch_file, refuse_misfits
from sousaphone.errors import UserError


class EfficientAtBackbone(Backbone):
    """MobileNet and a fresh attention over positions: one score a position, softmax, weighted mean."""

    def __init__(self, spec: BackboneSpec, net: MobileNet, hop: int, bins: int) -> None:
        super().__init__()
        self.spec = spec
        self.frontend = EfficientAtFrontend(dataclasses.replace(spec.frontend, hop=hop, mels=bins))
        self.net = net
        self.width = net.width
        score = nn.Linear(128, 1)
        # Equal scores: before training this is the mean over positions that the checkpoint knows.
        nn.init.zeros_(score.weight)
        nn.init.zeros_(score.bias)
        self.attention_pool = nn.Sequential(nn.Linear(self.width, 128), nn.Tanh(), score)

    @classmethod
    def create(cls, spec: BackboneSpec, scale: str, clip_seconds: float | None, overrides: FrontendOverrides) -> Self:
        size: Mapping[str, Any] = spec.scales[scale]
        hop = overrides.efficientat_hop or size["hop"]
        backbone = cls(spec, MobileNet(Channels.of_width(size["width"])), hop, size["bins"])
        calibrate(backbone)
        return backbone

    @classmethod
    def load(cls, spec: BackboneSpec, path: Path, clip_seconds: float | None, overrides: FrontendOverrides) -> Self:
        trained = read_name(path.name)
        hop = overrides.efficientat_hop or trained.hop
        backbone = cls(spec, load_official(path), hop, trained.bins)
        if hop != trained.hop:
            backbone.mismatches = (f"hop {trained.hop} for {hop}",)
        return backbone

    def encode(self, features: Tensor) -> Tensor:
        """[B, M, F] to tokens [B, L, D], L = ceil(M / 32) * ceil(F / 32), the times of a band together."""
        features = features.to(self.net.stem.conv.weight.dtype)
        return self.net(features.unsqueeze(1)).flatten(2).transpose(1, 2)

    def pool(self, tokens: Tensor) -> Tensor:
        attention = self.attention_pool(tokens).softmax(1)  # [B, L, 1]
        return (tokens * attention).sum(1)


def calibrate(backbone: EfficientAtBackbone) -> None:
    """Give a randomly drawn network the batch-norm statistics of drum-like noise, in place.

    Statistics that never saw sound (mean 0, variance 1) let the signal die out within a few blocks, and frozen they
    would stay so. In float64, so that every machine rounds to the same float32 base.
    """
    rate = backbone.frontend.sample_rate
    since_stroke = torch.arange(rate) % torch.randint(rate // 20, rate // 4, (4, 1))  # [B, T]
    wave = (torch.rand(4, rate) - 0.5) * torch.exp(-since_stroke / (0.02 * rate))
    norms = [module for module in backbone.net.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        backbone.double().train().encode(backbone.frontend(wave.double()))
    backbone.float().eval()
    for norm in norms:
        # The authors' 0.01 is for millions of clips; trained from scratch on a few hundred the weights outrun it.
        norm.momentum = 0.1


def load_official(path: Path) -> MobileNet:
    """The network of an official file: a bare state dict, as the releases of fschmid56/EfficientAT hold them, its
    strides as the file's name says.

    Raises:
        UserError: the file is no such thing, or tensors are missing, unknown or of another shape.
    """
    remedy = "give an official EfficientAT file, such as mn10_as_mAP_471.pt"
    name = read_name(path.name)
    if name.images:
        raise UserError(f"{path} was trained on images alone, as its name says; {remedy}")
    state = read_torch_file(path, remedy)
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path} holds no bare state dict; {remedy}")
    state = {key: value for key, value in state.items() if not key.startswith("classifier.")}
    try:
        channels = Channels.of_state(state)
    except (KeyError, IndexError):
        # A tensor that tells its own is missing: of the released widths the one that fits best.
        released = (Channels.of_width(width) for width in (0.1, 0.2, 0.4, 0.5, 1.0, 2.0, 3.0, 4.0))
        channels = min(released, key=lambda channels: sum(map(len, _misfits(state, channels).values())))
    amiss = _misfits(state, channels)
    if sum(map(len, amiss.values())) > len(state) / 2:
        raise UserError(f"{path} holds no MobileNet of the mn family; {remedy}")
    refuse_misfits(f"{path} does not fit EfficientAT (mn)", amiss, remedy)
    if name.width is not None and channels != Channels.of_width(name.width):
        raise UserError(
            f"{path} holds a network of another width than its name says, mn{round(10 * name.width):02d}; give the "
            "right file, or rename this one"
        )
    net = MobileNet(channels, name.strides)
    keys = net.official_keys()
    net.load_state_dict({key: state[official] for key, official in keys.items()})
    return net


def _misfits(state: Mapping[str, Tensor], channels: Channels) -> dict[str, set[str]]:
    """What keeps an official state dict from being that of a network of these channels."""
    with torch.device("meta"):  # names and shapes alone
        net = MobileNet(channels)
    own = net.state_dict()
    return misfits({official: own[key] for key, official in net.official_keys().items()}, state)
