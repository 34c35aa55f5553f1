"""EfficientAT: MobileNetV3 on mel spectrograms (Schmid et al., arXiv 2211.04772; fschmid56/EfficientAT).

Loads the official `mn` files of any width, from mn01 to mn40. The official classifier is dropped; in its place a fresh
attention pooling starts as the official mean over positions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from sousaphone.backbones.backbone import Backbone
from sousaphone.backbones.spec import BackboneSpec
from sousaphone.backbones.weight_files import read_torch_file, refuse_misfits
from sousaphone.errors import UserError
from sousaphone.frontends import EfficientAtFrontend


@dataclass(frozen=True)
class Stage:
    """One inverted residual of MobileNetV3-Large (Howard et al., arXiv 1905.02244, table 1), at width 1."""

    kernel: int
    expanded: int
    out: int
    squeeze: bool
    activation: type[nn.Module]
    stride: int = 1


_STEM = 16
_STAGES = (
    Stage(3, 16, 16, False, nn.ReLU),
    Stage(3, 64, 24, False, nn.ReLU, stride=2),
    Stage(3, 72, 24, False, nn.ReLU),
    Stage(5, 72, 40, True, nn.ReLU, stride=2),
    Stage(5, 120, 40, True, nn.ReLU),
    Stage(5, 120, 40, True, nn.ReLU),
    Stage(3, 240, 80, False, nn.Hardswish, stride=2),
    Stage(3, 200, 80, False, nn.Hardswish),
    Stage(3, 184, 80, False, nn.Hardswish),
    Stage(3, 184, 80, False, nn.Hardswish),
    Stage(3, 480, 112, True, nn.Hardswish),
    Stage(3, 672, 112, True, nn.Hardswish),
    Stage(5, 672, 160, True, nn.Hardswish, stride=2),
    Stage(5, 960, 160, True, nn.Hardswish),
    Stage(5, 960, 160, True, nn.Hardswish),
)


@dataclass(frozen=True)
class Channels:
    """How wide each layer is: the stem, and (expanded, out) of each block."""

    stem: int
    blocks: tuple[tuple[int, int], ...]

    @classmethod
    def of_width(cls, width: float) -> Self:
        """MobileNetV3's channels times `width`, rounded as the authors round them (mn10 is width 1)."""
        blocks = tuple((divisible(stage.expanded * width), divisible(stage.out * width)) for stage in _STAGES)
        return cls(divisible(_STEM * width), blocks)

    @classmethod
    def of_state(cls, state: Mapping[str, Tensor]) -> Self:
        """Those of an official state dict, whatever its width.

        Raises:
            KeyError: it holds no stem or lacks the last convolution of a block.
        """
        blocks = []
        for number in range(1, len(_STAGES) + 1):
            # The projection, [out, expanded, 1, 1], is the last of a block's at most four parts.
            names = [f"features.{number}.block.{part}.0.weight" for part in (3, 2, 1)]
            project = state[next((name for name in names if name in state), names[0])]
            blocks.append((project.shape[1], project.shape[0]))
        return cls(state["features.0.0.weight"].shape[0], tuple(blocks))


