"""SOUSAphone: compares pretrained audio backbones, fine-tuned with LoRA, on the 40 drum rudiments.

`load` and `base_model` use what a sweep has trained; see docs/use.md.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sousaphone.deploy.loading import base_model
    from sousaphone.deploy.predictor import load

__all__ = ["base_model", "load"]
__version__ = "0.1.0"

# Imported at their first use, since they import torch.
_LAZY = {"base_model": "sousaphone.deploy.loading", "load": "sousaphone.deploy.predictor"}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)
