"""Check weights by loading every tensor by name and shape, and by their number of parameters."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sousaphone.backbones.backbone import Backbone
from sousaphone.backbones.backbone_spec import BackboneSpec
from sousaphone.backbones.frontend_spec import AS_TRAINED, FrontendOverrides
from sousaphone.backbones.nano import files as nano
from sousaphone.backbones.registry import implementation
from sousaphone.errors import UserError
from sousaphone.weights.identity import claimed

_SECONDS = 2.5


def load_checked(
    spec: BackboneSpec, path: Path, clip_seconds: float | None = None, overrides: FrontendOverrides = AS_TRAINED
) -> Backbone:
    """Load the backbone in a weights file or directory. Raises a UserError if it is not in this backbone's format, or
    has the name of a published file but another size."""
    if nano.metadata(path):
        return nano.load(spec, path, clip_seconds, overrides)
    backbone = implementation(spec).load(spec, path, clip_seconds, overrides)
    published, found = claimed(spec, path), pretrained_parameters(backbone)
    if published is not None and found != published.parameters:
        raise UserError(
            f"{path} has the name of {published.address} but {found:,} parameters instead of "
            f"{published.parameters:,}; give the right one, or rename this one"
        )
    return backbone


def pretrained_parameters(backbone: Backbone) -> int:
    """The number of parameters without fresh layers, which no checkpoint holds."""
    return sum(p.numel() for name, p in backbone.named_parameters() if not backbone.is_fresh(name))


def fixed_clip(rate: int) -> np.ndarray:
    """A test sound of eight decaying noise strokes per second, int16 [T]; the same at every rate, on every machine.

    The noise comes from a linear congruential generator (Numerical Recipes), which no library version changes.
    """
    state, noise = 1, np.empty(round(_SECONDS * 48_000))
    for i in range(len(noise)):
        state = (state * 1_664_525 + 1_013_904_223) % 2**32
        noise[i] = state / 2**31 - 1
    sample = np.arange(round(_SECONDS * rate))
    # The noise is held at the nearest earlier value, not resampled.
    wave = noise[sample * 48_000 // rate] * np.exp(-(sample % (rate // 8)) / (0.02 * rate))
    return np.round(wave * 16_000).astype(np.int16)
