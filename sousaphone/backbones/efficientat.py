"""EfficientAT (Schmid et al., arXiv 2211.04772; fschmid56/EfficientAT) and its official file format.

Loads the official `mn` files of any width from mn01 to mn40. A new attention pooling, which starts as the official mean
over positions, replaces the official classifier. Hop, mel bands, strides and training data are only in the names of the
released files: `mn10_as_hop_15_mAP_463.pt` has width 1.0 and was trained on AudioSet with a hop of 15 ms.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from sousaphone.backbones.backbone import Backbone
from sousaphone.backbones.backbone_spec import BackboneSpec
from sousaphone.backbones.efficientat_net import STRIDES, Channels, MobileNet
from sousaphone.backbones.frontend_spec import FrontendOverrides
from sousaphone.backbones.frontends import EfficientAtFrontend
from sousaphone.backbones.state_dicts import misfits, read_torch_file, refuse_misfits
from sousaphone.errors import UserError

LONGEST_HOP_MS = 100
_NAME = re.compile(r"mn(?P<width>\d\d)_(?P<data>as|im)(?=[_.(])(?P<rest>.*)")


class EfficientAtBackbone(Backbone):
    """MobileNet and a new attention pooling: one score per position, softmax, weighted mean."""

    def __init__(self, spec: BackboneSpec, net: MobileNet, hop: int, bins: int) -> None:
        super().__init__()
        self.spec, self.net, self.width = spec, net, net.width
        self.frontend = EfficientAtFrontend(dataclasses.replace(spec.frontend, hop=hop, mels=bins))
        score = nn.Linear(128, 1)
        # Equal scores: before training the pooling is the mean over positions, as in the checkpoint.
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
        """[B, M, F] to tokens [B, L, D], L = ceil(M / 32) * ceil(F / 32), time fastest."""
        features = features.to(self.net.stem.conv.weight.dtype)
        return self.net(features.unsqueeze(1)).flatten(2).transpose(1, 2)

    def pool(self, tokens: Tensor) -> Tensor:
        attention = self.attention_pool(tokens).softmax(1)  # [B, L, 1]
        return (tokens * attention).sum(1)


def calibrate(backbone: EfficientAtBackbone) -> None:
    """Set the batch-norm statistics of a random network to those of drum-like noise, in place.

    With the default statistics (mean 0, variance 1) the signal would vanish within a few blocks of a frozen network.
    Computed in float64, so that the float32 result is the same on every machine.
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
        norm.momentum = 0.1  # the authors' 0.01 is too slow for training from scratch on a few hundred clips


def load_official(path: Path) -> MobileNet:
    """Load an official file, a bare state dict whose file name gives the strides. Raises a UserError if it is of
    another kind, or tensors are missing, unknown or of another shape."""
    remedy = "give an official EfficientAT file, such as mn10_as_mAP_471.pt"
    name = read_name(path.name)
    if name.images:
        raise UserError(f"{path} was trained on images only, according to its name; {remedy}")
    state = read_torch_file(path, remedy)
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path} is not a bare state dict; {remedy}")
    state = {key: value for key, value in state.items() if not key.startswith("classifier.")}
    try:
        channels = Channels.of_state(state)
    except (KeyError, IndexError):
        # A tensor that determines the width is missing: use the released width with the fewest misfits.
        released = (Channels.of_width(width) for width in (0.1, 0.2, 0.4, 0.5, 1.0, 2.0, 3.0, 4.0))
        channels = min(released, key=lambda channels: sum(map(len, _misfits(state, channels).values())))
    names = _misfits(state, channels)
    if sum(map(len, names.values())) > len(state) / 2:
        raise UserError(f"{path} is not a MobileNet of the mn family; {remedy}")
    refuse_misfits(f"{path} does not fit EfficientAT (mn)", names, remedy)
    if name.width is not None and channels != Channels.of_width(name.width):
        raise UserError(
            f"{path} holds a network of another width than mn{round(10 * name.width):02d} in its name; give the right "
            "file, or rename this one"
        )
    net = MobileNet(channels, name.strides)
    net.load_state_dict({key: state[official] for key, official in net.official_keys().items()})
    return net


def _misfits(state: Mapping[str, Tensor], channels: Channels) -> dict[str, set[str]]:
    """Compare an official state dict with a network of these channels; see `misfits`."""
    with torch.device("meta"):  # names and shapes only
        net = MobileNet(channels)
    own = net.state_dict()
    return misfits({official: own[key] for key, official in net.official_keys().items()}, state)


@dataclass(frozen=True)
class OfficialName:
    width: float | None = None  # factor of MobileNetV3's channels; None for other names
    images: bool = False  # trained on images only (ImageNet)
    hop: int = 320  # samples between frames
    bins: int = 128  # mel bands
    strides: tuple[int, ...] = STRIDES  # of the four stages with stride 2 by default


def read_name(name: str) -> OfficialName:
    """Parse a file name; unknown names give the defaults. Raises a UserError if the hop is out of range."""
    match = _NAME.match(name)
    if match is None:
        return OfficialName()
    hop, bins, strides = (
        re.search(rf"_{part}(?=[_.])", match["rest"]) for part in (r"hop_(\d+)", r"mels_(\d+)", "s([12]{4})")
    )
    if hop and not 1 <= int(hop[1]) <= LONGEST_HOP_MS:
        raise UserError(
            f"{name}: hop {hop[1]} in the name is not from 1 to {LONGEST_HOP_MS} ms; rename the file as its authors "
            "do, such as mn10_as_hop_15_mAP_463.pt for 15 ms"
        )
    return OfficialName(
        width=int(match["width"]) / 10,
        images=match["data"] == "im",
        hop=int(hop[1]) * 32 if hop else 320,
        bins=int(bins[1]) if bins else 128,
        strides=tuple(map(int, strides[1])) if strides else STRIDES,
    )
