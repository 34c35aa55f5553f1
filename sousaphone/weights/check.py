"""Whether weights are what they should be: they are loaded, every tensor by name and shape, and counted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sousaphone.backbones.backbone_spec import BackboneSpec
from sousaphone.backbones.frontend_spec import AS_TRAINED, FrontendOverrides
from sousaphone.backbones.nano import files as nano
from sousaphone.backbones.registry import implementation
from sousaphone.errors import UserError
from sousaphone.weights.identity import claimed

if TYPE_CHECKING:
    from sousaphone.backbones.backbone import Backbone

_SECONDS = 2.5


def load_checked(
    spec: BackboneSpec, path: Path, clip_seconds: float | None = None, overrides: FrontendOverrides = AS_TRAINED
) -> Backbone:
    """The backbone that a weights file or directory holds.

    Raises:
        UserError: it is not of this backbone's format, or has the name of a published one and another size.
    """
    if nano.is_nano(path):
        return nano.load(spec, path, clip_seconds, overrides)
    backbone = implementation(spec).load(spec, path, clip_seconds, overrides)
    published, found = claimed(spec, path), pretrained_parameters(backbone)
    if published is not None and found != published.parameters:
        raise UserError(
            f"{path} is called as {published.address} but holds {found:,} parameters, where that has "
            f"{published.parameters:,}; give the right one, or rename this one"
        )
    return backbone


def pretrained_parameters(backbone: Backbone) -> int:
    """How many numbers came from its weights: fresh layers left out."""
    return sum(p.numel() for name, p in backbone.named_parameters() if not backbone.is_fresh(name))


def fixed_clip(rate: int) -> np.ndarray:
    """The same sound at every rate and on every machine: eight decaying strokes a second of noise, int16 [T].

    The noise is a linear congruential generator's (Numerical Recipes), so that no library's version decides.
    """
    state, noise = np.uint32(1), np.empty(round(_SECONDS * 48_000))
    for at in range(len(noise)):
        state = np.uint32((int(state) * 1_664_525 + 1_013_904_223) % 2**32)
        noise[at] = int(state) / 2**31 - 1
    sample = np.arange(round(_SECONDS * rate))
    # Each rate takes the noise's nearest earlier value: held, not resampled.
    wave = noise[sample * 48_000 // rate] * np.exp(-(sample % (rate // 8)) / (0.02 * rate))
    return np.round(wave * 16_000).astype(np.int16)
