"""What every backbone is: waveform in, embedding out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Self

from torch import Tensor, nn

from sousaphone.backbones.backbone_spec import BackboneSpec
from sousaphone.backbones.frontend_spec import FrontendOverrides
from sousaphone.backbones.frontends import Frontend


class Backbone(nn.Module, ABC):
    """A front end and a pretrained encoder."""

    spec: BackboneSpec  # what the program knows of it
    frontend: Frontend  # waveform to features
    width: int  # D, the size of the embedding
    mismatches: tuple[str, ...] = ()  # in what the features differ from its weights' training, as was asked for

    def is_fresh(self, name: str) -> bool:
        """Whether a parameter or buffer is of a layer that no checkpoint holds."""
        return any(name.startswith(f"{module}.") for module in self.spec.fresh)

    @classmethod
    @abstractmethod
    def create(cls, spec: BackboneSpec, scale: str, clip_seconds: float | None, overrides: FrontendOverrides) -> Self:
        """A randomly initialised one of the given scale. `clip_seconds`: the longest clip it will hear, where the
        architecture can save work by knowing it; None is the length it was pretrained with."""

    @classmethod
    @abstractmethod
    def load(cls, spec: BackboneSpec, path: Path, clip_seconds: float | None, overrides: FrontendOverrides) -> Self:
        """One with the weights of an official file; its size comes from the file.

        Raises:
            UserError: the file is not of this backbone's format, which the message lists, or was trained on other
                features, which `overrides` does not ask for.
        """

    @abstractmethod
    def encode(self, features: Tensor) -> Tensor:
        """Features, as the front end gives them, to tokens [B, L, D]: pretrained layers only."""

    def pool(self, tokens: Tensor) -> Tensor:
        """Tokens [B, L, D] to the embedding [B, D]: their mean, unless the architecture says otherwise."""
        return tokens.mean(1)

    def forward(self, wave: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Waveform [B, T] in [-1, 1] at the spec's rate to the embedding [B, D]."""
        return self.pool(self.encode(self.frontend(wave, lengths)))
