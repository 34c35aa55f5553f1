"""MobileNetV3 as EfficientAT builds it for mel spectrograms, at any width (Schmid et al., arXiv 2211.04772).

Source of layers, names and initialisation: models/mn/model.py of https://github.com/fschmid56/EfficientAT.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Stage:
    """One inverted residual of MobileNetV3-Large (Howard et al., arXiv 1905.02244, table 1), at width 1."""

    kernel: int
    expanded: int
    out: int
    squeeze: bool
    activation: type[nn.Module]
    stride: int = 1


STRIDES = (2, 2, 2, 2)  # of the stages with stride 2
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
    """Channels of the stem, and (expanded, out) of each block."""

    stem: int
    blocks: tuple[tuple[int, int], ...]

    @classmethod
    def of_width(cls, width: float) -> Self:
        """MobileNetV3's channels times `width`, with the authors' rounding (mn10 has width 1)."""
        blocks = tuple((divisible(stage.expanded * width), divisible(stage.out * width)) for stage in _STAGES)
        return cls(divisible(16 * width), blocks)

    @classmethod
    def of_state(cls, state: Mapping[str, Tensor]) -> Self:
        """Channels of an official state dict; raises KeyError if the stem or a block's last convolution is missing."""
        blocks = []
        for number in range(1, len(_STAGES) + 1):
            # The projection, [out, expanded, 1, 1], is the last of up to four parts of a block.
            names = [f"features.{number}.block.{part}.0.weight" for part in (3, 2, 1)]
            project = state[next((name for name in names if name in state), names[0])]
            blocks.append((project.shape[1], project.shape[0]))
        return cls(state["features.0.0.weight"].shape[0], tuple(blocks))


def divisible(channels: float) -> int:
    """The nearest multiple of 8, at least 8 and at least nine tenths of `channels` (MobileNet's rule)."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


class ConvNorm(nn.Sequential):
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


class SqueezeExcitation(nn.Module):
    """Scale each channel by a gate computed from the means of all channels (Hu et al., arXiv 1709.01507)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = divisible(channels // 4)
        self.fc1 = nn.Linear(channels, squeezed)
        self.fc2 = nn.Linear(squeezed, channels)

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(self.fc2(torch.relu(self.fc1(x.mean((2, 3))))))  # [B, C]
        return x * gate[:, :, None, None]


class InvertedResidual(nn.Module):
    """Expansion, depthwise convolution, squeeze and excitation, projection; residual if the shapes agree."""

    def __init__(self, stage: Stage, inputs: int, expanded: int, outputs: int) -> None:
        super().__init__()
        act = stage.activation
        self.expand = ConvNorm(inputs, expanded, activation=act) if expanded != inputs else None
        self.depthwise = ConvNorm(expanded, expanded, stage.kernel, stage.stride, groups=expanded, activation=act)
        self.se = SqueezeExcitation(expanded) if stage.squeeze else None
        self.project = ConvNorm(expanded, outputs)
        self.residual = stage.stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = self.depthwise(x if self.expand is None else self.expand(x))
        y = self.project(y if self.se is None else self.se(y))
        return x + y if self.residual else y


class MobileNet(nn.Sequential):
    """The official `features`: [B, 1, M, F] to [B, D, M / 32, F / 32], rounded up. D is 6 times the last block's width.

    `strides` are those of the four stages that halve the resolution in MobileNetV3.
    """

    def __init__(self, channels: Channels, strides: Sequence[int] = STRIDES) -> None:
        super().__init__()
        halving = iter(strides)
        self.stem = ConvNorm(1, channels.stem, kernel=3, stride=2, activation=nn.Hardswish)
        self.blocks = nn.Sequential()
        inputs = channels.stem
        for stage, (expanded, outputs) in zip(_STAGES, channels.blocks, strict=True):
            if stage.stride == 2:
                stage = replace(stage, stride=next(halving))
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

    def official_keys(self) -> dict[str, str]:
        """The official name of each key of this state dict."""
        keys = {}
        for key in self.state_dict():
            layer, *path = key.split(".")
            if layer == "blocks":
                number, part, *path = path
                parts = [each for each, _ in self.blocks[int(number)].named_children()]
                official = f"features.{int(number) + 1}.block.{parts.index(part)}"
            else:
                official = f"features.{0 if layer == 'stem' else len(self.blocks) + 1}"
            operation = {"conv": "0", "norm": "1"}.get(path[0], f"conc_se_layers.0.{path[0]}")
            keys[key] = ".".join([official, operation, *path[1:]])
        return keys
