"""Base class of the backbones: waveform to embedding."""

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

    spec: BackboneSpec
    frontend: Frontend  # waveform to features
    width: int  # D, the size of the embedding
    mismatches: tuple[str, ...] = ()  # accepted differences from the features its weights were trained on

    def is_fresh(self, name: str) -> bool:
        """Whether a parameter or buffer belongs to a layer that no checkpoint holds."""
        return any(name.startswith(f"{module}.") for module in self.spec.fresh)

    @classmethod
    @abstractmethod
    def create(cls, spec: BackboneSpec, scale: str, clip_seconds: float | None, overrides: FrontendOverrides) -> Self:
        """Build a randomly initialised backbone. `clip_seconds` is the longest clip it will process, by which some
        architectures reduce their input; None is the length of pretraining."""

    @classmethod
    @abstractmethod
    def load(cls, spec: BackboneSpec, path: Path, clip_seconds: float | None, overrides: FrontendOverrides) -> Self:
        """Load an official file, which also determines the size. Raises a UserError if it is not in this backbone's
        format, or was trained on features that `overrides` does not accept."""

    @abstractmethod
    def encode(self, features: Tensor) -> Tensor:
        """Features of the front end to tokens [B, L, D], by pretrained layers only."""

    def pool(self, tokens: Tensor) -> Tensor:
        """Tokens [B, L, D] to the embedding [B, D]: their mean by default."""
        return tokens.mean(1)

    def embed(self, features: Tensor) -> Tensor:
        """Features to the embedding [B, D] in float32, for inference: `pool` of `encode` up to rounding, by fewer
        operations where an architecture allows it."""
        return self.pool(self.encode(features).float())

    def forward(self, wave: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Waveform [B, T] in [-1, 1] at the spec's rate to the embedding [B, D]."""
        return self.embed(self.frontend(wave, lengths))
