"""Write and strictly read nano weights: a safetensors file of a backbone's pretrained tensors."""

from __future__ import annotations

import json
from pathlib import Path

import safetensors
from safetensors.torch import load_file, save_file
from torch import Tensor

from sousaphone.backbones.backbone import Backbone
from sousaphone.backbones.backbone_spec import BackboneSpec
from sousaphone.backbones.frontend_spec import AS_TRAINED, FrontendOverrides
from sousaphone.backbones.registry import implementation
from sousaphone.backbones.state_dicts import misfits, refuse_misfits
from sousaphone.errors import UserError

_FORMAT = "sousaphone-nano"


def save(backbone: Backbone, path: Path, about: dict) -> None:
    """Write a nano backbone's pretrained tensors in half precision; `about` is stored as metadata."""
    state = {key: value.detach().cpu().contiguous() for key, value in _pretrained(backbone).items()}
    state = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
    description = {"format": _FORMAT, "model": backbone.spec.name, "about": json.dumps(about, sort_keys=True)}
    save_file(state, path, description)


def load(
    spec: BackboneSpec, path: Path, clip_seconds: float | None, overrides: FrontendOverrides = AS_TRAINED
) -> Backbone:
    """Load a file written by `save`, in float32; fresh layers are drawn from torch's generator. Raises a UserError if
    it is of another backbone, or a tensor is missing, unknown or of another shape."""
    model = metadata(path).get("model")
    if model not in (spec.name, spec.twin):
        raise UserError(f"{path} holds nano weights of {model}, not of {spec.name}; give the right file")
    backbone = implementation(spec).create(spec, "nano", clip_seconds, overrides)
    hop, used = spec.scales["nano"].get("hop", spec.frontend.hop), backbone.frontend.contract.hop
    if hop != used:
        backbone.mismatches = (f"hop {hop} for {used}",)
    state, own = load_file(path), _pretrained(backbone)
    refuse_misfits(f"{path} does not fit {spec.title} at nano scale", misfits(own, state))
    backbone.load_state_dict({key: value.to(own[key].dtype) for key, value in state.items()}, strict=False)
    return backbone


def metadata(path: Path) -> dict[str, str]:
    """The metadata of a file written by `save`; empty for other files."""
    if path.suffix != ".safetensors" or not path.is_file():
        return {}
    try:
        with safetensors.safe_open(path, "pt") as file:
            found: dict[str, str] = file.metadata() or {}
    except safetensors.SafetensorError:
        return {}
    return found if found.get("format") == _FORMAT else {}


def _pretrained(backbone: Backbone) -> dict[str, Tensor]:
    """The state dict without fresh layers."""
    return {key: value for key, value in backbone.state_dict().items() if not backbone.is_fresh(key)}