def divisible(channels: float, by: int = 8) -> int:
    """The nearest multiple of `by`, at least one, yet never more than a tenth below (MobileNet's rule)."""
    rounded = max(by, int(channels + by / 2) // by * by)
    return rounded + by if rounded < 0.9 * channels else rounded


class ConvNorm(nn.Module):
    """Convolution without bias, batch norm, activation; stride 1 keeps the size."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        activation: type[nn.Module] = nn.Identity,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(outputs, eps=0.001, momentum=0.01)
        self.activation = activation()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.activation(self.norm(self.conv(x)))
        return y


class SqueezeExcitation(nn.Module):
    """Scales each channel by a gate drawn from the means of all (Hu et al., arXiv 1709.01507)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = divisible(channels // 4)
        self.fc1 = nn.Linear(channels, squeezed)
        self.fc2 = nn.Linear(squeezed, channels)

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(self.fc2(torch.relu(self.fc1(x.mean((2, 3))))))  # [B, C]
        return x * gate[:, :, None, None]


class InvertedResidual(nn.Module):
    """Expand, filter each channel, squeeze and excite, project; added to its input where the shapes agree."""

    def __init__(self, stage: Stage, inputs: int, expanded: int, outputs: int) -> None:
        super().__init__()
        act = stage.activation
        self.expand = ConvNorm(inputs, expanded, activation=act) if expanded != inputs else None
        self.depthwise = ConvNorm(expanded, expanded, stage.kernel, stage.stride, groups=expanded, activation=act)
        self.se = SqueezeExcitation(expanded) if stage.squeeze else None
        self.project = ConvNorm(expanded, outputs)
        self.residual = stage.stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.expand is None else self.expand(x)
        y = self.depthwise(y)
        y = y if self.se is None else self.se(y)
        y = self.project(y)
        return x + y if self.residual else y


class MobileNet(nn.Module):
    """The official `features`: [B, 1, M, F] to [B, D, M / 32, F / 32], rounded up, D six times the last block's width.

    Args:
        channels: how wide each layer is.
    """

    def __init__(self, channels: Channels) -> None:
        super().__init__()
        self.stem = ConvNorm(1, channels.stem, kernel=3, stride=2, activation=nn.Hardswish)
        self.blocks = nn.Sequential()
        inputs = channels.stem
        for stage, (expanded, outputs) in zip(_STAGES, channels.blocks, strict=True):
            self.blocks.append(InvertedResidual(stage, inputs, expanded, outputs))
            inputs = outputs
        self.width = 6 * inputs
        self.last = ConvNorm(inputs, self.width, activation=nn.Hardswish)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.01)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(self.blocks(self.stem(x)))
        return y

    def official_keys(self) -> dict[str, str]:
        """Each key of this state dict with its name in the official files."""
        prefixes = dict(self._official_prefixes())
        keys = {}
        for key in self.state_dict():
            prefix = next(prefix for prefix in prefixes if key.startswith(prefix + "."))
            keys[key] = prefixes[prefix] + key.removeprefix(prefix)
        return keys

    def _official_prefixes(self) -> Iterator[tuple[str, str]]:
        layers = {"stem": "features.0", "last": f"features.{len(self.blocks) + 1}"}
        for number, block in enumerate(self.blocks):
            parts = [part for part in ("expand", "depthwise", "se", "project") if getattr(block, part) is not None]
            for place, part in enumerate(parts):
                official = f"features.{number + 1}.block.{place}"
                if part == "se":
                    yield f"blocks.{number}.se", f"{official}.conc_se_layers.0"
                else:
                    layers[f"blocks.{number}.{part}"] = official
        for layer, official in layers.items():
            yield f"{layer}.conv", f"{official}.0"
            yield f"{layer}.norm", f"{official}.1"


class EfficientAtBackbone(Backbone):
    """MobileNet and a fresh attention over positions: one score a position, softmax, weighted mean."""

    def __init__(self, spec: BackboneSpec, net: MobileNet, hop: int = 320, bins: int = 128) -> None:
        super().__init__()
        self.spec = spec
        self.frontend = EfficientAtFrontend(hop, bins)
        self.net = net
        self.width = net.width
        score = nn.Linear(128, 1)
        # Equal scores: before training this is the mean over positions that the checkpoint knows.
        nn.init.zeros_(score.weight)
        nn.init.zeros_(score.bias)
        self.attention_pool = nn.Sequential(nn.Linear(self.width, 128), nn.Tanh(), score)

    @classmethod
    def create(cls, spec: BackboneSpec, scale: str, clip_seconds: float | None) -> Self:
        size: Mapping[str, Any] = spec.scales[scale]
        backbone = cls(spec, MobileNet(Channels.of_width(size["width"])), size["hop"], size["bins"])
        calibrate(backbone)
        return backbone

    @classmethod
    def load(cls, spec: BackboneSpec, path: Path, clip_seconds: float | None) -> Self:
        return cls(spec, load_official(path))

    def encode(self, features: Tensor) -> Tensor:
        """[B, M, F] to tokens [B, L, D], L = ceil(M / 32) * ceil(F / 32), the times of a band together."""
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
    """The network of an official file: a bare state dict, as the releases of fschmid56/EfficientAT hold them.

    Raises:
        UserError: the file is no such thing, or tensors are missing, unknown or of another shape.
    """
    remedy = "give an official EfficientAT file, such as mn10_as_mAP_471.pt"
    state = read_torch_file(path, remedy)
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path} holds no bare state dict; {remedy}")
    state = {key: value for key, value in state.items() if not key.startswith("classifier.")}
    try:
        net = MobileNet(Channels.of_state(state))
    except (KeyError, IndexError):
        raise UserError(f"{path} holds no MobileNet of the mn family; {remedy}") from None
    keys, own = net.official_keys(), net.state_dict()
    shapes = {official: own[key].shape for key, official in keys.items()}
    misfits = {
        "missing": [key for key in shapes if key not in state],
        "unknown": [key for key in state if key not in shapes],
        "of another shape": [key for key in shapes if key in state and state[key].shape != shapes[key]],
    }
    refuse_misfits(f"{path} does not fit EfficientAT (mn)", misfits, remedy)
    net.load_state_dict({key: state[official] for key, official in keys.items()})
    return net
